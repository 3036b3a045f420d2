"""A matrix as the product of two, cut to a rank, put in its place, and measured: what the methods share that factor linear layers.

All of them project: ``W' = W P`` or ``W' = P W`` with an orthogonal projection P, so that  ||W||^2 = ||W'||^2 + ||W - W'||^2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.low_rank.rank import FLOAT_BYTES, Rank, check_rank, numbers_with, rank_for, share_for, tensor_bytes
from recompress.methods.registry import Claim
from recompress.models.architecture import ALL_ARCHITECTURES, Linear, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredLinear, factored_linear, is_factored
from recompress.models.packed import place
from recompress.models.surgery import weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROJECTED = 1e-4
"""The largest departure from a projection, as a share of ||W||^2, that 32-bit floats may give."""
LESS = 1e-3
"""By this share of it at least the error of a method lies below that of plain SVD: what is merely equal is no gain."""
NEAR = 1e-5
"""The largest difference of an error from the best possible, as a share of all there is to lose, that 32-bit floats may give."""

NOT_AFTER = dict.fromkeys(
    ("magnitude", "movement", "gradual", "dynamic_sparse", "wanda", "sparsegpt"),
    "zeros of a matrix are lost in its factors; factor first, then prune the factors",
)
NOT_BEFORE = {
    **dict.fromkeys(("svd", "fisher_svd", "activation_svd"), "the layers are factored already; one such step is enough"),
    "share_layers": "layers are shared before they are factored, because the mean of products is no product",
    "prune_structure": "what it would cut is half of a product; cut structure first",
    "group_queries": "what it would merge is half of a product; group queries first",
}


FACTORING: dict[str, Any] = {
    "family": "low_rank",
    "check": check_rank,
    "benchmarks": ALL_BENCHMARKS,
    "architectures": ALL_ARCHITECTURES,
    "not_after": NOT_AFTER,
    "not_before": NOT_BEFORE,
    "shrinks": "parameters and bytes",
    "speeds_up": "CPU and GPU, where ranks are small",
}
"""What the registry is told of methods that factor the linear layers."""


def refuse_factored(network: PreTrainedModel) -> None:
    """Raises ``InputError`` for a network that came factored, for example as a base model, where no earlier step tells."""
    if is_factored(network):
        raise InputError("the layers are factored already; start from the whole model")


class Split(NamedTuple):
    """All of a matrix as ``second @ first``, the most important parts first."""

    second: Float[Tensor, "out parts"]
    first: Float[Tensor, "parts in"]
    singular: Float[Tensor, " parts"]
    """What each part is worth: the error without it, in the measure of the method."""


def cut(split: Split, rank: int) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]:
    """The first parts, with columns and rows that are equally long, as training and rounding like them."""
    second, first = split.second[:, :rank], split.first[:rank]
    scale = (second.norm(dim=0).clamp_min(1e-30) / first.norm(dim=1).clamp_min(1e-30)).sqrt()
    return second / scale, first * scale[:, None]


def factors_for(linear: Linear, split: Split, config: Rank, share: float | None) -> FactoredLinear | None:
    """What is to stand in the place of ``linear``; ``None`` where it stays whole."""
    rank = rank_for(config, share, shape_of(linear), split.singular)
    if rank is None:
        return None
    second, first = (factor.to(linear.weight.dtype) for factor in cut(split, rank))
    return factored_linear(second, first, None if linear.bias is None else linear.bias.detach().clone())


def factor_each(network: PreTrainedModel, config: Rank, split_of: Callable[[str, Float[Tensor, "out in"]], Split]) -> None:
    """Put two factors in the place of each linear layer of the layers, cut from ``split_of(name, weight)``; where they would not be smaller it stays whole.

    Raises ``InputError`` where all of them would.
    """
    linears = list(encoder_linears(network))
    share, whole = share_for(config, network, [shape_of(linear) for _, linear in linears]), 0
    for name, linear in linears:
        factors = factors_for(linear, split_of(name, weight_of(linear)), config, share)
        if factors is None:
            whole += 1
        else:
            place(network, name, factors)
    if whole == len(linears):
        refuse_whole(config, "every matrix")


def refuse_whole(config: Rank, what: str) -> NoReturn:
    """Raises ``InputError``, for a step that factors nothing: one which changes nothing is no step."""
    dial = f"energy {config.energy:g}" if config.energy is not None else "what was asked for"
    raise InputError(f"{dial} leaves {what} whole, because no factors would be smaller; ask for less, or leave the step out")


def below_svd(what: str, svd: float, error: float) -> Claim:
    """The claim that an error is below that of plain SVD at the same ranks, both as shares; where both are next to nothing, either may be less."""
    return Claim(f"{what}, below that of svd at the same ranks", (1 - LESS) * svd, error, NEAR, "at most")


def product_of_svd(weight: Float[Tensor, "out in"], rank: int) -> Float[Tensor, "out in"]:
    """The matrix of this rank that is nearest to ``weight``, in 64-bit floats."""
    left, singular, right = torch.linalg.svd(weight.double(), full_matrices=False)
    product: Float[Tensor, "out in"] = (left[:, :rank] * singular[:rank]) @ right[:rank]
    return product


def prove_factors(before: Checkpoint, after: Checkpoint, config: Rank, spectra: Mapping[str, Float[Tensor, " values"]] | None = None) -> list[Claim]:
    """The ranks that follow from the share, or from the energy where ``spectra`` holds the singular values of each matrix in the measure of the method; the
    bytes, and the projection."""
    old, new = before.torch_network, after.torch_network
    linears = dict(encoder_linears(old))
    share = share_for(config, old, [shape_of(linear) for linear in linears.values()])
    modules: Mapping[str, nn.Module] = {name: new.get_submodule(name) for name in linears}
    ranks = {name: module.rank for name, module in modules.items() if isinstance(module, FactoredLinear)}
    saved = sum(weight_of(linears[name]).numel() - numbers_with(shape_of(linears[name]), rank) for name, rank in ranks.items())
    claims = [
        Claim("bytes of all tensors", tensor_bytes(old) - FLOAT_BYTES * saved, tensor_bytes(new)),
        Claim("factors that are not smaller than their matrix", 0, sum(_size(modules[name]) >= weight_of(linears[name]).numel() for name in ranks)),
        Claim("departure from a projection", 0, max((_departure(weight_of(linears[name]), modules[name]) for name in ranks), default=0.0), tolerance=PROJECTED),
    ]
    if config.size_bytes is not None:
        claims.append(Claim("bytes over the budget", 0, max(0, tensor_bytes(new) - config.size_bytes)))
    if share is not None or spectra is not None:
        spectra = spectra or dict.fromkeys(linears, torch.ones(1))
        asked = [rank_for(config, share, shape_of(one), spectra[name]) for name, one in linears.items()]
        claims.append(Claim("ranks together", sum(rank or 0 for rank in asked), sum(ranks.values())))
        claims.append(Claim("matrices left whole, because factors would not be smaller", asked.count(None), len(linears) - len(ranks)))
    else:
        changed = sum(name not in ranks and not weight_of(linear).equal(weight_of(modules[name])) for name, linear in linears.items())
        claims.append(Claim("matrices that are neither factored nor what they were", 0, changed))
    return claims


def _size(module: Any) -> int:
    return int(module.first.weight.numel() + module.second.weight.numel())


def _departure(weight: Float[Tensor, "out in"], module: Any) -> float:
    was, now = weight.double(), module.weight.detach().double()
    return float(((was - now) * now).sum().abs() / was.square().sum().clamp_min(1e-30))
