"""SignRound: learn for each weight whether it is rounded up or down, and how far the steps reach, by what the layer as a whole puts out.

    minimise over V, alpha, beta  || f(X; W) - f(X; W^) ||^2            f: a layer of the network, with attention, norms and all;  X: what flows into it
    V <- V - r_t * sign(dL/dV), and so alpha and beta                  r_t = rate * (1 - t / steps), rate = 1 / steps if nothing else is said

with W^ of ``recompress.methods.quantization.learned_rounding``, all matrices of a layer at once. Layer after layer: X comes from layers that are rounded already, and f(X; W) is what the layer as it was makes of the
same X, as in GPTQ (the authors' later code compares with what an unrounded network has there). It begins with each weight on its nearest step; after each quarter of the steps the error over all of
the calibration text is measured, and the best of these five, the beginning among them, is kept: on that text a layer is never farther from what it was than with ``rtn``. It takes a training pass through
each layer for each step, which is many times as long as GPTQ.
Source: Cheng et al. 2023, arXiv:2309.05516, section 3 and algorithm 1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from recompress.layerwise.engine import Flowing, change_layers
from recompress.methods.block_probe import layer_errors
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.by_layer import EVEN_STEPS, written
from recompress.methods.quantization.closeness import GAIN, table_rounding_claims
from recompress.methods.quantization.grid import FewBits, Grid, pack_outside, refuse, rounded
from recompress.methods.quantization.learned_rounding import Choice, codes_with, gradients, nearest, round_with, start_of, step
from recompress.methods.quantization.packed_claims import prove_packed, zeros_claim
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import Linear, is_linear
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import packed_linear, place
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.surgery import weight_of

STEP_TOKENS = 512
"""So many tokens, with their padding, a step looks at, as far as the text goes."""
LOOKS = 4
"""How often the error over all of the text is measured."""
FINE = 8
"""Bits at which rounding to the nearest costs so little that learning may find nothing better, and keeps it."""


class SignRound(FewBits):
    """How weights are stored, and how long rounding is learned."""

    steps: Annotated[int, Field(ge=4, le=10_000)] = 200
    """Steps for each layer."""
    learning_rate: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """How far the first step moves what is learned, in steps of the grid; 1 / steps if left out, with which all steps together move half a step of the grid."""
    clip: bool = True
    """Learn how far steps reach, too, and not offsets alone."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


class Learner:
    """The matrices of one layer while their rounding is learned."""

    def __init__(self, layer: nn.Module, config: SignRound) -> None:
        self.layer, self.config = layer, config
        self.linears: dict[str, Linear] = {name: module for name, module in layer.named_modules() if is_linear(module)}
        self.weights = {name: weight_of(linear) for name, linear in self.linears.items()}
        self.starts: dict[str, Grid] = {name: start_of(weight, config) for name, weight in self.weights.items()}
        self.choices = {name: nearest(weight, self.starts[name]) for name, weight in self.weights.items()}

    def layer_with(self, matrices: Mapping[str, Tensor]) -> Any:
        """The layer as a function, with other matrices in it."""
        held = {f"{name}.weight": matrix if isinstance(self.linears[name], nn.Linear) else matrix.T for name, matrix in matrices.items()}
        return lambda *given, **named: functional_call(self.layer, held, given, named)

    def now(self) -> dict[str, Tensor]:
        """The matrices as they are rounded now."""
        return {name: round_with(weight, self.starts[name], self.choices[name], self.config).values for name, weight in self.weights.items()}

    def move(self, flowing: Flowing, chosen: list[int], wanted: Mapping[int, Tensor], rate: float) -> None:
        """One step against the signs of the gradients over the ``chosen`` batches together."""
        at = {name: round_with(weight, self.starts[name], self.choices[name], self.config) for name, weight in self.weights.items()}
        leaves = {name: each.values.requires_grad_() for name, each in at.items()}
        above = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        for i in chosen:
            with torch.enable_grad():
                text = flowing.text(i)
                loss = (flowing.through(self.layer_with(leaves), i)[text] - wanted[i][text]).square().sum()
                for name, slope in zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True):
                    above[name] += slope
        for name, weight in self.weights.items():
            slopes = gradients(weight, self.starts[name], self.choices[name], at[name], above[name], self.config)
            still = torch.zeros_like(slopes.upper)
            step(self.choices[name], slopes if self.config.clip else Choice(slopes.offsets, still, still), rate)


def learn(layer: nn.Module, flowing: Flowing, config: SignRound, draw: random.Random, folder: Path) -> dict[str, Choice]:
    """The best choice for each matrix of a layer, by its name there. ``folder`` is for what the layer as it is puts out."""
    learner, count = Learner(layer, config), len(flowing.batches)
    for i in range(count):
        save_file({"wanted": flowing.through(layer, i).cpu().contiguous()}, _file(folder, i))
    rate, order = config.learning_rate or 1 / config.steps, _drawn(flowing, draw)
    best, least = _copy(learner.choices), _error(learner, flowing, folder)
    for number in range(config.steps):
        chosen = next(order)
        learner.move(flowing, chosen, {i: _wanted(flowing, folder, i) for i in chosen}, rate * (1 - number / config.steps))
        if (number + 1) * LOOKS // config.steps > number * LOOKS // config.steps and (now := _error(learner, flowing, folder)) < least:
            best, least = _copy(learner.choices), now
        flowing.progress.update(1)
    return best


def _drawn(flowing: Flowing, draw: random.Random) -> Iterator[list[int]]:
    """Batches of as many tokens as a step looks at; each comes once before any comes again."""
    waiting: list[int] = []
    sizes = [batch["input_ids"].size for batch in flowing.batches]
    while True:
        chosen: list[int] = []
        while not chosen or (sum(sizes[i] for i in chosen) < STEP_TOKENS and len(chosen) < len(sizes)):
            if not waiting:
                waiting = [i for i in draw.sample(range(len(sizes)), len(sizes)) if i not in chosen]
            chosen.append(waiting.pop())
        yield chosen


def _error(learner: Learner, flowing: Flowing, folder: Path) -> float:
    """Over all of the text."""
    rounded_layer, total = learner.layer_with(learner.now()), 0.0
    for i in range(len(flowing.batches)):
        text = flowing.text(i)
        total += float((flowing.through(rounded_layer, i)[text] - _wanted(flowing, folder, i)[text]).square().sum(dtype=torch.float64))
    return total


def _copy(choices: Mapping[str, Choice]) -> dict[str, Choice]:
    return {name: Choice(*(part.clone() for part in choice)) for name, choice in choices.items()}


def _wanted(flowing: Flowing, folder: Path, i: int) -> Tensor:
    wanted: Tensor = load_file(_file(folder, i))["wanted"]
    return wanted.to(flowing.network.device)


def _file(folder: Path, i: int) -> Path:
    return folder / f"{i:05d}.safetensors"


def prove(before: Checkpoint, after: Checkpoint, config: SignRound, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits, every zero still one, and what layers put out nearer to what they did than with each weight on its nearest step."""
    errors = layer_errors(before, after, inputs, lambda _, weight: unpacked_matrix(rounded(weight, config)))
    share = GAIN if config.bits < FINE else 1.0
    nearer = Claim(f"error of what whole layers put out, at most {share:.0%} of that of rtn", share * errors.simpler, errors.method, bound="at most")
    return [*prove_packed(before, after, config), zeros_claim(before, after), nearer, *table_rounding_claims(before, after, config)]


@method(
    "signround",
    SignRound,
    prove=prove,
    needs=("calibration",),
    **EVEN_STEPS,
    source="Cheng et al. 2023, arXiv:2309.05516, algorithm 1",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up=written("0.5", "1.0 (8 bits) to 1.2"),
)
def quantize_signround(checkpoint: Checkpoint, config: SignRound, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, rounded up or down as training finds best for each layer."""
    network = checkpoint.torch_network
    refuse(network, config)

    def change(flowing: Flowing) -> None:
        module, index = flowing.layer().module, flowing.index
        with TemporaryDirectory(dir=inputs.workdir, prefix="wanted-") as folder:
            best = learn(module, flowing, config, random.Random(f"{inputs.seed} {index}"), Path(folder))
        names = {id(part): name for name, part in network.named_modules()}
        for path, choice in best.items():
            linear = module.get_submodule(path)
            weight = weight_of(linear)
            place(network, names[id(linear)], packed_linear(codes_with(weight, start_of(weight, config), choice, config), linear))

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    said = {"method": "signround", "seed": inputs.seed, **config.model_dump(mode="json")}
    change_layers(network, features, change, depends_on=said, workdir=inputs.workdir, label=inputs.label or "signround", rounds=config.steps)
    pack_outside(network, config)
    return checkpoint
