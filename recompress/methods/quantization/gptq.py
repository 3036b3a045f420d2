"""GPTQ: round column after column, and let the columns that are not yet rounded make up for what each rounding did.

    q_j = scale * (clamp(round(w_j / scale) + zero) - zero)         e = (w_j - q_j) / U[j, j]         W[:, j:] -= e U[j, j:]

with U of ``recompress.layerwise.second_order``, done by ``recompress.methods.quantization.column_by_column``. With ``act_order`` the columns with the largest inputs are rounded
first, while all others can still make up for them; steps then are those of the weights as they came. Weights that are zero, because they were pruned, stay so.
Layer after layer.
Source: Frantar et al. 2022, arXiv:2210.17323, eq. 2 and 3, algorithm 1; the order of columns is from the authors' later code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.column_by_column import quantize_matrix, root_of
from recompress.methods.quantization.grid import FewBits, pack_embeddings, prove_packed, refuse, zeros_claim
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import packed_linear
from recompress.models.surgery import weight_of


class Gptq(FewBits):
    """How weights are stored, and what rounding is judged on."""

    act_order: bool = True
    """Round the columns with the largest inputs first. Ahead at 3 bits on each model measured, at 4 bits not on each (studies/results/known_findings.md)."""
    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the mean of the Hessian's diagonal that is added to it."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


def prove(before: Checkpoint, after: Checkpoint, config: Gptq, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits, and every zero still one."""
    return [*prove_packed(before, after, config), zeros_claim(before, after)]


@method(
    "gptq",
    Gptq,
    family="quantization",
    prove=prove,
    needs=("calibration",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Frantar et al. 2022, arXiv:2210.17323, eq. 2 and 3",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up="nothing: weights are unpacked when they are used",
)
def quantize_gptq(checkpoint: Checkpoint, config: Gptq, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, the columns not yet rounded making up for those that are."""
    network = checkpoint.torch_network
    refuse(network, config)

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        root, order = root_of(statistics["hessian"], config.damping, next(iter(group)), act_order=config.act_order)
        return {name: packed_linear(quantize_matrix(weight_of(linear), root, config, order), linear) for name, linear in group.items()}

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    depends_on = {"method": "gptq", **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted={"hessian"}, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "gptq")
    pack_embeddings(network, config)
    return checkpoint
