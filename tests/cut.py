"""A network with factored layers, shared layers, or both, made without any method: what storage has to bring back."""

from __future__ import annotations

from typing import Any

import torch

from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import factored_embedding, factored_linear, tie_factored
from recompress.models.packed import place
from recompress.models.shared_layers import share
from recompress.models.surgery import weight_of
from tests.six import checkpoint_of

RANK = 5
LAYERS_OF = {"gpt2": "n_layer", "distilbert": "n_layers"}


def deep(family: str, layers: int = 4, **changes: Any) -> Checkpoint:
    return checkpoint_of(family, **{LAYERS_OF.get(family, "num_hidden_layers"): layers}, **changes)


def factor_layers(checkpoint: Checkpoint) -> Checkpoint:
    """Every linear layer of the layers as the product of two random matrices of rank 5."""
    draw = torch.Generator().manual_seed(3)
    for name, linear in list(encoder_linears(checkpoint.torch_network)):
        rows, columns = weight_of(linear).shape
        second, first = torch.randn(rows, RANK, generator=draw) / 4, torch.randn(RANK, columns, generator=draw) / 4
        place(checkpoint.torch_network, name, factored_linear(second, first, None if linear.bias is None else linear.bias.detach().clone()))
    return checkpoint


def factor_embeddings(checkpoint: Checkpoint) -> Checkpoint:
    network = checkpoint.torch_network
    embedding: Any = network.get_input_embeddings()
    draw = torch.Generator().manual_seed(4)
    first, second = (torch.randn(count, 4, generator=draw) for count in (embedding.num_embeddings, embedding.embedding_dim))
    place(network, next(name for name, module in network.named_modules() if module is embedding), factored_embedding(first, second, embedding.padding_idx))
    tie_factored(network)
    return checkpoint


def share_two(checkpoint: Checkpoint) -> Checkpoint:
    """Four layers with two sets of weights, in turns."""
    share(checkpoint.torch_network, (0, 1, 0, 1))
    return checkpoint
