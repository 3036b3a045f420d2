"""A byte-level BPE tokenizer in the keys of a GGUF file, and back, so that it gives the same tokens on both sides.

What cuts a text before pairs are joined stands in a file as a name, ``tokenizer.ggml.pre``, whose meaning is in llama.cpp's code. Of each name that is known here
the steps are given as the library ``tokenizers`` has them; a name that is not known is refused, since a tokenizer that guesses is wrong without a word.
Token types: 1 normal, 3 control, 4 defined by a user, 5 unused (rows of the embeddings that no token has).
Source: the GGUF specification, "Tokenizer"; the pre-tokenizers of llama.cpp's vocabulary; Sennrich et al. 2016, arXiv:1508.07909 (BPE).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.models.tokenizer import assembled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, CONTROL, DEFINED, UNUSED = 1, 3, 4, 5
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # what a published model's file says
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
"""The same, each digit by itself."""
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
SPLIT, SPLIT_DIGITS = ({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} for regex in (LLAMA_3, QWEN_2))
SINGLE_DIGITS = [DIGITS, BYTES]
PRE: Mapping[str, list[dict[str, Any]]] = {
    "gpt-2": [BYTES],
    "smollm": SINGLE_DIGITS,
    "starcoder": SINGLE_DIGITS,
    "refact": SINGLE_DIGITS,
    "llama-bpe": [SPLIT, BYTES | {"use_regex": False}],
    "qwen2": [SPLIT_DIGITS, BYTES | {"use_regex": False}],
}
"""The steps behind each name, in order; the first name with the steps of a tokenizer is the one that is written."""
NFC = {"type": "NFC"}
WHOLE_FIRST = ("llama-bpe",)
"""Where a piece that is a token stays whole, whatever pairs would make of it (``ignore_merges``)."""
COMPOSED = ("qwen2",)
"""Where letters and marks are composed first (NFC). llama.cpp itself does not: it cuts a text as the tokenizer does that is in that form already."""
NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
CHAT = "tokenizer.chat_template"


def tokenizer_of(values: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer that a file describes. Raises ``InputError`` for a kind, or a way of cutting text, that is not known here."""
    kind, pre = values.get("tokenizer.ggml.model"), str(values.get("tokenizer.ggml.pre"))
    if kind != "gpt2":
        raise InputError(f"its tokenizer is of the kind {kind!r}; read here is 'gpt2', which is BPE over bytes")
    if pre not in PRE:
        raise InputError(f"its tokenizer cuts text in the way {pre!r} (tokenizer.ggml.pre); known here: {', '.join(PRE)}")
    tokens, merges = (values.get(f"tokenizer.ggml.{name}") for name in ("tokens", "merges"))
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise InputError("its tokenizer has no tokens or no merges")
    if len(set(tokens)) != len(tokens):
        raise InputError("its tokenizer has one token twice, so that one text would have two forms")
    types = values.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [_pair(merge) for merge in merges],
        "ignore_merges": pre in WHOLE_FIRST,
    }
    added = [_added(i, token, special=kind == CONTROL) for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind in (CONTROL, DEFINED)]
    begin = values.get("tokenizer.ggml.bos_token_id") if values.get("tokenizer.ggml.add_bos_token") else None
    definition = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": NFC if pre in COMPOSED else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE[pre]},
        "post_processor": None if begin is None else _begun_with(tokens[begin], begin),
        "decoder": BYTES,
        "model": model
        | {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False},
    }
    numbers = {name: values.get(f"tokenizer.ggml.{key}_token_id") for name, key in NAMES.items()}
    settings = {name: tokens[number] for name, number in numbers.items() if number is not None and number < len(tokens)}
    chat = {"chat_template": values[CHAT]} if values.get(CHAT) else {}
    return assembled(json.dumps(definition), settings | chat | {"model_input_names": ["input_ids", "attention_mask"]})


def _pair(merge: str) -> list[str]:
    left, _, right = merge.partition(" ")
    return [left, right]


def _added(number: int, token: str, *, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": number, "content": token} | flags


def _begun_with(token: str, number: int) -> dict[str, Any]:
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    text, other = ({"Sequence": {"id": name, "type_id": 0}} for name in ("A", "B"))
    special = {token: {"id": token, "ids": [number], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": [first, text], "pair": [first, text, other], "special_tokens": special}


def values_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[str, Any]:
    """The keys of a file with this tokenizer, for a model with so many rows of embeddings. Raises ``InputError`` for a tokenizer that no file can say."""
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    model = definition["model"]
    _refuse(definition)
    pre = pre_of(definition)
    _check_normalizer(definition["normalizer"], pre)
    numbers = dict(model["vocab"]) | {added["content"]: added["id"] for added in definition["added_tokens"]}
    tokens, types = [f"[PAD{i}]" for i in range(rows)], [UNUSED] * rows
    for token, number in numbers.items():
        tokens[number], types[number] = token, NORMAL
    for added in definition["added_tokens"]:
        types[added["id"]] = CONTROL if added["special"] else DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    begin = _first_token(definition["post_processor"])
    special = {f"tokenizer.ggml.{key}_token_id": number for name, key in NAMES.items() if (number := getattr(tokenizer, f"{name}_id")) is not None}
    chat = {CHAT: tokenizer.chat_template} if isinstance(tokenizer.chat_template, str) else {}
    return (
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.add_bos_token": begin is not None,
            "tokenizer.ggml.add_space_prefix": False,
        }
        | ({} if begin is None else {"tokenizer.ggml.bos_token_id": begin})
        | special
        | chat
    )


def pre_of(definition: Mapping[str, Any]) -> str:
    """The name of the steps that cut a text. Raises ``InputError`` for steps that no file has a name for here."""
    steps = [_told(step) for step in _steps(definition["pre_tokenizer"])]
    whole_first = bool(definition["model"].get("ignore_merges"))
    for name, known in PRE.items():
        if steps == [_told(step) for step in known] and whole_first == (name in WHOLE_FIRST):
            return name
    names = ", ".join(step["type"] for step in _steps(definition["pre_tokenizer"])) or "nothing"
    raise InputError(f"GGUF has no name here for a tokenizer that cuts text by {names} like this one; known: {', '.join(PRE)}")


def _steps(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return [inner for child in step["pretokenizers"] for inner in _steps(child)] if step["type"] == "Sequence" else [step]


def _told(step: Mapping[str, Any]) -> dict[str, Any]:
    """Without what concerns places in the text and no token."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}


def _refuse(definition: Mapping[str, Any]) -> None:
    model = definition["model"]
    if model["type"] != "BPE" or not _steps(definition["pre_tokenizer"]) or _steps(definition["pre_tokenizer"])[-1]["type"] != "ByteLevel":
        raise InputError(f"GGUF is written for BPE over bytes here, and this tokenizer is {model['type']}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout"):
        if model.get(name):
            raise InputError(f"GGUF has no key for {name} of a BPE tokenizer")
    for added in definition["added_tokens"]:
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise InputError(f"GGUF cannot say that the token {added['content']!r} takes the spaces beside it, or stands for whole words only")


def _check_normalizer(normalizer: Mapping[str, Any] | None, pre: str) -> None:
    """Raises ``InputError`` for one that a file with this way of cutting text does not stand for."""
    if pre in COMPOSED and normalizer != NFC:
        raise InputError(f"GGUF says {pre} of tokenizers that compose letters and marks first (NFC), and this one does not")
    if pre not in COMPOSED and normalizer is not None:
        raise InputError(f"GGUF has no key for a tokenizer's normalizer, and this one has {normalizer['type']}")


def _first_token(step: Mapping[str, Any] | None) -> int | None:
    """The token that is put before each text. Raises ``InputError`` for one behind it."""
    processors = [] if step is None else step["processors"] if step["type"] == "Sequence" else [step]
    for processor in processors:
        if processor["type"] == "ByteLevel":
            continue
        before = [piece for piece in processor.get("single", ()) if "SpecialToken" in piece]
        if processor["type"] != "TemplateProcessing" or len(before) > 1 or (before and processor["single"][0] != before[0]):
            raise InputError(f"GGUF can say that one token stands before a text, and this tokenizer does something else ({processor['type']})")
        for piece in before:
            [number] = processor["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
            return int(number)
    return None
