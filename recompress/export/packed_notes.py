"""What the card of a compressed-tensors folder says of its file, read from the two files themselves: its bytes beside those of the model that was judged, and every
matrix that is stored otherwise there, with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.export.packed_schemes import WIDTHS
from recompress.models.checkpoint import WEIGHTS_FILE
from recompress.models.files import CONFIG_FILE, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

CODES, WORDS = ".codes", ".weight_packed"
SERVED = (32, 64, 128)
"""Columns of a group that vLLM's kernels for GPUs take, besides whole rows: its ``MARLIN_SUPPORTED_GROUP_SIZES``."""
NAMED = 3
"""Matrices whose names are told; of more, how many there are."""


def notes_of(directory: Path, target: Path) -> list[str]:
    """One line for each thing that is to be known."""
    ours, theirs = directory / WEIGHTS_FILE, target / WEIGHTS_FILE
    had, has = read_tensors(ours), read_tensors(theirs)
    packed = [name.removesuffix(CODES) for name in had if name.endswith(CODES)]
    floats = [path for path in packed if f"{path}{WORDS}" not in has]
    wider = [path for path in packed if path not in floats and _bits(had, path) < _written(has, path)]
    settings = json.loads((target / CONFIG_FILE).read_text(encoding="utf-8"))["quantization_config"]
    sizes = sorted({size for group in settings["config_groups"].values() if (size := group["weights"]["group_size"]) not in (None, *SERVED)})
    notes = [f"`{WEIGHTS_FILE}` has {theirs.stat().st_size:,} bytes, that of the model that was judged {ours.stat().st_size:,}."]
    if floats:
        notes.append(f"In 32-bit floats, although packed there, because no packed form of them is served: {_named(floats)}.")
    if wider:
        notes.append(
            f"In more bits than there, with the same numbers, because vLLM reads 4 and 8 bits, and as many in matrices that it joins: {_named(wider)}."
        )
    if settings.get("dequantize"):
        notes.append("Scales are in 32 bits, and transformers turns the codes into floats while it reads them: it has no other way to zero points.")
    if sizes:
        notes.append(f"Groups have {_listed(sizes)} columns; vLLM's kernels for GPUs take {_listed(SERVED)}, or whole rows.")
    return notes


def _bits(tensors: Mapping[str, Tensor], path: str) -> int:
    return int(tensors[f"{path}.form"][1]) % 256


def _written(tensors: Mapping[str, Tensor], path: str) -> int:
    """By the words that a row takes, the last of which need not be full."""
    words, columns = tensors[f"{path}{WORDS}"].shape[1], int(tensors[f"{path}.weight_shape"][1])
    return next(bits for bits in WIDTHS if words == -(-columns * bits // 32))


def _named(paths: Sequence[str]) -> str:
    return ", ".join(f"`{path}`" for path in paths) if len(paths) <= NAMED else f"{len(paths)} matrices, `{paths[0]}` the first"


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
