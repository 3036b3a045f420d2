"""SmoothQuant: what is hard to round in the inputs of a layer is moved into its weights, and the network computes what it computed before.

    s[j] = max|x[:, j]|^a / max|W[:, j]|^(1 - a)            y = (x / s) (W * s)^T

1 / s goes into what stands before: a norm that feeds these layers alone (GPT-2 and Llama), the rows of the value layer (whose sums the output layer of the
attention gets; grouped queries share an s), the rows of the layer that a gate multiplies (Llama). Where neither stands before (behind a GELU, and behind a
norm that also feeds a residual, as in BERT) nothing is smoothed.
Source: Xiao et al. 2023, arXiv:2211.10438, eq. 3 and 4, section 4 (folding into previous layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recompress.errors import InputError, IntegrityError
from recompress.methods.calibration import Watcher, watch
from recompress.models.architecture import Layer, Linear, layers_of
from recompress.models.factored import is_factored
from recompress.models.padding import padding_of
from recompress.models.shared_layers import shares_of
from recompress.models.surgery import weight_of
from recompress.runtimes.asking import logits_of
from recompress.runtimes.batches import Feature, batches_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMALLEST = 1e-5
CLOSE = 1e-4
"""The largest difference of an answer, relative to the largest, that other factors of the same products may give."""


class Fold(NamedTuple):
    """Layers with one input, and what stands before them."""

    after: tuple[Linear, ...]
    before: Any
    """A norm, or a linear layer of which the last rows make the inputs."""
    shape: tuple[int, int, int]
    """The inputs as (groups, repeats, channels): repeats have one s."""


def folds_of(network: PreTrainedModel) -> list[Fold]:
    """All places where s can be folded."""
    return [fold for layer in layers_of(network) for fold in _folds(layer)]


def _folds(layer: Layer) -> list[Fold]:
    asking = tuple(dict.fromkeys((layer.query, layer.key, layer.value)))
    width = weight_of(asking[0]).shape[1]
    norms = [layer.module.get_submodule(name) for name in layer.architecture.norms]
    folds = [Fold(after, norm, (1, 1, width)) for after, norm in zip((asking, layer.neurons_in), norms, strict=False)]
    folds.append(Fold((layer.out,), layer.value, (layer.groups, layer.heads // layer.groups, layer.head_size)))
    if len(layer.neurons_in) == 2:
        folds.append(Fold((layer.neurons_out,), layer.neurons_in[-1], (1, 1, layer.neurons)))
    return folds


def smooth(network: PreTrainedModel, features: Sequence[Feature], alpha: float) -> int:
    """Fold s into all places where that is possible, and give their number.

    Raises ``InputError`` for layers that are stored as two or share their weights, ``IntegrityError`` where the answers are not what they were.
    """
    if is_factored(network) or shares_of(network) != tuple(range(len(layers_of(network)))):
        raise InputError("smooth folds scales into layers, and here some are stored as two factors or stand in several places; leave smooth out")
    folds = folds_of(network)
    probe = features[:8]
    reference = _answers(network, probe)
    for fold, scales in zip(folds, scales_of(network, features, alpha), strict=True):
        _fold(fold, scales)
    for was, now in zip(reference, _answers(network, probe), strict=True):
        if not (was - now).abs().max() <= CLOSE * max(1.0, float(was.abs().max())):
            raise IntegrityError(f"smooth {alpha:g} changed the answers of the model by {float((was - now).abs().max()):g}; choose another alpha")
    return len(folds)


def scales_of(network: PreTrainedModel, features: Sequence[Feature], alpha: float) -> list[Float[Tensor, " in"]]:
    """s of each fold, from what flows into its layers."""
    folds = folds_of(network)
    largest = {id(fold.after[0]): torch.zeros(weight_of(fold.after[0]).shape[1], device=network.device) for fold in folds}

    def watcher(linear: Linear) -> Watcher:
        def see(given: Float[Tensor, "batch length width"], _: Tensor, text: Bool[Tensor, "batch length"]) -> None:
            largest[id(linear)] = torch.maximum(largest[id(linear)], given[text].abs().amax(0))

        return see

    watch(network, features, {fold.after[0]: watcher(fold.after[0]) for fold in folds})
    return [smoothing(largest[id(fold.after[0])], [weight_of(linear) for linear in fold.after], fold.shape, alpha) for fold in folds]


def smoothed(network: PreTrainedModel, features: Sequence[Feature], alpha: float) -> list[Tensor]:
    """What the weights of all layers and norms that take part would be with their scales in them, the network left as it is."""
    changed: dict[int, Tensor] = {}
    for fold, scales in zip(folds_of(network), scales_of(network, features, alpha), strict=True):
        for linear in fold.after:
            changed[id(linear)] = changed.get(id(linear), weight_of(linear)) * scales
        weight = changed.get(id(fold.before), fold.before.weight.data if fold.before.weight.ndim == 1 else weight_of(fold.before))
        divisor = torch.ones(len(weight), device=weight.device)
        divisor[-len(scales.view(fold.shape)[:, 0].flatten()) :] = scales.view(fold.shape)[:, 0].flatten()
        changed[id(fold.before)] = weight / (divisor if weight.ndim == 1 else divisor[:, None])
    return list(changed.values())


def smoothing(largest: Float[Tensor, " in"], weights: Sequence[Float[Tensor, "out in"]], shape: tuple[int, int, int], alpha: float) -> Float[Tensor, " in"]:
    """s of eq. 4; the same for inputs that are repeats of each other, and 1 for inputs that are always zero."""
    heavy = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    inputs, heavy = (values.view(shape).amax(1, keepdim=True) for values in (largest, heavy))
    scales = inputs.clamp_min(SMALLEST) ** alpha / heavy.clamp_min(SMALLEST) ** (1 - alpha)
    return torch.where(inputs > 0, scales.clamp_min(SMALLEST), 1.0).expand(shape).flatten()


@torch.no_grad()
def _fold(fold: Fold, scales: Float[Tensor, " in"]) -> None:
    once = scales.view(fold.shape)[:, 0].flatten()
    if fold.before.weight.ndim == 1:
        fold.before.weight /= once
    else:
        rows = weight_of(fold.before)[-len(once) :]
        rows /= once[:, None]
    if getattr(fold.before, "bias", None) is not None:
        fold.before.bias[-len(once) :] /= once
    for linear in fold.after:
        weight = weight_of(linear)
        weight *= scales


def _answers(network: PreTrainedModel, features: Sequence[Feature]) -> list[Tensor]:
    model: Any = network.eval()
    batches = batches_of(features, padding_of(network))
    with torch.no_grad():
        return [logits_of(model, {name: torch.from_numpy(values).to(network.device) for name, values in batch.items()}) for _, batch in batches]
