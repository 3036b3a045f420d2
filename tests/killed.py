"""Trainings that end in the middle, as they do when their process is killed, without the seconds that a process of its own takes."""

from __future__ import annotations

from typing import Any

import pytest


class Killed(BaseException):
    """No ``except Exception`` catches it."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, save_each: bool = True) -> None:
    """Let the training step ``number`` of those that are taken from now on (the first is 0) never happen; a checkpoint is kept after each step before it."""
    from recompress.training import run, trainer

    step, taken = trainer.SteadyTrainer.training_step, []

    def count(self: Any, *rest: Any, **named: Any) -> Any:
        if len(taken) == number:
            raise Killed
        taken.append(1)
        return step(self, *rest, **named)

    monkeypatch.setattr(trainer.SteadyTrainer, "training_step", count)
    if save_each:
        usual = trainer.SteadyTrainer.__init__
        monkeypatch.setattr(trainer.SteadyTrainer, "__init__", lambda self, *rest, **named: usual(self, *rest, **{**named, "minutes": 0.0}))
    assert run.CHECKPOINT_MINUTES > 0
