"""What layer-by-layer work keeps in its folder, so that a kill costs nothing: a sealed checkpoint after each layer, with the layers that are done and what flows
into the next one, one file for each batch."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recompress.integrity.digest import sha256_bytes
from recompress.models.factored import fit_factored
from recompress.models.packed import fit_packed
from recompress.runtimes.batches import Feature
from recompress.training.resume import PREFIX, keep_only, seal
from recompress.training.run import weights_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep(folder: Path, last: Path | None, number: int, changed: Mapping[str, Tensor], hidden: Iterator[Tensor]) -> Path:
    """A sealed checkpoint: all layers that are done, and what flows into the next. The one before it goes."""
    checkpoint = folder / f"{PREFIX}{number}"
    checkpoint.mkdir()
    if last is not None:
        for i in range(number - 1):
            os.link(last / _layer_file(i), checkpoint / _layer_file(i))
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in changed.items()}, checkpoint / _layer_file(number - 1))
    for i, tensor in enumerate(hidden):
        save_file({"hidden": tensor.cpu().contiguous()}, checkpoint / _hidden_file(i))
    seal(checkpoint)
    keep_only(folder, {number})
    return checkpoint


def restore(module: nn.Module, source: Path, number: int) -> None:
    """Put layer ``number`` of a checkpoint into the module that it was before it was changed."""
    stored = load_file(source / _layer_file(number))
    fit_factored(module, stored)
    fit_packed(module, stored)
    device = next(module.parameters()).device
    module.load_state_dict(stored)
    module.to(device)


def hidden_of(source: Path, number: int) -> Tensor:
    """What flows into the next layer for batch ``number``, on the CPU."""
    hidden: Tensor = load_file(source / _hidden_file(number))["hidden"]
    return hidden


def _hidden_file(number: int) -> str:
    return f"hidden-{number:05d}.safetensors"


def _layer_file(number: int) -> str:
    return f"layer-{number:03d}.safetensors"


def stamp(network: PreTrainedModel, features: Sequence[Feature], depends_on: Mapping[str, Any]) -> dict[str, Any]:
    """What the work depends on; a folder with another stamp is emptied."""
    return {
        "weights": weights_sha256(network),
        "features": sha256_bytes(json.dumps([feature["input_ids"] for feature in features]).encode()),
        "said": dict(depends_on),
        "threads": torch.get_num_threads(),  # sums in another order give other last bits
        "versions": [importlib.metadata.version(name) for name in ("torch", "transformers")],
    }
