"""Round to nearest: weights in 8, 4, 3 or 2 bits, each on the nearest of evenly spaced steps, packed in memory and on disk.

    code = clamp(round(W / scale) + zero)            W ~ scale * (code - zero)

with the scales and zeros of ``recompress.methods.quantization.grid``, one for each row or group of columns. Needs no data, and is what every other method must beat.
Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1; as a baseline Frantar et al. 2022, arXiv:2210.17323, section 4.
"""

from __future__ import annotations

from recompress.methods.quantization.by_layer import EVEN_STEPS, written
from recompress.methods.quantization.closeness import rounding_claim, table_rounding_claims
from recompress.methods.quantization.grid import FewBits, pack_outside, refuse, rounded
from recompress.methods.quantization.packed_claims import prove_packed
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import packed_linear, place
from recompress.models.surgery import weight_of


class Rtn(FewBits):
    """How weights are stored."""


def prove(before: Checkpoint, after: Checkpoint, config: Rtn, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits, and no weight further from what it was than half a step."""
    rounding = rounding_claim(before, after, config)
    return [*prove_packed(before, after, config), rounding, *table_rounding_claims(before, after, config)]


@method(
    "rtn",
    Rtn,
    prove=prove,
    **EVEN_STEPS,
    source="Jacob et al. 2018, arXiv:1712.05877, eq. 1",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up=written("0.5", "1.0 (8 bits) to 1.2"),
)
def quantize_rtn(checkpoint: Checkpoint, config: Rtn, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, each on its nearest step."""
    network = checkpoint.torch_network
    refuse(network, config)
    for name, linear in list(encoder_linears(network)):
        place(network, name, packed_linear(rounded(weight_of(linear), config), linear))
    pack_outside(network, config)
    return checkpoint
