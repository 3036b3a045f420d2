"""The last layer of a network that answers with a number: the data's unit in it, and taken out of it while the network learns.

    answer = (w . h + b) * sd + mean = (sd * w) . h + (sd * b + mean)

A network learns numbers best that have mean 0 and standard deviation 1; what it is asked about has the data's. On disk, and wherever a network answers, sd and
mean stand in the weights of the last layer, so that no runtime, export or teacher has to know of them. A training takes them out before and puts them in again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from recompress.errors import DataRefused
from recompress.models.architecture import architecture_of
from recompress.models.heads import head_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Standard = tuple[float, float]
"""Mean and standard deviation."""
UNKNOWN: Standard = (0.0, 1.0)
"""Of a model that was fine-tuned elsewhere: what it answers is in the data's unit, and nothing says what it learned from."""


def standard_of(numbers: Sequence[float]) -> Standard:
    """Raises ``DataRefused`` for no number, and for numbers that are all the same: nothing is to be learned from these."""
    if not numbers:
        raise DataRefused("none of the training examples says a number; training needs some")
    mean, spread = float(np.mean(numbers)), float(np.std(numbers))
    if not spread > 1e-9 * abs(mean):
        raise DataRefused(f"all {len(numbers):,} numbers of the training examples are {mean:g}; there is nothing to learn")
    return mean, spread


def output_layer(network: PreTrainedModel) -> Any:
    """The linear layer whose output is the answer."""
    from torch import nn

    heads = [getattr(network, name) for name in architecture_of(network).head if hasattr(network, name)]
    return [module for head in heads for module in head.modules() if isinstance(module, nn.Linear)][-1]


def complete_output(network: PreTrainedModel, benchmark: str) -> None:
    """Give the last layer of a network that answers with a number a bias, where it has none (decoders): without one, no mean has a place."""
    import torch

    if head_of(benchmark).answer != "number":
        return
    layer = output_layer(network)
    if layer.bias is None:
        layer.bias = torch.nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))


def put_in(network: PreTrainedModel, standard: Standard) -> None:
    """From standardised answers to those in the data's unit."""
    mean, spread = standard
    weight, bias = _numbers(network)
    weight.mul_(spread)
    bias.mul_(spread).add_(mean)


def take_out(network: PreTrainedModel, standard: Standard) -> None:
    """From answers in the data's unit to standardised ones."""
    mean, spread = standard
    weight, bias = _numbers(network)
    weight.div_(spread)
    bias.sub_(mean).div_(spread)


@contextmanager
def standardised(network: PreTrainedModel, standard: Standard | None, *, fresh: bool) -> Iterator[None]:
    """While the block runs, the network's answers are standardised; those of a ``fresh`` head are so already. Nothing happens without a ``standard``."""
    if standard is None:
        yield
        return
    before = [tensor.clone() for tensor in _numbers(network)]
    if not fresh:
        take_out(network, standard)
    taken = [tensor.clone() for tensor in _numbers(network)]
    try:
        yield
    finally:
        same = [tensor.cpu() == was for tensor, was in zip(_numbers(network), taken, strict=True)]
        put_in(network, standard)
        for tensor, was, untouched in zip(_numbers(network), before, same, strict=True):
            if not fresh:  # what no step has moved is bit for bit what it was, however quotients are rounded
                tensor.copy_(was.where(untouched, tensor.cpu()))


def _numbers(network: PreTrainedModel) -> tuple[Any, Any]:
    """Weight and bias, behind whatever a method makes of the weight while it trains (``torch.nn.utils.parametrize``)."""
    layer = output_layer(network)
    weight = layer.parametrizations.weight.original if hasattr(layer, "parametrizations") else layer.weight
    return weight.data, layer.bias.data
