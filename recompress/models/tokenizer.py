"""The tokenizer of a model directory: ``tokenizer.json`` as it stands, and the names of its special tokens.

transformers rebuilds a tokenizer from its class and its vocabulary when the directory names a class such as ``BertTokenizer``; whatever else stood in
``tokenizer.json`` is then lost. What is written here names the plain class, so that everybody who loads it reads the same file, and gets the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

BACKEND_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
SEGMENTS = "token_type_ids"
"""The input that says which of two texts a token belongs to. Models that have an embedding for it name it among their tokenizer's inputs."""
CHAT = "chat_template"
"""What a model of language that answers people puts around what they say; a program in Jinja, run by nobody but ``recompress.models.chat``."""
AWKWARD = (
    "",
    " ",
    "it's 12345, 3.14 and x_1!?  ",
    "We'LL\tsee\n\n  two\r\nlines",
    "naïve Ẽ ½ Ⅻ ٣٤ 漢字かな 한글 🙂\u200d",
    "a</s><|im_start|>b\u00a0c",
    "e\u0301 tọ\u0301",
)
"""Texts that tokenizers cut otherwise where they differ: digits, letters of other alphabets, marks beside their letters, spaces, what looks like a special token."""
PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that read tokenizer.json as it stands."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> PreTrainedTokenizerBase:
    """The same tokenizer without a class of its own and without baked-in padding or truncation. Raises ``InputError`` when it has no fast form."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(f"the tokenizer {type(tokenizer).__name__} has no fast form (tokenizer.json); convert it with transformers first")
    settings = _settings(tokenizer)
    return _assemble(Tokenizer.from_str(backend.to_str()), settings | ({"model_max_length": max_length} if max_length else {}))


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    plain = plain_tokenizer(tokenizer)
    settings = _settings(plain) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (directory / BACKEND_FILE).write_text(plain.backend_tokenizer.to_str(), encoding="utf-8")
    (directory / SETTINGS_FILE).write_text(json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Needs neither torch nor the net. Raises ``InputError`` for a missing file and ``IntegrityError`` for a broken one."""
    backend, settings = read_tokenizer(directory)
    return _assemble(backend, settings)


def numbered(tokenizer: PreTrainedTokenizerBase) -> int:
    """The rows of a vocabulary that its tokens take: one more than the highest number of a token."""
    return 1 + max(tokenizer.get_vocab().values(), default=-1)


def is_plain(directory: Path) -> bool:
    """Whether the directory says that its ``tokenizer.json`` is to be read as it stands."""
    try:
        named = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(named, dict) and named.get("tokenizer_class") in PLAIN and (directory / BACKEND_FILE).is_file()


def read_tokenizer(directory: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """What the two files hold: the tokenizer, without padding and truncation, and its settings. Raises as ``load_tokenizer``."""
    from tokenizers import Tokenizer

    for name in (BACKEND_FILE, SETTINGS_FILE):
        if not (directory / name).is_file():
            raise InputError(f"{directory} has no {name}; a model directory needs one")
    try:
        backend = Tokenizer.from_str((directory / BACKEND_FILE).read_text(encoding="utf-8"))
        settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError(f"{SETTINGS_FILE} holds no object")
        if settings.get("truncation_side", "left") not in ("left", "right"):
            raise ValueError(f"truncation_side is left or right, got {settings['truncation_side']!r}")
        known = {key: settings[key] for key in (*SPECIAL, CHAT, "model_input_names", "model_max_length", "truncation_side") if key in settings}
        if not isinstance(known.get(CHAT, ""), str):
            raise ValueError(f"{CHAT} is one text, got {type(known[CHAT]).__name__}")
    except Exception as error:  # the library raises a bare Exception for JSON that it cannot read
        raise IntegrityError(f"the tokenizer in {directory} cannot be read: {str(error).splitlines()[0]}") from None
    return _bare(backend), known


def with_backend(tokenizer: PreTrainedTokenizerBase, definition: str) -> PreTrainedTokenizerBase:
    """The tokenizer that the JSON ``definition`` describes, with the special tokens of ``tokenizer``."""
    from tokenizers import Tokenizer

    return _assemble(Tokenizer.from_str(definition), _settings(tokenizer))


def assembled(definition: str, settings: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer that the JSON ``definition`` describes, with ``settings`` as ``tokenizer_config.json`` has them."""
    from tokenizers import Tokenizer

    return _assemble(Tokenizer.from_str(definition), dict(settings))


def with_segments(tokenizer: PreTrainedTokenizerBase, kinds: int) -> PreTrainedTokenizerBase:
    """The tokenizer for a network with embeddings for so many kinds of segments. It names them among its inputs where the network has two kinds and its own
    form of a pair (in ``tokenizer.json``) tells them apart, whatever its class says: a network that was pretrained with segments is asked with them."""
    told = kinds > 1 and len(set(tokenizer.backend_tokenizer.encode("a", "a").type_ids)) > 1
    names = [*(name for name in tokenizer.model_input_names if name != SEGMENTS), *([SEGMENTS] if told else [])]
    return _assemble(tokenizer.backend_tokenizer, _settings(tokenizer) | {"model_input_names": names})


def spaced_words(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Byte-level tokenizers write a word with the space before it. Words that are given one by one get theirs back, as in the text that the model knows.

    Where the byte level itself cuts the text, it is told so. Behind a step that has cut the text already (Llama 3, or single digits) that would put a space
    before each piece of a word; there the space is put before the word, as the last step of normalization.
    """
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    steps = _nested(definition["pre_tokenizer"])
    bytes_at = next((i for i, step in enumerate(steps) if step["type"] == "ByteLevel"), None)
    if bytes_at is None or steps[bytes_at]["add_prefix_space"] or _begins_with_space(definition["normalizer"]):
        return tokenizer
    if any(step["type"] != "Sequence" for step in steps[:bytes_at]):
        before = [definition["normalizer"]] if definition["normalizer"] else []
        definition["normalizer"] = {"type": "Sequence", "normalizers": [*before, {"type": "Prepend", "prepend": " "}]}
    else:
        steps[bytes_at]["add_prefix_space"] = True
    return with_backend(tokenizer, json.dumps(definition))


def _begins_with_space(normalizer: dict[str, Any] | None) -> bool:
    return normalizer is not None and any(step["type"] == "Prepend" for step in (normalizer, *normalizer.get("normalizers", ())))


def _nested(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A step of a tokenizer and the steps inside it."""
    return [] if step is None else [step, *(inner for child in step.get("pretokenizers", ()) for inner in _nested(child))]


def _settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    names: dict[str, Any] = {name: str(token) for name in SPECIAL if (token := getattr(tokenizer, name, None)) is not None}
    if getattr(tokenizer, "truncation_side", "right") == "left":
        names["truncation_side"] = "left"  # a long text keeps its end
    if isinstance(template := getattr(tokenizer, CHAT, None), str):
        names[CHAT] = template
    return names | {"model_input_names": list(tokenizer.model_input_names), "model_max_length": int(min(tokenizer.model_max_length, 1 << 30))}


def _assemble(backend: Tokenizer, settings: dict[str, Any]) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=_bare(backend), padding_side="right", **settings)
    return tokenizer


def _bare(backend: Tokenizer) -> Tokenizer:
    """Without what was baked into its file: a length of 128 there would pad every single sentence to it."""
    backend.no_padding()
    backend.no_truncation()
    return backend
