"""A model, from wherever somebody has it: a folder of this project, a fine-tuned folder of transformers, or one in memory."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.digest import sha256_directory
from recompress.models.checkpoint import INFO_FILE, Checkpoint, Info, read_info, save
from recompress.models.checkpoint import load as load_checkpoint
from recompress.models.files import CONFIG_FILE, check_whole, read_config
from recompress.models.heads import HEADS
from recompress.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from recompress.predict import Predictor


class Place:
    """A temporary folder that goes with the last object that holds it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="recompress-model-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class Model:
    """A model directory, and what it says of itself. One that was made in a temporary folder lives as long as this object."""

    folder: Path
    _place: Place | None = field(default=None, repr=False, compare=False)

    @cached_property
    def info(self) -> Info:
        """Benchmark, labels in their order, the longest sequence in tokens, the runtime and the steps so far."""
        return read_info(self.folder)

    @cached_property
    def sha256(self) -> str:
        """The digest of all files of its directory."""
        return sha256_directory(self.folder)

    @property
    def network(self) -> PreTrainedModel:
        """The network as transformers knows it, read anew: 32-bit floats, on the CPU, in evaluation mode. Raises ``InputError`` for an ONNX graph."""
        return load_checkpoint(self.folder).torch_network

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder)

    @cached_property
    def _predictor(self) -> Predictor:
        from recompress.predict import Predictor

        return Predictor(self.folder)

    def predict(self, texts: Sequence[str | Sequence[str] | Mapping[str, str]]) -> list[dict[str, Any]]:
        """An answer for each text or pair of texts, as ``recompress predict`` gives it: label and score, all labels that hold, a number, words, tags and entities, or how
        well a text is foreseen; or for each ``{"question": …, "context": …}`` its answer and place."""
        return self._predictor(texts)

    def save(self, folder: str | Path) -> Model:
        """Copy the directory to a new ``folder``. Raises ``InputError`` when that exists, and ``StorageError`` where it cannot be written."""
        target = path_of(folder, "folder")
        with new_directory(target) as place:
            shutil.copytree(self.folder, place, dirs_exist_ok=True)
        return Model(target)


def load(model: str | Path | Model | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, *, benchmark: str | None = None) -> Model:
    """A model to be compressed, measured or exported.

    ``model`` is a folder that this project wrote, a folder of transformers with a trained head (``…ForSequenceClassification``, ``…ForTokenClassification``,
    ``…ForQuestionAnswering`` or ``…ForCausalLM``), or such a network in memory with its ``tokenizer``, which is copied and never changed. Labels and their order
    are those of its config, the longest sequence that of its tokenizer. What it was made for follows from its class and from ``problem_type`` in its config;
    ``benchmark`` says it where these leave it open: a model of pairs of texts looks like one of single texts.

    Raises ``InputError`` for a model that is none of these or was made for another benchmark, a tokenizer that is not the one which a folder has itself, and ``IntegrityError`` for broken files.

    >>> model = recompress.load("topics")
    >>> model.info.labels
    ('food', 'sport', 'work')
    """
    if isinstance(model, Model):
        if benchmark not in (None, model.info.benchmark):
            raise InputError(f"model {model.folder} was made for {model.info.benchmark}, not for {benchmark}")
        _check_own(model.folder, tokenizer)
        return model
    if isinstance(model, (str, Path)):
        found = _of_folder(Path(model), benchmark)
        _check_own(Path(model), tokenizer)
        return found
    if not (hasattr(model, "save_pretrained") and hasattr(model, "config")):
        raise InputError(f"a model is a folder, what recompress.load gives, or a network of transformers, got {model!r:.60}")
    if hasattr(model, "merge_and_unload"):
        raise InputError(f"the {type(model).__name__} in memory holds an adapter beside its weights; give model.merge_and_unload()")
    if tokenizer is not None and not (hasattr(tokenizer, "save_pretrained") and hasattr(tokenizer, "get_vocab")):
        raise InputError(f"tokenizer should be one of transformers, got {tokenizer!r:.60}; give AutoTokenizer.from_pretrained(…)")
    if tokenizer is None:
        raise InputError(f"a {type(model).__name__} in memory needs its tokenizer: recompress.load(model, tokenizer)")
    with tempfile.TemporaryDirectory(prefix="recompress-model-") as place:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        return _of_folder(Path(place), benchmark)


def path_of(place: Any, what: str) -> Path:
    """Raises ``InputError`` for what is no path."""
    if not isinstance(place, (str, os.PathLike)):
        raise InputError(f"{what} should be a path, got {place!r:.60}")
    return Path(place)


def _check_own(folder: Path, tokenizer: Any) -> None:
    """Raises ``InputError`` for a tokenizer that would be ignored, because a folder has its own, and its network knows no other."""
    if tokenizer is None:
        return
    from recompress.models.pretrained import own_tokenizer

    own = own_tokenizer(folder)
    given, known = (getattr(one, "backend_tokenizer", None) for one in (tokenizer, own))
    if given is None or known is None or _bare(given) != _bare(known):
        size = f"{len(tokenizer):,} tokens" if hasattr(tokenizer, "get_vocab") else f"{tokenizer!r:.60}"
        raise InputError(
            f"model {folder} has a tokenizer of its own ({len(own):,} tokens), and the one given ({size}) would be ignored; give None, or the network in memory with it"
        )


def _bare(backend: Any) -> Any:
    """What it makes of text, without a limit that somebody set for a while."""
    return {name: part for name, part in json.loads(backend.to_str()).items() if name not in ("truncation", "padding")}


def kept(checkpoint: Checkpoint) -> Model:
    """A checkpoint in a temporary directory of its own."""
    place = Place()
    save(checkpoint, place.path / "model")
    return Model(place.path / "model", place)


def _of_folder(folder: Path, benchmark: str | None) -> Model:
    if not folder.is_dir():
        raise InputError(f"there is no model folder {folder}")
    if (folder / INFO_FILE).is_file():
        info = read_info(folder)
        if benchmark not in (None, info.benchmark):
            raise InputError(f"model {folder} was made for {info.benchmark}, not for {benchmark}")
        return Model(folder)
    from recompress.models.finetuned import from_finetuned, labels_of

    check_whole(folder, f"model {folder}")
    config = read_config(folder)
    benchmark = benchmark or _benchmark_of(folder)
    return kept(from_finetuned(folder, benchmark, labels_of(config, benchmark)))


def _benchmark_of(folder: Path) -> str:
    """By the class that the config names, and what it says of the head's numbers."""
    from recompress.models.finetuned import ONE_LABEL

    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    named, problem = config.get("architectures") or [""], config.get("problem_type")
    problem = None if problem == ONE_LABEL else problem
    fitting = [name for name, head in HEADS.items() if str(named[0]).endswith(head.auto_class.removeprefix("AutoModel")) and head.problem_type == problem]
    if fitting:
        return min(fitting, key=lambda name: HEADS[name].texts)  # of single texts, where pairs would look alike
    known = ", ".join(dict.fromkeys(f"…{head.auto_class.removeprefix('AutoModel')}" for head in HEADS.values()))
    raise InputError(f"{folder} is a {named[0] or 'model without a named class'}; fine-tuned models are {known}; train it with a recipe first")
