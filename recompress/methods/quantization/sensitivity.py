"""What rounding one layer alone does to a network's answers.

    damage[i, b] = mean over the calibration text of KL(p || p with layer i in b bits)

p: what the network says at each token of the text, or of each text where it gives one answer. Sums are kept after each batch: killed and called again, the work
goes on behind the last one.
Source: Dong et al. 2019 (HAWQ), arXiv:1905.03696 (sensitivity decides the bits; there from the Hessian's eigenvalues); Cai et al. 2020 (ZeroQ),
arXiv:2001.00281, eq. 7 (KL of the answers, each layer alone).
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recompress.errors import IntegrityError
from recompress.integrity.atomic_directory import storage_error
from recompress.integrity.digest import sha256_json
from recompress.methods.quantization.grid import FewBits, codes_on, grid_of, values_of
from recompress.models.architecture import encoder_linears
from recompress.models.padding import padding_of
from recompress.models.surgery import weight_of
from recompress.progress import bar
from recompress.runtimes.asking import by_unit, finds_spans, logits_of
from recompress.runtimes.batches import Feature, batches_of
from recompress.training.losses import ONE_LABEL, Losses
from recompress.training.run import weights_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 4
Damages = dict[str, dict[str, float]]
"""By layer and bits."""


def measure(
    network: PreTrainedModel, features: Sequence[Feature], configs: Sequence[FewBits], workdir: Path, label: str, losses: Losses = ONE_LABEL
) -> Damages:
    """The damage of each linear layer with each of ``configs``, by name and bits. The network is left as it was; ``losses`` are those of its head.

    Raises ``IntegrityError`` for answers that are not finite, and ``StorageError`` when ``workdir`` cannot be written.
    """
    names = [name for name, _ in encoder_linears(network)]
    batches = list(batches_of(features, padding_of(network), BATCH_SIZE))
    stamp = _stamp(network, features, configs, [rows for rows, _ in batches])
    place = workdir / "sensitivity.json"
    done, count, sums = _read(place, stamp) or (0, 0, {name: {str(config.bits): 0.0 for config in configs} for name in names})
    with torch.inference_mode(), bar(label, len(batches) * len(names), "layer", start=done * len(names)) as progress:
        for i, (_, batch) in enumerate(batches[done:], done + 1):
            tensors = {name: torch.from_numpy(values).to(network.device) for name, values in batch.items()}
            reference = answers(network, tensors)
            count += len(reference)
            for name, linear in encoder_linears(network):
                weight = weight_of(linear)
                original = weight.clone()
                for config in configs:
                    grid = grid_of(original, config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales)
                    weight.copy_(values_of(codes_on(original, grid, config.bits), grid))
                    sums[name][str(config.bits)] += divergence(reference, answers(network, tensors), losses)
                weight.copy_(original)
                progress.update(1)
            _write(place, {"stamp": stamp, "batches": i, "count": count, "sums": sums})
    return {name: {bits: value / count for bits, value in row.items()} for name, row in sums.items()}


def measure_anew(network: PreTrainedModel, features: Sequence[Feature], configs: Sequence[FewBits], losses: Losses = ONE_LABEL) -> Damages:
    """What ``measure`` gives, for a proof: nothing that was measured before is read."""
    with TemporaryDirectory() as folder:
        return measure(network, features, configs, Path(folder), "damage, measured anew", losses)


def answers(network: PreTrainedModel, batch: Mapping[str, Tensor]) -> Float[Tensor, "answers choices"]:
    """The logits at each token of the text, without padding, or of each text; or of the two ends of an answer, which are chosen among tokens."""
    logits = logits_of(network.eval(), batch)
    if finds_spans(network):
        logits = by_unit(network, logits, batch["attention_mask"]).flatten(0, 1)
    elif logits.ndim == 3:
        text: Bool[Tensor, "batch length"] = batch["attention_mask"].bool()
        logits = logits[text]
    if not logits.isfinite().all():
        raise IntegrityError("the model gives logits that are not finite on the calibration text; it is broken, or a layer cannot be rounded to so few bits")
    return logits.double()


def divergence(reference: Float[Tensor, "answers choices"], now: Float[Tensor, "answers choices"], losses: Losses = ONE_LABEL) -> float:
    """The sum of how far the answers are from the reference, in 64 bits: a KL may be smaller than the rounding of what it is the difference of."""
    return max(0.0, float(losses.apart(now.double(), reference.double(), temperature=1.0).sum()))


def _stamp(network: PreTrainedModel, features: Sequence[Feature], configs: Sequence[FewBits], batches: Sequence[Sequence[int]]) -> str:
    versions = [importlib.metadata.version(name) for name in ("torch", "transformers")]
    settings = [config.model_dump(mode="json") for config in configs]
    return sha256_json([weights_sha256(network), [feature["input_ids"] for feature in features], settings, torch.get_num_threads(), versions, batches])


def _read(place: Path, stamp: str) -> tuple[int, int, Damages] | None:
    try:
        record = json.loads(place.read_text())
        return (record["batches"], record["count"], record["sums"]) if record["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(place: Path, value: dict[str, Any]) -> None:
    """All or nothing."""
    temporary = place.with_name(place.name + ".tmp")
    try:
        temporary.write_text(json.dumps(value))
        temporary.replace(place)
    except OSError as error:
        raise storage_error(error, place) or error from None
