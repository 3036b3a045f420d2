"""What answers of each kind cost, against loops over numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recompress.models.checkpoint import Info
from recompress.training.losses import ONE_LABEL, SEVERAL_LABELS, Numbers, losses_of, mean_loss

LOGITS, TEACHER = (torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
FLAGS = torch.tensor([[[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]], [[math.nan] * 3], [[1.0, 1.0, 1.0]]])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_several_labels_are_as_many_questions() -> None:
    each = SEVERAL_LABELS.each(LOGITS, FLAGS)[:, 0]
    for i, (row, flags) in enumerate(zip(LOGITS[:, 0].tolist(), FLAGS[:, 0].tolist(), strict=True)):
        by_hand = [-math.log(sigmoid(logit) if flag else 1 - sigmoid(logit)) for logit, flag in zip(row, flags, strict=True)]
        assert each[i].item() == pytest.approx(0.0 if math.isnan(flags[0]) else sum(by_hand) / 3, rel=1e-5)
    assert SEVERAL_LABELS.carries(FLAGS)[:, 0].tolist() == [True, True, False, True], "a text for which no label holds says something"
    assert mean_loss(SEVERAL_LABELS, LOGITS, FLAGS).item() == pytest.approx(each.sum().item() / 3)


def test_several_labels_are_softened_one_by_one() -> None:
    apart = SEVERAL_LABELS.apart(LOGITS, TEACHER, temperature=2.0)[:, 0]
    for i, (mine, its) in enumerate(zip(LOGITS[:, 0].tolist(), TEACHER[:, 0].tolist(), strict=True)):
        pairs = [(sigmoid(a / 2), sigmoid(b / 2)) for a, b in zip(mine, its, strict=True)]
        assert apart[i].item() == pytest.approx(sum(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for q, p in pairs) / 3, rel=1e-4)
    assert SEVERAL_LABELS.apart(TEACHER, TEACHER, temperature=3.0).abs().max() < 1e-6


def test_numbers_are_compared_in_spreads() -> None:
    losses, labels = Numbers(2.0), torch.tensor([[[3.0]], [[math.nan]]])
    assert losses.each(torch.tensor([[[7.0]], [[5.0]]]), labels).tolist() == [[4.0], [0.0]]
    assert losses.carries(labels).tolist() == [[True], [False]]
    for temperature in (1.0, 3.0):
        apart = temperature**2 * losses.apart(torch.tensor([7.0]), torch.tensor([3.0]), temperature=temperature)
        assert apart.item() == pytest.approx(4.0), "nothing is softened about a number"


def test_a_guess_is_what_frequencies_alone_reach() -> None:
    flags = [{"labels": [row]} for row in FLAGS[:, 0].tolist()]
    entropy = [-sum(p * math.log(p) for p in (share, 1 - share)) for share in (2 / 3, 1 / 3, 2 / 3)]
    assert SEVERAL_LABELS.guess(flags) == pytest.approx(sum(entropy) / 3)
    always = SEVERAL_LABELS.guess([{"labels": [[1.0, 0.0]]}, {"labels": [[1.0, 0.0]]}])
    assert always == 0
    numbers = [{"labels": [[value]]} for value in (1.0, 3.0, math.nan)]
    assert Numbers(2.0).guess(numbers) == pytest.approx(np.var([0.5, 1.5]))


def test_the_model_says_which_losses_are_its_own() -> None:
    def info(benchmark: str, **more: object) -> Info:
        return Info(benchmark=benchmark, labels=("a",), max_length=8, **more)  # type: ignore[arg-type]

    assert losses_of(info("text-classification")) is losses_of(info("pair-classification")) is ONE_LABEL
    assert losses_of(info("multi-label-classification")) is SEVERAL_LABELS
    assert losses_of(info("text-regression", standard=(5.0, 3.0))) == Numbers(3.0)
