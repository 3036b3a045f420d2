"""Rotations folded into weights: of the residual stream, into everything that writes it or reads it, and of a head's values, into what makes and what reads them.

    reads, behind a norm with the scale g:  W' = W diag(g) Q            writes:  W' = Q^T W,  b' = Q^T b

in 64-bit floats, each weight rounded once. ``recompress.methods.quantization.rotate`` says what for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.models.architecture import Layer, architecture_of, layers_of, outer_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 4096
"""Rows that are turned at once."""


def reading(weight: Float[Tensor, "out in"], scale: Float[Tensor, " in"], turn: Float[Tensor, "in in"]) -> Float[Tensor, "out in"]:
    """W diag(g) Q, computed in 64-bit floats."""
    return torch.cat([((rows.double() * scale.double()) @ turn).to(weight.dtype) for rows in torch.split(weight, ROWS)])


def writing(weight: Float[Tensor, "out ..."], turn: Float[Tensor, "out out"]) -> Float[Tensor, "out ..."]:
    """Q^T W, or Q^T b, computed in 64-bit floats."""
    return (turn.T @ weight.double()).to(weight.dtype)


def turn_head_outputs(weight: Float[Tensor, "channels ..."], turn: Float[Tensor, "size size"]) -> Float[Tensor, "channels ..."]:
    """R^T V of each head: its rows, or its part of a bias."""
    return torch.cat([writing(head, turn) for head in torch.split(weight, len(turn))])


def turn_head_inputs(weight: Float[Tensor, "out channels"], turn: Float[Tensor, "size size"]) -> Float[Tensor, "out channels"]:
    """O R of each head: its columns."""
    return torch.cat([reading(head, torch.ones(len(turn)), turn) for head in torch.split(weight, len(turn), dim=1)], dim=1)


@torch.no_grad()
def turn_stream(network: PreTrainedModel, turn: Float[Tensor, "width width"]) -> None:
    """Fold the scales of all norms and Q into the embeddings and all matrices that read and write the stream."""
    embedding: Any = network.get_input_embeddings()
    output: Any = network.get_output_embeddings()
    last = last_norm(network)
    tied = output is not None and output.weight is embedding.weight
    if tied and not is_even(last):
        untie(network)
        tied = False
    for layer in layers_of(network):
        for norm, linears in zip(norms_of(layer), ((layer.query, layer.key, layer.value), layer.neurons_in), strict=True):
            for linear in linears:
                linear.weight.copy_(reading(linear.weight, norm.weight, turn))
            norm.weight.fill_(1)
        for linear in (layer.out, layer.neurons_out):
            linear.weight.copy_(writing(linear.weight, turn))
            if linear.bias is not None:
                linear.bias.copy_(writing(linear.bias, turn))
    ones = torch.ones_like(last.weight)
    embedding.weight.copy_(reading(embedding.weight, ones, turn))
    [head] = outer_linears(network)
    if not tied:
        head.weight.copy_(reading(head.weight, ones if is_even(last) else last.weight, turn))
    if not is_even(last):
        last.weight.fill_(1)


@torch.no_grad()
def turn_heads(layer: Layer, turn: Float[Tensor, "size size"]) -> None:
    """Turn the values of each head of a layer, and back what reads them; query heads of one group read the same values."""
    layer.value.weight.copy_(turn_head_outputs(layer.value.weight, turn))
    if layer.value.bias is not None:
        layer.value.bias.copy_(turn_head_outputs(layer.value.bias, turn))
    layer.out.weight.copy_(turn_head_inputs(layer.out.weight, turn))


def norms_of(layer: Layer) -> list[Any]:
    """The norm before the attention and that before the neurons."""
    return [layer.module.get_submodule(name) for name in layer.architecture.norms]


def last_norm(network: PreTrainedModel) -> Any:
    """The norm between the last layer and the head."""
    return network.base_model.get_submodule(architecture_of(network).last_norm)


def is_even(norm: Any) -> bool:
    """Whether all channels have one scale, which a rotation does not see."""
    return bool((norm.weight == norm.weight[0]).all())


def untie(network: Any) -> None:
    """An output layer of its own, with the numbers of the embeddings, and a config that says so."""
    output = network.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.detach().clone())
    network.config.tie_word_embeddings = False
    network.all_tied_weights_keys = network.get_expanded_tied_weights_keys(all_submodels=True)
