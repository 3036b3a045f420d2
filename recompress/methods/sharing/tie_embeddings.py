"""Tied embeddings: a decoder's output layer uses the token embeddings.

    logits = h E^T                E: the embeddings as they are, or their mean with the output layer

One matrix of vocabulary x hidden width less, often a third of a small decoder. Plain transformers loads the result; training wins back what it cost.
Source: Press and Wolf 2017, arXiv:1608.05859, section 2; Inan et al. 2017, arXiv:1611.01462, section 3, both there trained from the start.
"""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from recompress.errors import InputError
from recompress.methods.registry import OF_LANGUAGE, Claim, Inputs, method
from recompress.models.architecture import DECODERS
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredEmbedding
from recompress.models.files import distinct_tensors
from recompress.settings.base import Settings

CLOSE = 1e-6
"""As near as 32-bit floats come to a mean, as a share of the largest weight."""


class TieEmbeddings(Settings):
    """Which weights the two have in the end."""

    weights: Literal["mean", "embedding"] = "mean"
    """The mean of the two matrices, or the embeddings as they are."""


def tied_weight(embedding: Float[Tensor, "vocab hidden"], output: Float[Tensor, "vocab hidden"], how: str) -> Float[Tensor, "vocab hidden"]:
    """One matrix for two."""
    return (embedding + output) / 2 if how == "mean" else embedding.clone()


def prove(before: Checkpoint, after: Checkpoint, config: TieEmbeddings, inputs: Inputs) -> list[Claim]:
    """One tensor where there were two, with the weights that were asked for, and a config that says so."""
    old: Any = before.torch_network
    new: Any = after.torch_network
    embedding, output = old.get_input_embeddings().weight.detach(), old.get_output_embeddings().weight.detach()
    wanted = (embedding.double() + output.double()) / 2 if config.weights == "mean" else embedding
    output_weight = new.get_output_embeddings().weight
    return [
        Claim("output layer is the embedding", 1, float(output_weight is new.get_input_embeddings().weight)),
        Claim("tied in the config", 1, float(new.config.tie_word_embeddings)),
        Claim("numbers stored", _numbers(before) - output.numel(), _numbers(after)),
        Claim(
            "largest distance from the weights that were asked for", 0, float((output_weight.detach() - wanted).abs().max()), CLOSE * float(wanted.abs().max())
        ),
    ]


def _numbers(checkpoint: Checkpoint) -> int:
    return sum(tensor.numel() for tensor in distinct_tensors(checkpoint.torch_network).values())


@method(
    "tie_embeddings",
    TieEmbeddings,
    family="sharing",
    prove=prove,
    benchmarks=OF_LANGUAGE,
    architectures=DECODERS,
    source="Press and Wolf 2017, arXiv:1608.05859, section 2",
    shrinks="parameters and bytes, by one matrix of vocabulary x hidden width",
    speeds_up="nothing: the logits are still computed",
)
def tie_embeddings(checkpoint: Checkpoint, config: TieEmbeddings, inputs: Inputs) -> Checkpoint:
    """A decoder's output layer uses the token embeddings."""
    network: Any = checkpoint.torch_network
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    if isinstance(embedding, FactoredEmbedding):
        raise InputError("the embeddings are factored, and the output layer is not; tie first, and both are factored together")
    if output.weight is embedding.weight:
        raise InputError("the output layer uses the token embeddings already; leave tie_embeddings out")
    if output.weight.shape != embedding.weight.shape:
        raise InputError(f"the output layer is {list(output.weight.shape)} and the embeddings are {list(embedding.weight.shape)}; they cannot be one")
    embedding.weight = nn.Parameter(tied_weight(embedding.weight.detach(), output.weight.detach(), config.weights))
    network.config.tie_word_embeddings = True
    network.all_tied_weights_keys = network.get_expanded_tied_weights_keys(all_submodels=True)
    network.tie_weights()
    return checkpoint
