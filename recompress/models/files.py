"""What stands in a model directory, read with suspicion: configs name known architectures only, weights are safetensors only, nothing runs code or the net."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError, IntegrityError
from recompress.models.architecture import architecture_named

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG_FILE = "config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack")


def refuse_pickles(directory: Path) -> None:
    """Raises ``IntegrityError`` when a file lies there that some loader would unpickle."""
    for path in sorted(directory.rglob("*")):
        if path.suffix in PICKLES:
            raise IntegrityError(f"{path} may be a pickle, which can run code when it is read; a model directory holds safetensors, ONNX and JSON only")


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
    """All tensors of a safetensors file. Raises ``InputError`` when it is missing and ``IntegrityError`` when it is cut off or broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path} does not exist; pickled weights are not read, because they can run code")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise IntegrityError(f"{path} is cut off or broken: {first_line(error)}") from None
    return tensors


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
