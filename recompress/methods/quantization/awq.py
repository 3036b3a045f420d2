"""AWQ: widen the columns with large inputs before rounding, so that their weights are rounded less, and narrow them again behind it.

    s[i] = (mean |x[:, i]|)^a / sqrt(max s * min s)                 W ~ round(W * s) / s
    a = the best of 0, 1/20, …, 1 by || X (W - round(W * s) / s)^T ||^2

1 / s is stored beside the codes, in 16 bits for each column, and applied when the weights are unpacked: that works wherever a layer stands, also behind
norms that feed a residual. a = 0 is rounding to nearest, so that AWQ never loses to it on the calibration text. Layer after layer.
Source: Lin et al. 2023, arXiv:2306.00978, eq. 4 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.grid import FewBits, codes_on, grid_of, pack_embeddings, prove_packed, quantized, refuse, values_of
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import Quantized, packed_linear
from recompress.models.surgery import weight_of

STEPS = 20
"""Exponents that are tried beyond 0."""
RANGE = 1e-4
"""Inputs smaller than this share of the largest count as so large."""

CHUNK = 1 << 16
"""Weights whose errors are computed at once."""


class Awq(FewBits):
    """How weights are stored, and what rounding is judged on."""

    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


def columns_for(absolute: Float[Tensor, " in"], exponent: float) -> Float[Tensor, " in"]:
    """1 / s as it is stored: numbers that 16 bits can hold."""
    sizes = absolute.double().clamp_min(float(absolute.max()) * RANGE).clamp_min(1e-30) ** exponent
    return ((sizes.max() * sizes.min()).sqrt() / sizes).half().float()


def quantize_matrix(weight: Float[Tensor, "out in"], absolute: Float[Tensor, " in"], hessian: Float[Tensor, "in in"], config: FewBits) -> Quantized:
    """The codes with the smallest error on the calibration text."""
    every = [columns_for(absolute, step / STEPS) for step in range(STEPS + 1)]
    blocks = torch.split(weight, max(1, CHUNK // weight.shape[1]))
    columns = min(every, key=lambda columns: sum(_error(rows, columns, hessian, config) for rows in blocks))
    widened = weight / columns
    grid = grid_of(widened, config.bits, config.group_size, symmetric=config.symmetric)
    return quantized(codes_on(widened, grid, config.bits), grid, config, columns)


def _error(weight: Float[Tensor, "out in"], columns: Float[Tensor, " in"], hessian: Float[Tensor, "in in"], config: FewBits) -> float:
    widened = weight / columns
    grid = grid_of(widened, config.bits, config.group_size, symmetric=config.symmetric)
    gap = weight - values_of(codes_on(widened, grid, config.bits), grid) * columns
    return float((gap @ hessian).mul_(gap).sum(dtype=torch.float64))


def prove(before: Checkpoint, after: Checkpoint, config: Awq, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits, with two bytes for each column."""
    return prove_packed(before, after, config, lambda rows, columns: 2 * columns)


@method(
    "awq",
    Awq,
    family="quantization",
    prove=prove,
    needs=("calibration",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Lin et al. 2023, arXiv:2306.00978, eq. 4 and 5",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up="nothing: weights are unpacked when they are used",
)
def quantize_awq(checkpoint: Checkpoint, config: Awq, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, those with large inputs rounded less."""
    network = checkpoint.torch_network
    refuse(network, config)

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        hessian, absolute = statistics["hessian"], statistics["absolute"]
        return {name: packed_linear(quantize_matrix(weight_of(linear), absolute, hessian, config), linear) for name, linear in group.items()}

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    depends_on = {"method": "awq", **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted={"absolute", "hessian"}, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "awq")
    pack_embeddings(network, config)
    return checkpoint
