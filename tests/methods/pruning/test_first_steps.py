"""The first steps of every method that prunes while it trains, through the registered function, against plain torch over the same batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recompress.methods.pruning.dynamic_sparse import DynamicSparse
from recompress.methods.pruning.gradual import Gradual
from recompress.methods.pruning.movement import Movement
from recompress.methods.pruning.platon import Platon
from recompress.methods.pruning.scope import zeros_of
from recompress.methods.registry import get_method
from recompress.models.architecture import encoder_linears
from tests.by_hand import FEW_STEPS, Tensors, smallest_by_hand, still, train_by_hand
from tests.six import inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 8
EXAMPLES = 48
"""Eight batches of six."""
SEED = 3
"""Not the one that everything has where none is handed on."""


def names_of(family: str) -> list[str]:
    return [f"{name}.weight" for name, _ in encoder_linears(still(family).torch_network)]


def rows(family: str, stored: Tensor) -> Tensor:
    """As ``[out, in]``, and back."""
    return stored.T if family == "gpt2" else stored


def masks_by_hand(family: str, scores: Tensors, share: float, scope: str) -> Tensors:
    """What becomes zero: the smallest of all scores, of those of each matrix, or of those of each row."""

    def count(numbers: int) -> int:
        return int(share * numbers + 1e-9)

    shaped = {name: rows(family, matrix) for name, matrix in scores.items()}
    if scope == "global":
        every = torch.cat([matrix.flatten() for matrix in shaped.values()])
        parts = smallest_by_hand(every[None], count(every.numel()))[0].split([matrix.numel() for matrix in shaped.values()])
        masks = {name: part.view(matrix.shape) for (name, matrix), part in zip(shaped.items(), parts, strict=True)}
    elif scope == "row":
        masks = {name: torch.cat([smallest_by_hand(row[None], count(len(row))) for row in matrix]) for name, matrix in shaped.items()}
    else:
        masks = {name: smallest_by_hand(matrix, count(matrix.numel())) for name, matrix in shaped.items()}
    return {name: rows(family, mask) for name, mask in masks.items()}


def same(family: str, name: str, config: Any, expected: Tensors, place: Path) -> None:
    """The step has the zeros that were expected, and the weights, but where two scores lie so near each other that the last bit of a sum decides."""
    done = get_method(name).run(still(family), config, inputs_of(family, place, EXAMPLES, SEED)).torch_network
    for layer, linear in encoder_linears(done):
        wanted = expected[f"{layer}.weight"]
        assert int((linear.weight == 0).sum()) == int((wanted == 0).sum()), layer
        assert float((linear.weight - wanted).abs().gt(1e-4).float().mean()) < 0.01, layer


def share_after(step: int, first: int, last: int, target: float) -> float:
    """Zeros after a step counted from 1, of none at first."""
    return target - target * (1 - (step - first) / (last - first)) ** 3 if step < last else target


@pytest.mark.parametrize("scope", ["layer", "global", "row"])
@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_gradual(family: str, scope: Any, tmp_path: Path) -> None:
    config, names = Gradual(**FEW_STEPS, sparsity=0.6, begin=0.25, end=0.75, updates=2, scope=scope), names_of(family)
    masks = {name: torch.tensor(False) for name in names}

    def after(step: int, steps: int, theta: Tensors) -> None:
        assert steps == STEPS
        for name in names:
            theta[name].masked_fill_(masks[name], 0)
        if step + 1 in (4, 6):
            masks.update(masks_by_hand(family, {name: theta[name].abs() for name in names}, share_after(step + 1, 2, 6, 0.6), scope))
            for name in names:
                theta[name].masked_fill_(masks[name], 0)

    expected = train_by_hand(still(family), inputs_of(family, tmp_path, EXAMPLES, SEED), config, after=after)
    same(family, "gradual", config, expected, tmp_path)


@pytest.mark.parametrize(
    ("optimizer", "prior", "scope", "every"),
    [("adam", 0.0, "layer", 1), ("adam", 3.0, "layer", 1), ("sgd", 3.0, "layer", 1), ("adam", 3.0, "global", 3), ("adam", 3.0, "row", 1)],
)
@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_movement(family: str, optimizer: Any, prior: float, scope: Any, every: int, tmp_path: Path) -> None:
    """Scores start with the sizes of weights (sums of plain slopes at 0) and follow the slope of the loss along a mask, dL/dW' * W with the whole W; the whole W
    follows dL/dW' only where the mask lets it through."""
    unclipped = {**FEW_STEPS, "gradient_clip": 1e9}  # by hand, the gradients that are clipped are not those of the masked matrices
    config = Movement(**unclipped, sparsity=0.6, begin=0.25, end=0.75, optimizer=optimizer, prior=prior, scope=scope, every=every)
    names = names_of(family)
    whole = {name: tensor.detach() for name, tensor in still(family).torch_network.named_parameters()}
    masks = {name: torch.ones_like(whole[name]) for name in names}
    scores, means, squares = ({name: torch.zeros_like(whole[name]) for name in names} for _ in range(3))
    if optimizer == "adam":
        usual = torch.cat([whole[name].flatten().abs() for name in names]).mean()
        scores = {name: prior * whole[name].abs() / usual for name in names}
    masked: Tensors = {}

    def weights(theta: Tensors) -> Tensors:
        masked.update({name: (theta[name] * masks[name]).detach().requires_grad_() for name in names})
        return theta | masked

    def before(step: int, theta: Tensors, gradients: Tensors, adam: Any) -> None:
        for name in names:
            gradient = masked[name].grad
            assert gradient is not None
            slope = gradient * theta[name]
            means[name] = 0.9 * means[name] + 0.1 * slope
            squares[name] = 0.999 * squares[name] + 0.001 * slope**2
            by_noise = means[name] / (1 - 0.9 ** (step + 1)) / ((squares[name] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            scores[name] -= slope if optimizer == "sgd" else by_noise
            theta[name].grad = gradient * masks[name]

    def after(step: int, steps: int, theta: Tensors) -> None:
        if step + 1 in chosen_anew(every):
            zeros = masks_by_hand(family, scores, share_after(step + 1, 2, 6, 0.6), scope)
            masks.update({name: 1 - zero.float() for name, zero in zeros.items()})

    expected = train_by_hand(still(family), inputs_of(family, tmp_path, EXAMPLES, SEED), config, weights=weights, before=before, after=after)
    same(family, "movement", config, expected, tmp_path)


def chosen_anew(every: int) -> list[int]:
    """The steps, counted from 1, of a schedule from the second to the sixth."""
    return [step for step in range(2, STEPS + 1) if (step - 2) % every == 0 or step == 6]


@pytest.mark.parametrize(("scope", "every"), [("global", 1), ("layer", 1), ("row", 3)])
@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_platon(family: str, scope: Any, every: int, tmp_path: Path) -> None:
    """Mean importance times mean uncertainty, of all matrices together or of each; what became zero is trained on from there."""
    dials: dict[str, Any] = {"scope": scope, "every": every, "memory": 0.8, "uncertainty_memory": 0.9}
    config, names = Platon(**FEW_STEPS, sparsity=0.6, begin=0.25, end=0.75, **dials), names_of(family)
    mean, stray = (dict.fromkeys(names, 0.0) for _ in range(2))
    masks = {name: torch.tensor(False) for name in names}

    def before(step: int, theta: Tensors, gradients: Tensors, adam: Any) -> None:
        for name in names:
            importance = (theta[name] * gradients[name]).abs()
            mean[name] = 0.8 * mean[name] + 0.2 * importance  # type: ignore[assignment]
            stray[name] = 0.9 * stray[name] + 0.1 * (importance - mean[name]).abs()  # type: ignore[assignment, operator]

    def after(step: int, steps: int, theta: Tensors) -> None:
        if step + 1 in chosen_anew(every):
            scores: Any = {name: mean[name] * stray[name] for name in names}
            masks.update(masks_by_hand(family, scores, share_after(step + 1, 2, 6, 0.6), scope))
        for name in names:
            theta[name].masked_fill_(masks[name], 0)

    expected = train_by_hand(still(family), inputs_of(family, tmp_path, EXAMPLES, SEED), config, before=before, after=after)
    same(family, "platon", config, expected, tmp_path)


def normal(shape: Any, *numbers: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(numbers).standard_normal(tuple(shape), dtype=np.float32))


@pytest.mark.parametrize(("kind", "start"), [("rigl", "magnitude"), ("set", "magnitude"), ("set", "random")])
@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.long)])
def test_dynamic_sparse(family: str, kind: Any, start: Any, tmp_path: Path) -> None:
    """RigL grows where the gradient is largest, from zero; SET anywhere, from small random weights; the optimizer remembers nothing of what moved."""
    config, names = DynamicSparse(**FEW_STEPS, kind=kind, sparsity=0.6, drop=0.5, updates=3, until=0.75, start=start), names_of(family)
    source = still(family)
    shapes = [tuple(rows(family, linear.weight).shape) for _, linear in encoder_linears(source.torch_network)]
    counts = dict(zip(names, zeros_of(shapes, 0.6, "erdos_renyi"), strict=True))  # type: ignore[arg-type]
    alive: Tensors = {}
    for i, (name, linear) in enumerate(zip(names, dict(encoder_linears(source.torch_network)).values(), strict=True)):
        worth = linear.weight.detach() if start == "magnitude" else normal(linear.weight.shape, SEED, 0, i)
        alive[name] = ~smallest_by_hand(worth.abs(), counts[name])
        linear.weight.data.masked_fill_(~alive[name], 0)
    moved: dict[int, int] = {}

    def before(step: int, theta: Tensors, gradients: Tensors, adam: Any) -> None:
        for i, name in enumerate(names):
            weight, gradient = theta[name], gradients[name]
            if step + 1 in (3, 5, 6):  # three updates evenly behind the first step and up to the sixth
                count = int(0.25 * (1 + math.cos(math.pi * step / 6)) * int(alive[name].sum()))
                left = alive[name] & ~smallest_by_hand(torch.where(alive[name], weight.abs(), torch.inf), count)
                drawn = normal(weight.shape, SEED, step + 1, i)
                wish = gradient.abs() if kind == "rigl" else drawn.abs()
                now = left | smallest_by_hand(torch.where(left, torch.inf, -wish), count)
                grown, changed = now & ~alive[name], now != alive[name]
                moved[step] = moved.get(step, 0) + int(grown.sum())
                if kind == "set":
                    weight[grown] = 0.1 * weight[alive[name]].std(correction=0) * drawn[grown]
                for moment in ("exp_avg", "exp_avg_sq"):
                    adam.state[weight][moment].masked_fill_(changed, 0)
                alive[name] = now
                weight.masked_fill_(~now, 0)
            gradient.mul_(alive[name])

    def after(step: int, steps: int, theta: Tensors) -> None:
        for name in names:
            theta[name].masked_fill_(~alive[name], 0)

    expected = train_by_hand(source, inputs_of(family, tmp_path, EXAMPLES, SEED), config, before=before, after=after)
    assert min(moved.values()) > 0
    same(family, "dynamic_sparse", config, expected, tmp_path)
