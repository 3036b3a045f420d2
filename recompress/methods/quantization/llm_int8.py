"""LLM.int8: weights and activations in 8 bits, but for the few columns whose inputs are so large that all others would be rounded away.

    O = {i : max over tokens of |x[n, i]| >= threshold}
    y = sum over i in O of x[n, i] W[o, i] in 16 bits  +  t[n] s[o] sum over the others of u[n, i] q[o, i] in whole numbers

    q = round(W / s), s[o] = max|W[o]| / 127                u = round(x / t), t[n] = max|x[n]| / 127, taken at run time

The paper looks for O in each input and keeps all weights in 16 bits for that; here O is found on calibration text, so that the others are stored in 8 bits.
The formats and the products are those of ``recompress.models.packed.outliers``. Layer after layer.
Source: Dettmers et al. 2022, arXiv:2208.07339, eq. 2 to 8, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.grid import FORM_BYTES, FewBits, bytes_of_embeddings, held_above, pack_embeddings, refuse, tensor_bytes
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import PackedEmbedding, PackedLinear, WithOutliers, packed_linear
from recompress.models.packed.outliers import TOP, ZERO
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings, Share

HALF_STEP = 0.5005
"""Half a step, and what 32-bit floats may add."""


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
    scales = held_above((rest.abs().amax(1, keepdim=True) if rest.shape[1] else weight.new_zeros((len(weight), 1))) / TOP)
    codes = (rest / scales).round_().clamp_(-TOP, TOP).add_(ZERO).to(torch.uint8)
    return WithOutliers(codes, scales, weight[:, places], places)


def prove(before: Checkpoint, after: Checkpoint, config: LlmInt8, inputs: Inputs) -> list[Claim]:
    """All packed, inliers within half a step of what they were and outliers within half a 16-bit one, and the bytes that follow."""
    old, new = before.torch_network, after.torch_network
    pairs = [(weight_of(linear), new.get_submodule(name)) for name, linear in encoder_linears(old)]
    packed = [(weight, module) for weight, module in pairs if isinstance(module, PackedLinear) and "places" in module.tensors]
    outlier_counts = [len(module.tensors["places"]) for _, module in packed]
    asked = outlier_counts if config.share is None else [outlier_count(weight.shape[1], config.share) for weight, _ in packed]
    expected = tensor_bytes(old) + bytes_of_embeddings(old, _embeddings(config))
    for (weight, _), count in zip(packed, outlier_counts, strict=True):
        rows, columns = weight.shape
        expected += rows * (columns - count) + 2 * rows + 2 * rows * count + 4 * count + FORM_BYTES - 4 * rows * columns
    return [
        Claim("linear layers packed", len(pairs), len(packed)),
        Claim("columns in 16 bits", sum(asked), sum(outlier_counts)),
        Claim("largest rounding of the others, in steps", 0, max(_missed(*pair)[0] for pair in packed), tolerance=HALF_STEP),
        Claim("weights in those columns that are not what 16 bits make of them", 0, sum(_missed(*pair)[1] for pair in packed)),
        Claim("embeddings packed", float(config.embeddings), float(isinstance(token_table(new), PackedEmbedding))),
        Claim("bytes of all tensors", expected, tensor_bytes(new)),
    ]


def _missed(weight: Float[Tensor, "out in"], packed: PackedLinear) -> tuple[float, int]:
    """How far the farthest inlier is from what it was, in steps of its row, and how many outliers are not theirs in 16 bits."""
    values, places = packed.weight, packed.tensors["places"].long()
    gap = (weight - values).abs() / packed.scales.float()
    gap[:, places] = 0
    return float(gap.max()), int((values[:, places] != weight[:, places].half()).sum())


def _embeddings(config: LlmInt8) -> FewBits:
    return FewBits(bits=8, symmetric=True, embeddings=config.embeddings)


@method(
    "llm_int8",
    LlmInt8,
    family="quantization",
    prove=prove,
    needs=("calibration",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Dettmers et al. 2022, arXiv:2208.07339, eq. 2 to 8",
    shrinks="bytes, to about a quarter in the layers",
    speeds_up="nothing: it is made to keep quality",
)
def quantize_llm_int8(checkpoint: Checkpoint, config: LlmInt8, inputs: Inputs) -> Checkpoint:
    """Weights and activations in 8 bits, columns with the largest inputs in 16."""
    network = checkpoint.torch_network
    refuse(network, _embeddings(config))

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        places = outliers_of(statistics["largest"], config)
        return {name: packed_linear(quantize_matrix(weight_of(linear), places), linear) for name, linear in group.items()}

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    depends_on = {"method": "llm_int8", **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted={"largest"}, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "llm_int8")
    pack_embeddings(network, _embeddings(config))
    return checkpoint
