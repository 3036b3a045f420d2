"""Mixed precision: as many bits for each linear layer as it needs, and no more bytes in all than there are.

    minimise  sum_i damage[i, b_i]      subject to  sum_i bytes[i, b_i] <= budget         b_i in {2, 3, 4, 8, untouched}

damage: the KL of the answers when layer i alone is rounded, measured by ``recompress.methods.quantization.sensitivity``; the choice is exact
(``recompress.methods.quantization.budget``). Bytes are codes, scales and zeros; a layer that is left untouched counts with the 32-bit floats that it is stored in.
Layers are then rounded to the nearest step, or by GPTQ. That damages add up is an assumption: layers are measured alone and rounded together.
Source: Dong et al. 2019 (HAWQ), arXiv:1905.03696; Cai et al. 2020 (ZeroQ), arXiv:2001.00281, eq. 7 and section 3.3 (sums under a budget).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer

from recompress.errors import InputError
from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.budget import Option, best_choice
from recompress.methods.quantization.by_layer import PACKED, code_layers, written
from recompress.methods.quantization.closeness import below_rounding, rounding_claim, table_rounding_claims
from recompress.methods.quantization.column_by_column import quantize_matrix, root_of
from recompress.methods.quantization.grid import FewBits, pack_outside, refuse, rounded
from recompress.methods.quantization.packed_claims import bytes_outside, matrix_bytes, tensor_bytes
from recompress.methods.quantization.sensitivity import Damages, measure, measure_anew
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import PackedLinear, Quantized, packed_linear, place
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings, as_before
from recompress.training.losses import losses_of

log = logging.getLogger(__name__)
BITS: tuple[Literal[2, 3, 4, 8], ...] = (2, 3, 4, 8)
UNTOUCHED = 32
DAMPING = 0.01
PROVED = 16
"""Examples that damages are measured anew on for the proof: all, where no more than the default are asked for."""
DRAWN = 0.5
"""The best choice for a few examples is not the best for all: it may do so much better on them."""


class MixedPrecision(Settings):
    """How many bytes there are, and how layers are rounded."""

    average_bits: Annotated[float, Field(gt=0, lt=UNTOUCHED)] = 4.0
    """Bits of a weight in the linear layers on average, scales and zeros counted."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """In place of ``average_bits``: the share of the bytes of the linear layers that may be used."""
    untouched: bool = True
    """Allow that a layer is left as it is, in 32-bit floats."""
    rounding: Literal["rtn", "gptq"] = "rtn"
    """Rounding to the nearest step, or column after column with act-order and damping 0.01."""
    group_size: Annotated[int, Field(ge=8)] | None = None
    """Columns that share a scale; a whole row when left out. It must divide the width of every matrix."""
    symmetric: bool = False
    """Steps that lie evenly around zero, so that no zero points need be stored."""
    embeddings: bool = False
    """Store the token embeddings in 8 bits; they do not count in the budget."""
    scales: Literal["minmax", "mse"] = "minmax"
    """Steps from the largest and smallest weight of each group, or those of a few dozen that lose least of its squares."""
    calibration_examples: Annotated[int, Field(ge=1)] = 16
    """Training examples, or windows of running text, that layers are measured on: each costs a forward pass for each layer and number of bits."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("scales",))

    def stored_in(self, bits: Literal[2, 3, 4, 8], *, embeddings: bool = False) -> FewBits:
        return FewBits(bits=bits, group_size=self.group_size, symmetric=self.symmetric, embeddings=embeddings, scales=self.scales)


def budget_of(numbers: int, config: MixedPrecision) -> int:
    """Bytes for ``numbers`` weights."""
    bits = config.average_bits if config.share is None else UNTOUCHED * config.share
    return int(numbers * bits / 8 + 1e-9)


def options_of(rows: int, columns: int, damage: Mapping[str, float], config: MixedPrecision) -> list[Option]:
    """In 2, 3, 4 and 8 bits, and untouched where that is allowed."""
    options = [Option(matrix_bytes(rows, columns, config.stored_in(bits)), damage[str(bits)]) for bits in BITS]
    return [*options, Option(4 * rows * columns, 0.0)] if config.untouched else options


def choose(shapes: Mapping[str, tuple[int, int]], damages: Damages, config: MixedPrecision) -> dict[str, Literal[2, 3, 4, 8] | None]:
    """The bits of each layer, ``None`` for those left untouched. Raises ``InputError`` where the budget is too small for any choice."""
    options = [options_of(*shape, damages[name], config) for name, shape in shapes.items()]
    numbers = sum(rows * columns for rows, columns in shapes.values())
    chosen = best_choice(options, budget_of(numbers, config))
    if chosen is None:
        least = sum(min(option.size for option in layer) for layer in options)
        asked = f"average_bits {config.average_bits:g}" if config.share is None else f"share {config.share:g}"
        raise InputError(
            f"{asked} is too little: with all layers in 2 bits, scales counted, average_bits is {8 * least / numbers:.4g} (share {least / numbers / 4:.4g})"
        )
    return {name: BITS[i] if i < len(BITS) else None for name, i in zip(shapes, chosen, strict=True)}


def prove(before: Checkpoint, after: Checkpoint, config: MixedPrecision, inputs: Inputs) -> list[Claim]:
    """No more bytes than there were to use, each layer packed or exactly what it was, all tensors as large as that makes them, weights close to what they
    were, and bits that damage the answers about as little as any would."""
    old, new = before.torch_network, after.torch_network
    pairs = [(shape_of(linear), linear, new.get_submodule(name)) for name, linear in encoder_linears(old)]
    expected, used, changed = tensor_bytes(old) + bytes_outside(old, config.stored_in(8, embeddings=config.embeddings)), 0, 0
    for (rows, columns), linear, module in pairs:
        if isinstance(module, PackedLinear):
            expected += module.stored_bytes - 4 * rows * columns
            used += module.stored_bytes
        else:
            used += 4 * rows * columns
            changed += not bool(weight_of(linear).equal(weight_of(module)))
    budget = budget_of(sum(rows * columns for (rows, columns), _, _ in pairs), config)
    odd = sum(isinstance(module, PackedLinear) and module.bits not in BITS for _, _, module in pairs)
    return [
        Claim("bytes of the linear layers beyond the budget", 0, max(0, used - budget)),
        Claim("untouched layers that changed", 0, changed),
        Claim("layers in other bits than 2, 3, 4 and 8", 0, odd),
        Claim("bytes of all tensors", expected, tensor_bytes(new)),
        below_rounding(before, after, inputs, config.stored_in(8)) if config.rounding == "gptq" else rounding_claim(before, after, config.stored_in(8)),
        _damage_claim(before, after, config, inputs),
        *table_rounding_claims(before, after, config.stored_in(8, embeddings=config.embeddings)),
    ]


def _damage_claim(before: Checkpoint, after: Checkpoint, config: MixedPrecision, inputs: Inputs) -> Claim:
    """The damages of a few examples, measured anew and added up: those of the bits that layers have now, and those of the best choice for these examples."""
    shapes = {name: shape_of(linear) for name, linear in encoder_linears(before.torch_network)}
    now = {name: getattr(after.torch_network.get_submodule(name), "bits", None) for name in shapes}
    features = calibration_features(before, inputs, config.calibration_examples)
    damages = measure_anew(before.torch_network, features[:: -(-len(features) // PROVED)], [config.stored_in(bits) for bits in BITS], losses_of(before.info))
    least, chosen = (sum(damages[name][str(n)] for name, n in bits.items() if n is not None) for bits in (choose(shapes, damages, config), now))
    return Claim("damage of the layers, each alone, against the best choice", least, chosen, DRAWN * least + 1e-6, "at most")


@method(
    "mixed_precision",
    MixedPrecision,
    prove=prove,
    needs=("calibration",),
    **PACKED,
    source="Cai et al. 2020, arXiv:2001.00281, eq. 7; Dong et al. 2019, arXiv:1905.03696",
    shrinks="bytes of the layers, to a budget",
    speeds_up=written("0.5", "1.0 (8 bits) to 1.2"),
)
def quantize_mixed_precision(checkpoint: Checkpoint, config: MixedPrecision, inputs: Inputs) -> Checkpoint:
    """Bits for each linear layer by what rounding it alone costs, under a budget of bytes."""
    network = checkpoint.torch_network
    embeddings = config.stored_in(8, embeddings=config.embeddings)
    refuse(network, embeddings)
    shapes = {name: shape_of(linear) for name, linear in encoder_linears(network)}
    choose(shapes, {name: {str(bits): 0.0 for bits in BITS} for name in shapes}, config)  # refuses a budget that is too small before anything is measured
    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    label = inputs.label or "mixed_precision"
    chosen = choose(shapes, measure(network, features, [config.stored_in(bits) for bits in BITS], inputs.workdir, label, losses_of(checkpoint.info)), config)
    log.info("%s: %s", label, ", ".join(f"{name} {bits or 'untouched'}" for name, bits in chosen.items()))
    if config.rounding == "rtn":
        for name, linear in list(encoder_linears(network)):
            bits = chosen[name]
            if bits is not None:
                place(network, name, packed_linear(rounded(weight_of(linear), config.stored_in(bits)), linear))
    else:
        _by_gptq(checkpoint, config, inputs, chosen)
    pack_outside(network, embeddings)
    return checkpoint


def _by_gptq(checkpoint: Checkpoint, config: MixedPrecision, inputs: Inputs, chosen: Mapping[str, Literal[2, 3, 4, 8] | None]) -> None:
    def coding(group: Group, statistics: Statistics) -> Mapping[str, Quantized]:
        wanted = {name: (linear, bits) for name, linear in group.items() if (bits := chosen[name]) is not None}
        if not wanted:
            return {}
        root, order = root_of(statistics["hessian"], DAMPING, next(iter(group)), act_order=True)
        return {name: quantize_matrix(weight_of(linear), root, config.stored_in(bits), order) for name, (linear, bits) in wanted.items()}

    examples = config.calibration_examples
    code_layers(checkpoint, inputs, "mixed_precision", config, coding, wanted={"hessian"}, examples=examples, chosen=dict(chosen))
