"""A matrix as the product of two, cut to a rank, put in its place, and measured: what the methods share that factor linear layers.

All of them project: ``W' = W P`` or ``W' = P W`` with an orthogonal projection P, so that  ||W||^2 = ||W'||^2 + ||W - W'||^2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.errors import InputError
from recompress.methods.low_rank.rank import FLOAT_BYTES, Rank, numbers_with, rank_for, share_for, tensor_bytes
from recompress.methods.registry import Claim
from recompress.models.architecture import Linear, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredLinear, factored_linear, is_factored
from recompress.models.surgery import weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROJECTED = 1e-4
"""The largest departure from a projection, as a share of ||W||^2, that 32-bit floats may give."""

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


def prove_factors(before: Checkpoint, after: Checkpoint, config: Rank, spectrum: Callable[[Any], Tensor] | None = None) -> list[Claim]:
    """Ranks that follow from the settings, where they follow from shapes or ``spectrum`` (singular values of a weight), the bytes, and the projection."""
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
    if share is not None or spectrum is not None:
        nothing = torch.ones(1)
        asked = [rank_for(config, share, shape_of(one), spectrum(weight_of(one)) if share is None and spectrum else nothing) for one in linears.values()]
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
