"""Importance by the loss on labelled examples: what it would rise by without a part, to first order, or what it is without a layer, as measured.

    taylor[p] = mean over examples | sum over tokens a_p . dL/da_p |

a_p is what the part hands on: a head to the output projection, a neuron to the second linear layer, a hidden dimension out of a norm (then summed over the
norms of all layers). The inner sum is the loss's derivative by a gate that multiplies the part, which is the sum of w * dL/dw over the weights that read it.
The absolute value is taken for each example, so that examples that pull in opposite directions do not hide a part. L is the mean over an example's labels.

Source: Michel et al. 2019, arXiv:1905.10650, eq. 2 (heads); Molchanov et al. 2019, arXiv:1906.10771, section 3 (first order, gates).

    loss[l] = mean over examples of L when layer l is left out

for each layer alone, all others in place: one at a time, not greedily.
Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 2.2 (depth).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.methods.pruning.importance import Parts, check_finite
from recompress.models.architecture import Layer, architecture_of
from recompress.models.padding import padding_of
from recompress.runtimes.asking import units_of
from recompress.runtimes.batches import Feature
from recompress.training.batches import collate
from recompress.training.losses import ONE_LABEL, Losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 8
"""Examples that are computed together: their activations and these activations' gradients are held."""


def example_losses(logits: Float[Tensor, "batch units labels"], labels: Tensor, losses: Losses = ONE_LABEL) -> Float[Tensor, " batch"]:
    """Mean loss over the labels of each example; 0 where it has none. ``losses`` are those of the model's head, here and below."""
    return losses.each(logits, labels).sum(1) / losses.carries(labels).sum(1).clamp(min=1)


def gates(handed: Float[Tensor, "batch length parts"], gradient: Float[Tensor, "batch length parts"]) -> Float[Tensor, "batch parts"]:
    """The derivative of each example's loss by a gate on each part."""
    return (handed.detach().double() * gradient.double()).sum(1)


def by_taylor(network: PreTrainedModel, layers: Sequence[Layer], features: Sequence[Feature], losses: Losses = ONE_LABEL) -> Parts:
    """First-order scores of heads, neurons and hidden dimensions. Only activations get gradients, never weights. Raises ``IntegrityError`` for NaN."""
    norms = [norm for layer in layers for norm in layer.norms]
    linears = [linear for layer in layers for linear in (layer.out, layer.neurons_out)]
    handed: dict[Any, Tensor] = {}
    sums: dict[Any, Tensor] = {}

    def keep(module: nn.Module, tensor: Tensor) -> None:
        tensor.retain_grad()
        handed[module] = tensor

    hooks = [linear.register_forward_pre_hook(lambda module, given: keep(module, given[0])) for linear in linears]
    hooks += [norm.register_forward_hook(lambda module, _, came: keep(module, came)) for norm in norms]
    hooks += [network.get_input_embeddings().register_forward_hook(lambda _, __, came: came.requires_grad_(True))]
    try:
        with _weights_at_rest(network), torch.enable_grad():
            for logits, labels in _answers(network, features):
                torch.autograd.backward(example_losses(logits, labels, losses).sum())
                for module, tensor in handed.items():
                    assert tensor.grad is not None
                    gradients = gates(tensor, tensor.grad)
                    size = next((layer.head_size for layer in layers if layer.out is module), 1)
                    gradients = gradients.reshape(len(gradients), -1, size).sum(2).abs().sum(0)
                    sums[module] = sums.get(module, 0) + gradients / len(features)
                handed.clear()
    finally:
        for hook in hooks:
            hook.remove()
    check_finite(*sums.values())
    hidden = torch.stack([sums[norm] for norm in norms]).sum(0)
    return Parts([sums[layer.out] for layer in layers], [sums[layer.neurons_out] for layer in layers], hidden)


def without_each_layer(network: PreTrainedModel, count: int, features: Sequence[Feature], losses: Losses = ONE_LABEL) -> Float[Tensor, " layers"]:
    """The mean loss without each of the ``count`` layers. Raises ``IntegrityError`` when one is no number."""
    every = []
    for i in range(count):
        with _without(network, i):
            every.append(mean_loss(network, features, losses))
    return torch.tensor(every, dtype=torch.float64)


def mean_loss(network: PreTrainedModel, features: Sequence[Feature], losses: Losses = ONE_LABEL) -> float:
    """The mean over examples of their losses. Raises ``IntegrityError`` when it is no number."""
    with torch.no_grad():
        loss = torch.cat([example_losses(logits, labels, losses) for logits, labels in _answers(network, features)]).double().mean()
    check_finite(loss)
    return float(loss)


def _answers(network: PreTrainedModel, features: Sequence[Feature]) -> Iterator[tuple[Float[Tensor, "batch units labels"], Tensor]]:
    """Logits and labels, batch after batch, examples of like length together."""
    model: Any = network.eval()
    ordered = sorted(features, key=lambda feature: len(feature["input_ids"]))
    for start in range(0, len(ordered), BATCH_SIZE):
        batch = collate(ordered[start : start + BATCH_SIZE], padding_of(network))
        batch = {name: rows.to(model.device) for name, rows in batch.items()}
        yield units_of(model, batch), batch["labels"]


@contextmanager
def _weights_at_rest(network: PreTrainedModel) -> Iterator[None]:
    wanted = {parameter: parameter.requires_grad for parameter in network.parameters()}
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, usual in wanted.items():
            parameter.requires_grad_(usual)


@contextmanager
def _without(network: PreTrainedModel, index: int) -> Iterator[None]:
    """While the block runs, the network goes on behind the layer with what went into it."""
    parent, _, name = architecture_of(network).layers.rpartition(".")
    owner: Any = network.base_model.get_submodule(parent)
    layers = getattr(owner, name)
    setattr(owner, name, nn.ModuleList(module for i, module in enumerate(layers) if i != index))
    try:
        yield
    finally:
        setattr(owner, name, layers)
