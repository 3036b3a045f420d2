"""Factorized embeddings: a small table of tokens, and one matrix that widens what stands in it.

    E ~ F G               F = E V_r  [vocab, rank]            G = V_r^T  [rank, hidden]
    V_r: the first r eigenvectors of  E^T D E                 D = diag(count of each token + 1), or 1 for all
    sum over tokens t of D[t] * ||E[t] - F[t] G||^2 = sum of the eigenvalues that are left out

An output layer that is tied to the embeddings uses the same two tensors; one that has its own weights stays whole.
Source: Lan et al. 2020 (ALBERT), arXiv:1909.11942, section 3.1, there trained from the start; the weights of rows as in Chen et al. 2018 (GroupReduce),
arXiv:1806.06950, section 3, there in blocks.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.calibration import calibration_features
from recompress.methods.low_rank.rank import FLOAT_BYTES, Rank, Shape, check_rank, is_smaller, numbers_with, rank_for, share_for, tensor_bytes
from recompress.methods.low_rank.split import NEAR, PROJECTED, Split, below_svd, cut, refuse_whole
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredEmbedding, factored_embedding, tie_factored
from recompress.models.packed import place

ALL = 1 << 40
"""More examples than there are."""
CHUNK = 1 << 14
"""Rows that are turned into 64-bit floats at once."""


class FactorizeEmbeddings(Rank):
    """How large the factors may be. One of the four is given; the share of parameters counts where none is."""

    rank: Annotated[int, Field(ge=1)] | None = None
    """Numbers that a token keeps in the small table."""
    parameters: Annotated[float, Field(gt=0, lt=1)] | None = 0.5
    """Share of their parameters that the embeddings keep as two factors, in (0, 1)."""
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the sum of squared singular values that the embeddings keep, in (0, 1]; 1 keeps all that counts."""
    by_frequency: bool = True
    """Let tokens count as often as the training text uses them, and once more; else all count the same."""


def check(config: FactorizeEmbeddings) -> None:
    """Raises ``InputError`` unless exactly one of the dials is given."""
    check_rank(config, ("rank", "parameters", "energy", "size_bytes"))


def split_table(table: Float[Tensor, "vocab hidden"], counts: Float[Tensor, " vocab"]) -> Split:
    """All of the table, the directions with the largest weighted energy first."""
    squares = torch.zeros((table.shape[1], table.shape[1]), dtype=torch.float64, device=table.device)
    for rows, weights in zip(torch.split(table, CHUNK), torch.split(counts, CHUNK), strict=True):
        squares += (rows.double() * weights[:, None]).T @ rows.double()
    values, vectors = torch.linalg.eigh(squares)
    directions = vectors.flip(1)
    return Split(table.double() @ directions, directions.T, values.flip(0).clamp_min(0).sqrt())


def prove(before: Checkpoint, after: Checkpoint, config: FactorizeEmbeddings, inputs: Inputs) -> list[Claim]:
    """Factors of the rank that was asked for, the bytes that follow, tokens projected, and the output layer tied or whole as it was. With the text counted
    again: what is lost is what was left out, and where tokens count by their frequency it is less than without."""
    old: Any = before.torch_network.get_input_embeddings()
    new: Any = after.torch_network.get_input_embeddings()
    shape, table = _shape(old), old.weight.detach()
    counts = _counts(before, inputs, shape[0], by_frequency=config.by_frequency)
    squares = split_table(table, counts).singular.square()
    share = None if config.rank else share_for(config, before.torch_network, [shape])
    asked = config.rank or rank_for(config, share, shape, squares.sqrt())
    rank = new.rank if isinstance(new, FactoredEmbedding) else 0
    saved = shape[0] * shape[1] - numbers_with(shape, rank) if rank else 0
    error = _error(table, new.weight.detach(), counts) / float(squares.sum())
    claims = [
        Claim("bytes of all tensors", tensor_bytes(before.torch_network) - FLOAT_BYTES * saved, tensor_bytes(after.torch_network)),
        Claim("departure from a projection", 0, _departure(old.weight, new.weight), tolerance=PROJECTED),
        Claim("output layer tied to the embeddings", float(_is_tied(before)), float(_is_tied(after))),
        Claim("rank of the embeddings, 0 for whole ones", asked or 0, rank),
        Claim("error of the tokens, by their counts", float(squares[rank:].sum() / squares.sum()) if rank else 0, error, NEAR),
    ]
    if config.by_frequency and rank:
        second, first = cut(split_table(table, torch.ones_like(counts)), rank)
        claims.append(below_svd("error of the tokens, by their counts", _error(table, second @ first, counts) / float(squares.sum()), error))
    if config.size_bytes is not None:
        claims.append(Claim("bytes over the budget", 0, max(0, tensor_bytes(after.torch_network) - config.size_bytes)))
    return claims


def _error(was: Tensor, now: Tensor, counts: Float[Tensor, " vocab"]) -> float:
    """Sum over tokens of their counts times what they lost, squared."""
    rows = zip(*(torch.split(tensor, CHUNK) for tensor in (was, now, counts)), strict=True)
    return sum(float(((a.double() - b.double()).square().sum(1) * weights).sum()) for a, b, weights in rows)


def _departure(was: Tensor, now: Tensor) -> float:
    pairs = list(zip(torch.split(was.detach(), CHUNK), torch.split(now.detach(), CHUNK), strict=True))
    along = sum(float(((a.double() - b.double()) * b.double()).sum()) for a, b in pairs)
    return abs(along) / max(sum(float(a.double().square().sum()) for a, _ in pairs), 1e-30)


def _is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the output layer has no tensor of its own."""
    network: Any = checkpoint.torch_network
    output = network.get_output_embeddings()
    own = {tensor.data_ptr() for tensor in network.get_input_embeddings().state_dict().values()}
    return output is not None and all(tensor.data_ptr() in own for name, tensor in output.state_dict().items() if name.endswith("weight"))


def _shape(embedding: Any) -> Shape:
    return int(embedding.num_embeddings), int(embedding.embedding_dim)


@method(
    "factorize_embeddings",
    FactorizeEmbeddings,
    family="low_rank",
    prove=prove,
    check=check,
    needs=("calibration",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    not_before={
        "factorize_embeddings": "the embeddings are factored already; one such step is enough",
        "trim_vocabulary": "factors would no longer be those of the tokens that stay; trim first",
        "prune_structure": "what it would cut is half of a product; cut structure first",
        "tie_embeddings": "one of the two would be a product; tie first, and both are factored together",
    },
    source="Lan et al. 2020 (ALBERT), arXiv:1909.11942, section 3.1",
    shrinks="embeddings, which are most of a small multilingual encoder",
    speeds_up="loading",
)
def factorize_embeddings(checkpoint: Checkpoint, config: FactorizeEmbeddings, inputs: Inputs) -> Checkpoint:
    """A small table of tokens and one matrix that widens it, in the place of the embeddings."""
    network = checkpoint.torch_network
    embedding: Any = network.get_input_embeddings()
    shape = _shape(embedding)
    if config.rank is not None and not is_smaller(shape, config.rank):
        rows, columns = shape
        most = (rows * columns - 1) // (rows + columns)
        raise InputError(
            f"rank {config.rank} makes factors that are no smaller than the {rows:,} x {columns} embeddings; the largest that is smaller is {most}"
        )
    share = None if config.rank is not None else share_for(config, network, [shape])
    split = split_table(embedding.weight.detach(), _counts(checkpoint, inputs, shape[0], by_frequency=config.by_frequency))
    rank = config.rank or rank_for(config, share, shape, split.singular)
    if rank is None:
        refuse_whole(config, "the embeddings")
    table, widen = (factor.float() for factor in cut(split, rank))
    factors = factored_embedding(table, widen.T, embedding.padding_idx)
    place(network, next(name for name, module in network.named_modules() if module is embedding), factors)
    tie_factored(network)
    return checkpoint


def _counts(checkpoint: Checkpoint, inputs: Inputs, vocabulary: int, *, by_frequency: bool) -> Float[Tensor, " vocab"]:
    counts = torch.ones(vocabulary, dtype=torch.float64)
    if by_frequency:
        for feature in calibration_features(checkpoint, inputs, ALL):
            counts += torch.bincount(torch.tensor(feature["input_ids"]), minlength=vocabulary)
    return counts
