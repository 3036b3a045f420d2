"""Quantization-aware training: train on with the rounding in place, so that weights settle where rounding them costs little; packed on disk afterwards.

    loss = that of the benchmark, computed with W^ = what the codes of W stand for;  gradients reach W as if nothing were rounded

The rounding, its gradients and its learned scales are those of ``recompress.methods.quantization.in_training``. What is packed has exactly the weights that
the trained network computed with. What was pruned stays zero, and learned scales are not decayed.
Source: Jacob et al. 2018, arXiv:1712.05877, section 3; Esser et al. 2020 (LSQ), arXiv:1902.08153 (``scales: learned``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_serializer
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError, IntegrityError
from recompress.methods.quantization.by_layer import written
from recompress.methods.quantization.grid import FewBits, check_output, outside, place_outside, refuse
from recompress.methods.quantization.in_training import Rounding
from recompress.methods.quantization.packed_claims import prove_packed, zeros_claim
from recompress.methods.registry import Claim, Inputs, method
from recompress.methods.training_probe import SHARE, SLACK, losses
from recompress.methods.training_step import was_pruned
from recompress.models.architecture import ALL_ARCHITECTURES, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.gguf.tensors import is_tied
from recompress.models.packed import PackedLinear, packed_linear, place, tie_packed
from recompress.models.surgery import weight_of
from recompress.settings.base import as_before
from recompress.training.settings import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Qat(FewBits, Schedule):
    """How weights are stored, and how long and how fast to train."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the training examples."""
    scales: Literal["minmax", "learned"] = "minmax"  # type: ignore[assignment]
    """Steps from the largest and smallest weight of each group as training goes on, or trained together with the weights; learned ones are symmetric."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("output",))


def check(config: Qat) -> None:
    """Raises ``InputError`` for settings that contradict each other."""
    if config.scales == "learned" and not config.symmetric:
        raise InputError("scales: learned has steps that lie evenly around zero; set symmetric: true")


def round_in_place(network: PreTrainedModel, config: Qat, *, hold: bool) -> bool:
    """Let all linear layers of the layers, and token embeddings and output layer where asked, compute with rounded weights; whether an output layer is tied to
    these. ``hold`` keeps the zeros of the layers."""
    learned = config.scales == "learned"
    for _, linear in list(encoder_linears(network)):
        rounding = Rounding(weight_of(linear), config, learned=learned, turned=not isinstance(linear, nn.Linear), hold=hold)
        register_parametrization(linear, "weight", rounding)
    tied = bool(config.embeddings) and is_tied(network)
    for _, module, its in outside(network, config):
        rounding = Rounding(module.weight.detach(), its, learned=learned, turned=False, hold=False)
        for one in (module, network.get_output_embeddings()) if tied else (module,):
            register_parametrization(one, "weight", rounding)
    return tied


def pack(network: PreTrainedModel, config: Qat, *, tied: bool) -> None:
    """Packed modules in the place of those that round. Raises ``IntegrityError`` where a weight would not be the one that was trained with."""
    for name, linear in list(encoder_linears(network)):
        packed = packed_linear(_codes(linear), linear)
        if not packed.weight.equal(weight_of(linear)):
            raise IntegrityError(f"{name} would not be packed as trained")
        place(network, name, packed)
    for what, module, _ in outside(network, config):
        trained = module.weight
        if not place_outside(network, module, _codes(module)).weight.equal(trained):
            raise IntegrityError(f"{what} would not be packed as trained")
    if tied:
        tie_packed(network)


def _codes(module: Any) -> Any:
    rounding = module.parametrizations.weight
    return rounding[0].quantized(rounding.original.detach())


def prove(before: Checkpoint, after: Checkpoint, config: Qat, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits; trained; with at least half of what rounding alone leaves of the weights of before; on the text no worse than that; and what was
    pruned still zero."""
    was, now = _floats(before), _floats(after)
    moved = any(not tensor.equal(was[name]) for name, tensor in now.items() if name in was)
    plain = _rounded_only(before, config)
    rounded_loss, trained_loss = losses((plain, after), inputs.train)
    claims = [
        *prove_packed(before, after, config),
        Claim("weights moved", 1, float(moved)),
        Claim("squared distance of the weights from those before, as a share", (1 + _lost(before, plain)) / 2, _lost(before, after), bound="at most"),
        *_table_claims(before, after, plain, config),
        Claim("loss on training text, not above that of rounding alone", rounded_loss, trained_loss, SLACK + SHARE * rounded_loss, "at most"),
    ]
    return [*claims, zeros_claim(before, after)] if was_pruned(before) else claims


def _rounded_only(before: Checkpoint, config: Qat) -> Checkpoint:
    """The network with the rounding in place, and not trained."""
    network = copy.deepcopy(before.torch_network)
    round_in_place(network, config, hold=was_pruned(before))
    return replace(before, network=network)


def _lost(before: Checkpoint, after: Checkpoint) -> float:
    """The squared distance of all weights of the linear layers from what they were, as a share of their squares: 1 where all are zero."""
    modules = [(weight_of(linear), after.torch_network.get_submodule(name)) for name, linear in encoder_linears(before.torch_network)]
    pairs = [(old, new.weight if isinstance(new, PackedLinear) else weight_of(new)) for old, new in modules]
    return sum(float((new - old).square().sum()) for old, new in pairs) / sum(float(old.square().sum()) for old, _ in pairs)


def _table_claims(before: Checkpoint, after: Checkpoint, plain: Checkpoint, config: Qat) -> Iterator[Claim]:
    """The same of token embeddings and output layer."""
    was, now, rounded = ([(what, module.weight.detach()) for what, module, _ in outside(one.torch_network, config)] for one in (before, after, plain))
    for (what, old), (_, new), (_, nearest) in zip(was, now, rounded, strict=True):
        size = float(old.square().sum())
        trained, alone = (float((old - values).square().sum()) / size for values in (new, nearest))
        yield Claim(f"squared distance of {what} from those before, as a share", (1 + alone) / 2, trained, bound="at most")


def _floats(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The parameters that are not packed: biases, norms, the head."""
    return dict(checkpoint.torch_network.named_parameters())


@method(
    "qat",
    Qat,
    family="quantization",
    prove=prove,
    check=check,
    check_benchmark=check_output,
    needs=("training",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="Jacob et al. 2018, arXiv:1712.05877, section 3; Esser et al. 2020, arXiv:1902.08153, eq. 1 to 5",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up=written("0.5", "1.0 (8 bits) to 1.2"),
)
def train_qat(checkpoint: Checkpoint, config: Qat, inputs: Inputs) -> Checkpoint:
    """Training with the rounding in place; weights in few bits."""
    from recompress.training.run import train

    network = checkpoint.torch_network
    refuse(network, config)
    tied = round_in_place(network, config, hold=was_pruned(checkpoint))
    label = inputs.label or "qat"
    depends_on = {"method": "qat"}
    place = inputs.workdir / "training"
    trained = train(checkpoint, inputs.train, inputs.dev, config, inputs.seed, place, curve=inputs.curve, label=label, depends_on=depends_on, hold=False)
    pack(trained.torch_network, config, tied=tied)
    return trained
