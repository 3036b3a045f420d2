"""What methods that round weights have to see, in a few lines of the tests' own: plain forward passes, one example after another, so that nothing is padded, and
layer behind layer, each layer's matrices replaced before the next layer is looked at."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recompress.methods.registry import Inputs
from recompress.models.architecture import Linear, encoder_linears, is_linear, is_norm, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import packed_linear, place
from recompress.models.surgery import query_key_value, weight_of
from tests.six import LANGUAGE, checkpoint_of

Rows = list[dict[str, Tensor]]
FAMILIES = ("bert", "gpt2", "llama")
LARGE = 30.0


def uneven(family: str) -> Checkpoint:
    """A model in which some inputs of every linear layer are far larger than the others, not the same for layers and matrices, and some rows far heavier."""
    checkpoint = checkpoint_of(family)
    network: Any = checkpoint.torch_network
    with torch.no_grad():
        for i, norm in enumerate(module for module in network.modules() if is_norm(module)):
            norm.weight[2 * i % 11 :: 11] *= LARGE
        for i, layer in enumerate(layers_of(network)):
            query_key_value(layer)[2][3 + i :: 7] *= LARGE
            weight_of(layer.neurons_in[-1])[5 - i :: 13] *= LARGE
    return checkpoint


def rows_of(checkpoint: Checkpoint, inputs: Inputs, count: int | None = None) -> Rows:
    """Every example, or window, as a batch of its own; of more than ``count`` those that the seed draws."""
    benchmark: Any = inputs.benchmark
    info = checkpoint.info
    if info.benchmark == LANGUAGE:
        features = benchmark.windows(checkpoint.tokenizer, inputs.train, info.max_length)
    else:
        features = benchmark.encode(checkpoint.tokenizer, inputs.train, info.labels, info.max_length)
    if count is not None and len(features) > count:
        features = random.Random(inputs.seed).sample(features, count)
    return [{name: torch.tensor([feature[name]]) for name in ("input_ids", "token_type_ids") if name in feature} for feature in features]


def tables(before: Any, after: Any) -> tuple[Tensor, Tensor]:
    """The token embeddings as floats."""
    return before.get_input_embeddings().weight.detach(), after.get_input_embeddings().weight.detach()


def walk(checkpoint: Checkpoint, rows: Rows, change: Callable[[str, Tensor, Tensor], Any]) -> dict[str, Tensor]:
    """``change(name, weight, X)`` with ``X`` all that flows into the layer, ``[tokens, inputs]``: what is packed in its place, or ``None``. Gives all matrices
    as floats."""
    network: Any = checkpoint.torch_network.eval()
    matrices: dict[str, Tensor] = {}
    for i in range(len(layers_of(network))):
        inside = set(layers_of(network)[i].module.modules())
        linears = {name: linear for name, linear in encoder_linears(network) if linear in inside and is_linear(linear)}
        seen = inputs_of_linears(network, linears, rows)
        for name, linear in linears.items():
            matrix = change(name, weight_of(linear).clone(), seen[name])
            if matrix is not None:
                place(network, name, packed_linear(matrix, linear))
            module = network.get_submodule(name)
            matrices[name] = module.weight if matrix is not None else weight_of(module)
    return matrices


@torch.no_grad()
def inputs_of_linears(network: Any, linears: dict[str, Linear], rows: Rows) -> dict[str, Tensor]:
    """What flows into each of them on its way through the whole network."""
    seen: dict[str, list[Tensor]] = {name: [] for name in linears}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: seen[name].append(given[0][0].float())

    hooks = [linear.register_forward_pre_hook(look(name)) for name, linear in linears.items()]
    for row in rows:
        network(**row)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


@torch.no_grad()
def answers(network: Any, rows: Rows) -> Tensor:
    """ln p at each token of all texts, or of each text."""
    return torch.cat([network(**row).logits.reshape(-1, network(**row).logits.shape[-1]).double().log_softmax(-1) for row in rows])


def share_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """The share of all weights that are the same but for the last digits: where two sums of floats differ in these, a code may fall on the other side."""
    same = [torch.isclose(left[name], right[name], rtol=1e-3, atol=1e-5 * float(left[name].abs().max())) for name in left]
    return float(sum(part.sum() for part in same) / sum(part.numel() for part in same))
