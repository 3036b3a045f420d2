"""Quantization-aware training: train on with the rounding in place, so that weights settle where rounding them costs little; packed on disk afterwards.

    loss = that of the benchmark, computed with W^ = what the codes of W stand for;  gradients reach W as if nothing were rounded

The rounding, its gradients and its learned scales are those of ``recompress.methods.quantization.in_training``. What is packed has exactly the weights that the trained
network computed with. Weights that are zero stay zero.
Source: Jacob et al. 2018, arXiv:1712.05877, section 3; Esser et al. 2020 (LSQ), arXiv:1902.08153 (``scales: learned``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError, IntegrityError
from recompress.methods.quantization.grid import FewBits, prove_packed, refuse, zeros_claim
from recompress.methods.quantization.in_training import Rounding
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import packed_embedding, packed_linear, place, tie_packed
from recompress.models.surgery import weight_of
from recompress.training.settings import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Qat(FewBits, Schedule):
    """How weights are stored, and how long and how fast to train."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the training examples."""
    scales: Literal["minmax", "learned"] = "minmax"
    """Steps from the largest and smallest weight of each group as training goes on, or trained together with the weights; learned ones are symmetric."""


def check(config: Qat) -> None:
    """Raises ``InputError`` for settings that contradict each other."""
    if config.scales == "learned" and not config.symmetric:
        raise InputError("scales: learned has steps that lie evenly around zero; set symmetric: true")


def round_in_place(network: PreTrainedModel, config: Qat) -> bool:
    """Let all linear layers of the layers, and the token embeddings where asked, compute with rounded weights; whether an output layer is tied to these."""
    learned = config.scales == "learned"
    for _, linear in list(encoder_linears(network)):
        rounding = Rounding(weight_of(linear), config, learned=learned, turned=not isinstance(linear, nn.Linear))
        register_parametrization(linear, "weight", rounding)
    if not config.embeddings:
        return False
    table, output = token_table(network), network.get_output_embeddings()
    tied = output is not None and getattr(output, "weight", None) is table.weight
    rounding = Rounding(table.weight.detach(), config, learned=learned, turned=False)
    for module in (table, output) if tied else (table,):
        register_parametrization(module, "weight", rounding)
    return bool(tied)


def pack(network: PreTrainedModel, config: Qat, *, tied: bool) -> None:
    """Packed modules in the place of those that round. Raises ``IntegrityError`` where a weight would not be the one that was trained with."""
    for name, linear in list(encoder_linears(network)):
        packed = packed_linear(_codes(linear), linear)
        if not packed.weight.equal(weight_of(linear)):
            raise IntegrityError(f"{name} would not be packed as it was trained")
        place(network, name, packed)
    if config.embeddings:
        table = token_table(network)
        place(network, next(name for name, module in network.named_modules() if module is table), packed_embedding(_codes(table)))
    if tied:
        tie_packed(network)


def _codes(module: Any) -> Any:
    rounding = module.parametrizations.weight
    return rounding[0].quantized(rounding.original.detach())


def prove(before: Checkpoint, after: Checkpoint, config: Qat, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits; trained; and every zero still one."""
    was, now = _floats(before), _floats(after)
    moved = any(not tensor.equal(was[name]) for name, tensor in now.items() if name in was)
    return [*prove_packed(before, after, config), Claim("weights moved", 1, float(moved)), zeros_claim(before, after)]


def _floats(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The parameters that are not packed: biases, norms, the head."""
    return dict(checkpoint.torch_network.named_parameters())


@method(
    "qat",
    Qat,
    family="quantization",
    prove=prove,
    check=check,
    needs=("training",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Jacob et al. 2018, arXiv:1712.05877, section 3; Esser et al. 2020, arXiv:1902.08153, eq. 1 to 5",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up="nothing: weights are unpacked when they are used",
)
def train_qat(checkpoint: Checkpoint, config: Qat, inputs: Inputs) -> Checkpoint:
    """Training with the rounding in place; weights in few bits."""
    from recompress.training.run import train

    network = checkpoint.torch_network
    refuse(network, config)
    tied = round_in_place(network, config)
    label = inputs.label or "qat"
    depends_on = {"method": "qat"}
    place = inputs.workdir / "training"
    trained = train(checkpoint, inputs.train, inputs.dev, config, inputs.seed, place, curve=inputs.curve, label=label, depends_on=depends_on, hold=False)
    pack(trained.torch_network, config, tied=tied)
    return trained
