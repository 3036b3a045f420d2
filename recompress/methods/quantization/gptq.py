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

from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Statistics
from recompress.methods.quantization.by_layer import EVEN_STEPS, code_layers, written
from recompress.methods.quantization.closeness import below_rounding, table_rounding_claims
from recompress.methods.quantization.column_by_column import quantize_matrix, root_of
from recompress.methods.quantization.grid import FewBits, pack_outside, refuse
from recompress.methods.quantization.packed_claims import prove_packed, zeros_claim
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import Quantized
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
    """Packed, in so many bits, every zero still one, and outputs nearer to the old ones than with each weight on its nearest step."""
    tables = table_rounding_claims(before, after, config)
    return [*prove_packed(before, after, config), zeros_claim(before, after), below_rounding(before, after, inputs, config), *tables]


@method(
    "gptq",
    Gptq,
    prove=prove,
    needs=("calibration",),
    **EVEN_STEPS,
    source="Frantar et al. 2022, arXiv:2210.17323, eq. 2 and 3",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up=written("0.5", "1.0 (8 bits) to 1.2"),
)
def quantize_gptq(checkpoint: Checkpoint, config: Gptq, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, the columns not yet rounded making up for those that are."""
    network = checkpoint.torch_network
    refuse(network, config)

    def coding(group: Group, statistics: Statistics) -> Mapping[str, Quantized]:
        root, order = root_of(statistics["hessian"], config.damping, next(iter(group)), act_order=config.act_order)
        return {name: quantize_matrix(weight_of(linear), root, config, order) for name, linear in group.items()}

    code_layers(checkpoint, inputs, "gptq", config, coding, wanted={"hessian"}, examples=config.calibration_examples)
    pack_outside(network, config)
    return checkpoint
