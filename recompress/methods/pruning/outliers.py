"""OWL: how many weights each layer loses. Layers whose weights have more outliers keep more of them, and all together lose as many as were asked for.

    A[o, i] = |W[o, i]| * ||x[:, i]||_2             D_l: share of the weights of layer l with A > outlier * mean of A over the layer
    level_l = sparsity - spread * (D_l - D) / max_k |D_k - D|             D: mean of D_l, each weight counted once

x is what flows through the network as it comes, before any layer is pruned; all matrices of a layer have one level. As in the paper levels lie within ``spread`` of the sparsity;
the authors' later code puts the lowest and the highest 2 * spread apart, wherever their mean lies. Numbers of zeros are whole and add up exactly: what rounding leaves over goes to the first matrices,
and in them to the first rows.
At half of the weights nothing is won on SmolLM2-135M (studies/results/dials_on_smollm.md); the paper's gains are at 70 % and beyond.
Source: Yin et al. 2023, arXiv:2310.05175, section 3 (the distribution of outliers, and levels from it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recompress.layerwise.engine import ready, windows_at_once
from recompress.methods.calibration import calibration_features, statistics_of
from recompress.methods.pruning.rows import OneShot, zeros_in
from recompress.methods.registry import Claim, Inputs
from recompress.models.architecture import encoder_linears, layers_of, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of

Seen = tuple[Float[Tensor, "_ _"], Float[Tensor, " _"]]
"""A matrix ``[out, in]``, and the sums of squares of its inputs."""


def outlier_share(matrices: Sequence[Seen], outlier: float) -> float:
    """The share of the weights of a layer whose size times input norm is above ``outlier`` times its mean over all of them."""
    norms = [squares.sqrt().to(weight.dtype) for weight, squares in matrices]
    total = sum(weight.numel() for weight, _ in matrices)
    mean = sum(float((weight.abs() * norm).sum(dtype=torch.float64)) for (weight, _), norm in zip(matrices, norms, strict=True)) / total
    return sum(int((weight.abs() * norm > outlier * mean).sum()) for (weight, _), norm in zip(matrices, norms, strict=True)) / total


def levels_of(shares: Sequence[float], sizes: Sequence[int], sparsity: float, spread: float) -> list[float]:
    """The sparsity of each layer; their mean, with ``sizes`` as weights, is ``sparsity``. Layers with equal shares of outliers have equal levels."""
    if max(shares) == min(shares):
        return [sparsity] * len(shares)
    mean = sum(share * size for share, size in zip(shares, sizes, strict=True)) / sum(sizes)
    farthest = max(abs(share - mean) for share in shares)
    return [sparsity - spread * (share - mean) / farthest for share in shares]


def whole_zeros(sizes: Sequence[int], levels: Sequence[float], sparsity: float) -> list[int]:
    """How many weights of each matrix are zero: in sum the share ``sparsity`` of all, rounded down."""
    zeros = [zeros_in(level, size) for size, level in zip(sizes, levels, strict=True)]
    left = zeros_in(sparsity, sum(sizes)) - sum(zeros)
    for i in range(len(zeros)):
        if left > 0 and zeros[i] < sizes[i]:
            zeros[i], left = zeros[i] + 1, left - 1
    return zeros


def row_zeros(zeros: int, rows: int) -> Int[Tensor, " rows"]:
    """How many of them lie in each row of a matrix; the first have one more, where they do not come out even."""
    counts = torch.full((rows,), zeros // rows)
    counts[: zeros % rows] += 1
    return counts


def zeros_of(checkpoint: Checkpoint, config: OneShot, inputs: Inputs) -> dict[str, int] | None:
    """By the name of each matrix how many of its weights are to be zero; ``None`` where all have the same share. Looks at the calibration text once more.

    Raises what ``calibration_features`` raises.
    """
    if config.levels == "uniform":
        return None
    network = checkpoint.torch_network
    linears = dict(encoder_linears(network))
    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    with ready(network):  # what is behind the layers is not asked for, and would be as wide as the vocabulary
        seen = statistics_of(network.base_model, linears, features, {"squares"}, windows_at_once(features))
    of_layer = {id(module): i for i, layer in enumerate(layers_of(network)) for module in layer.module.modules()}
    layers: dict[int, list[str]] = {}
    for name, linear in linears.items():
        layers.setdefault(of_layer[id(linear)], []).append(name)
    shares = [outlier_share([(weight_of(linears[name]), seen[name]["squares"]) for name in names], config.outlier) for names in layers.values()]
    sizes = {name: weight_of(linear).numel() for name, linear in linears.items()}
    levels = levels_of(shares, [sum(sizes[name] for name in names) for names in layers.values()], config.sparsity, config.spread)
    of_matrix = {name: level for names, level in zip(layers.values(), levels, strict=True) for name in names}
    return dict(zip(sizes, whole_zeros([*sizes.values()], [of_matrix[name] for name in sizes], config.sparsity), strict=True))


def prove_levels(before: Checkpoint, after: Checkpoint, zeros: Mapping[str, int] | None, config: OneShot, *, by_row: bool) -> list[Claim]:
    """Each matrix has as many zeros as its layer's outliers, measured anew, leave it, or, in each row or in all, as many as before where these were more; and
    no matrix is farther from the sparsity than ``spread``."""
    if zeros is None:
        return []
    wrong, farthest = 0, 0.0
    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True)
    for (name, old), (_, new) in pairs:
        (rows, columns), was = shape_of(old), (weight_of(old) == 0).sum(1)
        expected = int(torch.maximum(was, row_zeros(zeros[name], rows)).sum()) if by_row else max(int(was.sum()), zeros[name])
        wrong += int((weight_of(new) == 0).sum()) != expected
        farthest = max(farthest, abs(zeros[name] / (rows * columns) - config.sparsity))
    smallest = min(weight_of(linear).numel() for _, linear in encoder_linears(before.torch_network))
    return [
        Claim("matrices with other numbers of zeros than the outliers of their layers give them", 0, wrong),
        Claim("farthest level from the sparsity", config.spread, farthest, 1.001 / smallest, "at most"),
    ]
