"""LLM.int8: weights and activations in 8 bits, but for the few columns whose inputs are so large that all others would be rounded away.

    O = {i : max over tokens of |x[n, i]| >= threshold}
    y = sum over i in O of x[n, i] W[o, i] in 16 bits  +  t[n] s[o] sum over the others of u[n, i] q[o, i] in whole numbers

    q = round(W / s), s[o] = max|W[o]| / 127                u = round(x / t), t[n] = max|x[n]| / 127, taken at run time

The paper looks for O in each input and keeps all weights in 16 bits for that; here O is found on calibration text, so that the others are stored in 8 bits.
The formats and the products are those of ``recompress.models.packed.outliers``. Layer after layer.
Source: Dettmers et al. 2022, arXiv:2208.07339, eq. 2 to 8, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.probe import output_errors
from recompress.methods.quantization.by_layer import PACKED, code_layers
from recompress.methods.quantization.closeness import FLOATS, HALF_STEP, pairs_of, probe_statistics, table_rounding_claims
from recompress.methods.quantization.grid import FewBits, pack_outside, refuse
from recompress.methods.quantization.packed_claims import FORM_BYTES, bytes_outside, tensor_bytes
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import PackedEmbedding, PackedLinear, WithOutliers
from recompress.models.packed.outliers import TOP, ZERO
from recompress.models.packed.scales import REACH, held_above
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings, Share

SIXTEEN_BITS = 2.0**-11 * 1.001
"""Half a step of a 16-bit number, in units of the number."""

DRIFT = 0.1
"""What flows into a layer changes when the layers beside it are rounded: columns that are so near to the threshold may lie on either side."""
OUTPUTS = 0.01
"""The squared error of the layers' outputs, in shares of their squares."""


class LlmInt8(Settings):
    """Which columns stay in 16 bits."""

    threshold: Annotated[float, Field(gt=0)] = 6.0
    """Columns whose inputs are at least so large on the calibration text stay in 16 bits."""
    share: Share | None = None
    """In place of the threshold: this share of each matrix's columns, those with the largest inputs, stays in 16 bits."""
    embeddings: bool = False
    """Store the token embeddings in 8 bits too, a scale for each row; an output layer that is tied to them follows."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


def outliers_of(largest: Float[Tensor, " in"], config: LlmInt8) -> Int[Tensor, " outliers"]:
    """The columns to keep in 16 bits, rising. ``largest`` is the largest absolute input of each column."""
    if config.share is None:
        return (largest >= config.threshold).nonzero().flatten()
    return largest.argsort(descending=True, stable=True)[: outlier_count(len(largest), config.share)].sort().values


def outlier_count(columns: int, share: float) -> int:
    return int(share * columns + 1e-9)


def quantize_matrix(weight: Float[Tensor, "out in"], places: Int[Tensor, " outliers"]) -> WithOutliers:
    """Rows in steps of their own, the columns at ``places`` as they are."""
    inner = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    inner[places] = False
    rest = weight[:, inner]
    scales = held_above((rest if rest.shape[1] else weight).abs().amax(1, keepdim=True) / TOP)
    codes = (rest / scales).round_().clamp_(-TOP, TOP).add_(ZERO).to(torch.uint8)
    return WithOutliers(codes, scales, weight[:, places], places)


def prove(before: Checkpoint, after: Checkpoint, config: LlmInt8, inputs: Inputs) -> list[Claim]:
    """All packed, the columns in 16 bits those with the large inputs, inliers within half a step of what they were and outliers within half a 16-bit one,
    outputs close to what they were, and the bytes that follow."""
    old, new = before.torch_network, after.torch_network
    pairs = [(weight_of(linear), new.get_submodule(name)) for name, linear in encoder_linears(old)]
    packed = [(weight, module) for weight, module in pairs if isinstance(module, PackedLinear) and "places" in module.tensors]
    missed = [_missed(*pair) for pair in packed]
    outlier_counts = [len(module.tensors["places"]) for _, module in packed]
    expected = tensor_bytes(old) + bytes_outside(old, _embeddings(config))
    for (weight, _), count in zip(packed, outlier_counts, strict=True):
        rows, columns = weight.shape
        expected += rows * (columns - count) + 2 * rows + 2 * rows * count + 4 * count + FORM_BYTES - 4 * rows * columns
    return [
        Claim("linear layers packed", len(pairs), len(packed)),
        *_columns_claims(before, after, config, inputs),
        Claim("largest rounding of the others, in steps of what they need", HALF_STEP, max((miss[0] for miss in missed), default=0.0), FLOATS, "at most"),
        Claim("weights in those columns that are not what 16 bits make of them", 0, sum(miss[1] for miss in missed)),
        Claim("embeddings packed", float(config.embeddings), float(isinstance(token_table(new), PackedEmbedding))),
        Claim("bytes of all tensors", expected, tensor_bytes(new)),
        Claim("error of the layers' outputs", 0, output_errors(before, after, inputs, lambda _, weight: weight).method, OUTPUTS, "at most"),
        *table_rounding_claims(before, after, _embeddings(config)),
    ]


def _columns_claims(before: Checkpoint, after: Checkpoint, config: LlmInt8, inputs: Inputs) -> Iterator[Claim]:
    """What flows into the columns, over all calibration text, sent through the network as it is now."""
    seen = probe_statistics(before, after, calibration_features(before, inputs, config.calibration_examples), {"largest"})
    smallest, largest, ratio, wanted, stored = float("inf"), 0.0, float("inf"), 0, 0
    for name, weight, module in pairs_of(before, after):
        inputs_seen, places = seen[name]["largest"], module.tensors["places"].long()
        rest = inputs_seen.clone()
        rest[places] = 0
        below, above = float(rest.max()), float(inputs_seen[places].min()) if len(places) else float("inf")
        smallest, largest, ratio = min(smallest, above), max(largest, below), min(ratio, above / max(below, 1e-30))
        wanted += outlier_count(weight.shape[1], config.share or 0)
        stored += len(places)
    if config.share is None:
        yield Claim("largest input of a column in 8 bits", config.threshold, largest, DRIFT * config.threshold, "at most")
        if stored:
            yield Claim("smallest of the largest inputs of columns in 16 bits", config.threshold, smallest, DRIFT * config.threshold, "at least")
    else:
        yield Claim("columns in 16 bits", wanted, stored)
        if stored:
            yield Claim("inputs of columns in 16 bits, in those of the largest other column", 1.0, ratio, DRIFT, "at least")


def _missed(weight: Float[Tensor, "out in"], packed: PackedLinear) -> tuple[float, int]:
    """How far the farthest inlier is from what it was, in steps of its row, and how many outliers are not theirs in 16 bits."""
    values, places = packed.weight, packed.tensors["places"].long()
    gap, rest = (weight - values).abs(), weight.clone()
    rest[:, places] = 0
    steps = rest.abs().amax(1, keepdim=True) / TOP
    beyond = gap[:, places] > SIXTEEN_BITS * torch.maximum(weight[:, places].abs(), weight.abs().amax(1, keepdim=True) / TOP)
    gap[:, places] = 0
    return float((gap / steps.clamp_min(float(steps.max()) * REACH).clamp_min(1e-37)).max()), int(beyond.sum())


def _embeddings(config: LlmInt8) -> FewBits:
    return FewBits(bits=8, symmetric=True, embeddings=config.embeddings)


@method(
    "llm_int8",
    LlmInt8,
    prove=prove,
    needs=("calibration",),
    **PACKED,
    source="Dettmers et al. 2022, arXiv:2208.07339, eq. 2 to 8",
    shrinks="bytes, to about a quarter in the layers",
    speeds_up="CPUs with VNNI, where integers are multiplied: 0.3 to 0.6 of the floats' time; elsewhere nothing (studies/results/packed_speed.md)",
)
def quantize_llm_int8(checkpoint: Checkpoint, config: LlmInt8, inputs: Inputs) -> Checkpoint:
    """Weights and activations in 8 bits, columns with the largest inputs in 16."""
    network = checkpoint.torch_network
    refuse(network, _embeddings(config))

    def coding(group: Group, statistics: Statistics) -> Mapping[str, WithOutliers]:
        places = outliers_of(statistics["largest"], config)
        return {name: quantize_matrix(weight_of(linear), places) for name, linear in group.items()}

    code_layers(checkpoint, inputs, "llm_int8", config, coding, wanted={"largest"}, examples=config.calibration_examples)
    pack_outside(network, _embeddings(config))
    return checkpoint
