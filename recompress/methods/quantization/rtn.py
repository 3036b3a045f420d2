"""Round to nearest: weights in 8, 4, 3 or 2 bits, each on the nearest of evenly spaced steps, packed in memory and on disk.

    code = clamp(round(W / scale) + zero)            W ~ scale * (code - zero)

with the scales and zeros of ``recompress.methods.quantization.grid``, one for each row or group of columns. Needs no data, and is what every other method must beat.
Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1; as a baseline Frantar et al. 2022, arXiv:2210.17323, section 4.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.quantization.grid import FewBits, pack_embeddings, prove_packed, refuse, rounded
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import PackedLinear, packed_linear, place
from recompress.models.surgery import weight_of

HALF_STEP = 0.5005
"""Half a step, and what 32-bit floats may add."""


class Rtn(FewBits):
    """How weights are stored."""


def steps_missed(weight: Float[Tensor, "out in"], packed: PackedLinear) -> float:
    """The largest distance between a weight and what stands for it, in steps of its group."""
    gap = (weight - packed.weight).abs().reshape(len(weight), packed.scales.shape[1], -1)
    return float((gap / packed.scales.float()[:, :, None]).max())


def prove(before: Checkpoint, after: Checkpoint, config: Rtn, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits, and no weight further from what it was than half a step."""
    claims = prove_packed(before, after, config)
    pairs = [(weight_of(linear), after.torch_network.get_submodule(name)) for name, linear in encoder_linears(before.torch_network)]
    missed = max(steps_missed(weight, module) for weight, module in pairs if isinstance(module, PackedLinear))
    return [*claims, Claim("largest rounding, in steps", 0, missed, tolerance=HALF_STEP)]


@method(
    "rtn",
    Rtn,
    family="quantization",
    prove=prove,
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Jacob et al. 2018, arXiv:1712.05877, eq. 1",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up="nothing: weights are unpacked when they are used",
)
def quantize_rtn(checkpoint: Checkpoint, config: Rtn, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, each on its nearest step."""
    network = checkpoint.torch_network
    refuse(network, config)
    for name, linear in list(encoder_linears(network)):
        place(network, name, packed_linear(rounded(weight_of(linear), config), linear))
    pack_embeddings(network, config)
    return checkpoint
