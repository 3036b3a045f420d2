"""AWQ: widen the columns with large inputs before rounding, so that their weights are rounded less, and narrow them again behind it.

    s[i] = (mean |x[:, i]|)^a / sqrt(max s * min s)                 W ~ round(W * s) / s
    a = the best of 0, 1/20, …, 1 by || X (W - round(W * s) / s)^T ||^2

1 / s is stored beside the codes, in 16 bits for each column, and applied when the weights are unpacked: that works wherever a layer stands, also behind
norms that feed a residual. a = 0 is rounding to nearest, so that AWQ never loses to it on the calibration text. Layer after layer. ``foldable`` factors are the same for
all matrices behind a norm, and for others 1, so that a norm can take them (the paper's own way, for formats without a place for factors). With ``clip`` each group's steps
then reach less far where that is nearer (``recompress.methods.quantization.clip``).
Source: Lin et al. 2023, arXiv:2306.00978, eq. 4 and 5; the clip is from the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field, model_serializer
from torch import Tensor

from recompress.errors import InputError
from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Statistics
from recompress.methods.probe import output_errors, probe_features
from recompress.methods.quantization.by_layer import EVEN_STEPS, code_layers, written
from recompress.methods.quantization.clip import clipped_grid
from recompress.methods.quantization.closeness import probe_statistics, table_rounding_claims
from recompress.methods.quantization.grid import FewBits, codes_on, grid_of, pack_outside, quantized, refuse, values_of
from recompress.methods.quantization.packed_claims import prove_packed
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import architecture_of, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import Quantized
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.surgery import weight_of
from recompress.settings.base import as_before

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEPS = 20
"""Exponents that are tried beyond 0."""
RANGE = 1e-4
"""Inputs smaller than this share of the largest count as so large."""
PROBE_TOLERANCE = 0.05
"""The probe is a part of the text that the exponents were chosen on."""
LESS = 1e-3
"""By this share of it at least the error with clips lies below that without: what is merely equal clipped nothing."""
CHUNK = 1 << 16
"""Weights whose errors are computed at once."""


class Awq(FewBits):
    """How weights are stored, and what rounding is judged on."""

    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""
    foldable: bool = False
    """Widen columns only where the norm before can take the factors, and equally in all matrices behind it (queries, keys and values; gate and up): what GGUF needs.
    All other matrices are rounded to the nearest."""
    clip: bool = False
    """Search for each group, after its columns were widened, how far its steps should reach: at the same bytes, for a few times the rounding."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("foldable", "scales", "clip", "output"))


def columns_for(absolute: Float[Tensor, " in"], exponent: float) -> Float[Tensor, " in"]:
    """1 / s as it is stored: numbers that 16 bits can hold."""
    sizes = absolute.double().clamp_min(float(absolute.max()) * RANGE).clamp_min(1e-30) ** exponent
    return ((sizes.max() * sizes.min()).sqrt() / sizes).half().float()


def quantize_matrix(
    weight: Float[Tensor, "out in"], absolute: Float[Tensor, " in"], hessian: Float[Tensor, "in in"], config: FewBits, *, clip: bool = False
) -> Quantized:
    """The codes with the smallest error on the calibration text."""
    return rounded_with(weight, best_columns([weight], absolute, hessian, config), config, hessian if clip else None)


def best_columns(
    weights: Sequence[Float[Tensor, "out in"]], absolute: Float[Tensor, " in"], hessian: Float[Tensor, "in in"], config: FewBits
) -> Float[Tensor, " in"]:
    """1 / s with the smallest error on the calibration text, over all matrices with the same inputs together."""
    every = [columns_for(absolute, step / STEPS) for step in range(STEPS + 1)]
    blocks = [rows for weight in weights for rows in torch.split(weight, max(1, CHUNK // weight.shape[1]))]
    return min(every, key=lambda columns: sum(_error(rows, columns, hessian, config) for rows in blocks))


def behind_norms(network: PreTrainedModel) -> set[str]:
    """Names of the linear layers whose inputs are a norm's outputs and nothing else. Raises ``InputError`` where norms stand in the residual stream."""
    if not architecture_of(network).norms_first:
        raise InputError(
            f"foldable: true needs norms that stand before the matrices, and those of a {architecture_of(network).name} stand in the stream; leave it out"
        )
    names = {id(module): name for name, module in network.named_modules()}
    return {names[id(linear)] for layer in layers_of(network) for linear in (layer.query, layer.key, layer.value, *layer.neurons_in)}


def rounded_with(weight: Float[Tensor, "out in"], columns: Float[Tensor, " in"], config: FewBits, hessian: Float[Tensor, "in in"] | None = None) -> Quantized:
    """Each weight on its nearest step, its column widened by 1 / ``columns``; with clips that are searched on ``hessian``, where it is given."""
    widened = weight / columns
    if hessian is None:
        grid = grid_of(widened, config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales)
    else:
        grid = clipped_grid(widened, columns, hessian, config)
    return quantized(codes_on(widened, grid, config.bits), grid, config, columns)


def _error(weight: Float[Tensor, "out in"], columns: Float[Tensor, " in"], hessian: Float[Tensor, "in in"], config: FewBits) -> float:
    widened = weight / columns
    grid = grid_of(widened, config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales)
    gap = weight - values_of(codes_on(widened, grid, config.bits), grid) * columns
    return float((gap @ hessian).mul_(gap).sum(dtype=torch.float64))


def prove(before: Checkpoint, after: Checkpoint, config: Awq, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits, with two bytes for each column, and outputs nearer to the old ones than with each weight on its nearest step, or with columns
    widened by the roots of what flows into them on the probe, whichever is better for a matrix; with clips nearer than with the same columns and none."""
    seen = probe_statistics(before, after, probe_features(before, inputs), ("absolute", "hessian"))

    def plain(name: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        absolute, hessian = seen[name]["absolute"], seen[name]["hessian"]
        if config.foldable:
            return unpacked_matrix(rounded_with(weight, torch.ones_like(absolute), config))
        columns = min((columns_for(absolute, exponent) for exponent in (0.0, 0.5)), key=lambda columns: _error(weight, columns, hessian, config))
        return unpacked_matrix(rounded_with(weight, columns, config))

    errors = output_errors(before, after, inputs, plain)
    what = "error of the layers' outputs, at most that of rtn or of exponent 1/2"
    claims = prove_packed(before, after, config, lambda rows, columns: 2 * columns)
    nearer = [Claim(what, errors.simpler, errors.method, PROBE_TOLERANCE * errors.simpler, "at most")]
    if config.clip:
        unclipped = output_errors(before, after, inputs, lambda name, weight: unpacked_matrix(rounded_with(weight, _columns_in(after, name), config)))
        if config.bits == 8:  # there is next to nothing to be found
            what, share = "error of the layers' outputs, at most that without clips", 1 + PROBE_TOLERANCE
        else:
            what, share = f"error of the layers' outputs, at most {1 - LESS:.1%} of that without clips", 1 - LESS
        nearer.append(Claim(what, share * unclipped.simpler, unclipped.method, bound="at most"))
    return [*claims, *nearer, *table_rounding_claims(before, after, config)]


def _columns_in(after: Checkpoint, name: str) -> Float[Tensor, " in"]:
    """1 / s as it is stored."""
    stored: Tensor = after.torch_network.get_submodule(name).columns
    return stored.float()


@method(
    "awq",
    Awq,
    prove=prove,
    needs=("calibration",),
    **EVEN_STEPS,
    source="Lin et al. 2023, arXiv:2306.00978, eq. 4 and 5",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up=written("0.5", "1.2"),
)
def quantize_awq(checkpoint: Checkpoint, config: Awq, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, those with large inputs rounded less."""
    network = checkpoint.torch_network
    refuse(network, config)

    foldable = behind_norms(network) if config.foldable else set()

    def coding(group: Group, statistics: Statistics) -> Mapping[str, Quantized]:
        hessian, absolute = statistics["hessian"], statistics["absolute"]
        if config.foldable:
            weights = {name: weight_of(linear) for name, linear in group.items()}
            shared = best_columns([*weights.values()], absolute, hessian, config) if weights.keys() <= foldable else torch.ones_like(absolute)
            return {name: rounded_with(weight, shared, config, hessian if config.clip else None) for name, weight in weights.items()}
        return {name: quantize_matrix(weight_of(linear), absolute, hessian, config, clip=config.clip) for name, linear in group.items()}

    code_layers(checkpoint, inputs, "awq", config, coding, wanted={"absolute", "hessian"}, examples=config.calibration_examples)
    pack_outside(network, config)
    return checkpoint
