"""What stands in a model directory, read with suspicion: configs name known architectures only, weights are safetensors only, nothing runs code or the net."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recompress.errors import InputError, IntegrityError
from recompress.models.architecture import architecture_named

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG_FILE = "config.json"
WHOLE_FILE, SHARDS, SHARD_INDEX = "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"
ADAPTER_FILE = "adapter_config.json"
HalfPrecision = Literal["float16", "bfloat16"]
"""Kinds of floats in 16 bits: with 11 binary digits between 6e-5 and 65,504, or with 8 and the range of 32-bit floats."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack")


def refuse_pickles(directory: Path) -> None:
    """Raises ``IntegrityError`` when a file lies there that some loader would unpickle."""
    for path in sorted(directory.rglob("*")):
        if path.suffix in PICKLES:
            raise IntegrityError(f"{path} may be a pickle, which can run code when it is read; a model directory holds safetensors, ONNX and JSON only")


def check_whole(directory: Path, what: str) -> None:
    """Raises ``InputError`` for an adapter, alone or beside weights (transformers would apply it while it reads them), and for weights in several files, with the way to
    one whole file. ``what`` names the model."""
    whole, shards = (directory / WHOLE_FILE).is_file(), sorted(path.name for path in directory.glob(SHARDS))
    if (directory / ADAPTER_FILE).is_file() or (not whole and any(directory.glob("adapter_model.*"))):
        if whole:
            raise InputError(f"beside the weights of {what} lies an adapter ({ADAPTER_FILE}); merge it into them, or move it away")
        raise InputError(
            f"{what} is an adapter without the model that it belongs to; merge them once: "
            "peft.AutoPeftModelFor….from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW), and give NEW with its tokenizer"
        )
    if not whole and (shards or (directory / SHARD_INDEX).is_file()):
        raise InputError(
            f"the weights of {what} lie in several files ({shards[0] if shards else SHARD_INDEX}), and one {WHOLE_FILE} is read; join them once: "
            "transformers.AutoModelFor….from_pretrained(FOLDER).save_pretrained(NEW, max_shard_size='1TB'), and give NEW with its tokenizer"
        )


def read_config(directory: Path, **changes: Any) -> PreTrainedConfig:
    """The transformers config, with ``changes``. Raises ``InputError`` when it is missing or of an unknown architecture, ``IntegrityError`` when broken."""
    from transformers import AutoConfig

    path = directory / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{directory} has no {CONFIG_FILE}; a model directory needs one")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(settings, dict):
        raise IntegrityError(f"{path} holds {type(settings).__name__}, not an object")
    architecture_named(str(settings.get("model_type")))
    if "quantization_config" in settings:
        raise InputError(f"{path} describes weights that are quantized already; start from the full model")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False, **changes)
    except Exception as error:  # strict configs raise classes of their own
        raise IntegrityError(f"{path} cannot be used: {first_line(error)}") from None
    return config


def write_config(network: PreTrainedModel, directory: Path) -> None:
    """``config.json``, without the path that the model once came from."""
    settings = network.config.to_diff_dict() | {"architectures": [type(network).__name__], "dtype": "float32"}
    for name in ("_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "auto_map"):
        settings.pop(name, None)
    (directory / CONFIG_FILE).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped: one takes memory when its numbers are looked at, and not before. Raises ``InputError`` when it is missing and
    ``IntegrityError`` when it is cut off or broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path} does not exist; pickled weights are not read, because they can run code")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path} is cut off or broken: {first_line(error)}") from None
    return tensors


def fill(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Read the numbers of a safetensors file straight into the memory of ``tensors``, one after another, so that no tensor is held twice. What is not among them
    is left where it is; one of another type is converted.

    Raises ``IntegrityError`` for a file that is cut off, or a tensor of another shape.
    """
    with opened(path) as (stored, read_into):
        for name in stored:
            if name in tensors:
                read_into(tensors[name].detach(), name)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Mapping[str, Tensor], Callable[[Tensor, str], None]]]:
    """The tensors of a safetensors file, mapped, in the order in which they lie there, and what reads the numbers of one into a tensor that there is.

    Raises ``IntegrityError`` for a file that is cut off, or a tensor of another shape.
    """
    import torch

    mapped = read_tensors(path)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))

        def read_into(tensor: Tensor, name: str) -> None:
            stored = mapped[name]
            if tensor.shape != stored.shape:
                raise IntegrityError(f"{path} holds {name} as {list(stored.shape)}, the model has {list(tensor.shape)}")
            if tensor.dtype != stored.dtype or not tensor.is_contiguous() or sys.byteorder != "little":
                tensor.copy_(stored)
            elif tensor.numel():
                file.seek(8 + size + int(header[name]["data_offsets"][0]))
                place = tensor.flatten().view(torch.uint8).numpy().data
                if file.readinto(place) != len(place):
                    raise IntegrityError(f"{path} is cut off: {name} is not there in full")

        yield dict(sorted(mapped.items(), key=lambda item: int(header[item[0]]["data_offsets"][0]))), read_into


def distinct_tensors(network: PreTrainedModel) -> dict[str, Tensor]:
    """The tensors to store: each once, under the name that others are tied to, or that of the first layer which uses it, sorted by name; parameters in 32-bit
    floats, buffers as they are."""
    import torch

    follows = tuple({f"{name.rpartition('.')[0]}." for name in getattr(network, "all_tied_weights_keys", None) or ()})
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    seen: dict[int, str] = {}
    tensors = {}
    for name, tensor in sorted(network.state_dict().items(), key=lambda item: (item[0].startswith(follows), _numbered(item[0]))):
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen[tensor.data_ptr()] = name
        tensors[name] = tensor.detach().to(dtype=torch.float32 if name in parameters and tensor.is_floating_point() else tensor.dtype).contiguous()
    return dict(sorted(tensors.items()))


def as_stored(network: PreTrainedModel, floats: HalfPrecision | None) -> dict[str, Tensor]:
    """``distinct_tensors`` as they go into the file: parameters in 16 bits, where ``floats`` names a kind."""
    import torch

    tensors = distinct_tensors(network)
    if floats is None:
        return tensors
    parameters, kind = dict(network.named_parameters(remove_duplicate=False)).keys(), getattr(torch, floats)
    return {name: tensor.to(kind) if name in parameters and tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _numbered(name: str) -> list[int | str]:
    """For sorting: layer 2 comes before layer 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers reports every missing head on the terminal and draws bars; here these are expected, and checked."""
    from transformers.utils import logging as noise

    level, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity(logging.CRITICAL)
    noise.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noise.set_verbosity(level)
        if bars:
            noise.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
