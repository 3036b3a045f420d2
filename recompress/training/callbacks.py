"""What looks on while ``Trainer`` works: checkpoints in good time, an early end, the progress bar and the curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from recompress.progress import bar


def step_at(share: float, steps: int) -> int:
    """The step that ends this share of all ``steps``, rounded up: one of 0 to ``steps``."""
    return min(steps, math.ceil(share * steps - 1e-9))


class SaveInTime(TrainerCallback):  # type: ignore[misc]
    """Ask for a checkpoint in the middle of a long epoch. When it is written changes nothing but how much a kill costs."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        at_its_end = float(state.epoch).is_integer()  # the epoch is judged first, and then kept with its score
        if time.monotonic() - self.last >= self.seconds and not at_its_end:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.last = time.monotonic()


class StopEarly(TrainerCallback):  # type: ignore[misc]
    """Stop when ``metric`` has not risen for ``patience`` evaluations, of which those before ``counts_from`` (a share of all steps) do not count.

    Reads the history alone, so that a resumed training stops where it would have.
    """

    def __init__(self, metric: str, patience: int, counts_from: float = 0.0) -> None:
        self.metric = metric
        self.patience = patience
        self.counts_from = counts_from

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.is_reached(state.log_history, state.max_steps):
            control.should_training_stop = True

    def is_reached(self, history: Sequence[dict[str, float]], steps: int) -> bool:
        values = [entry[self.metric] for entry in history if self.metric in entry and entry["step"] >= step_at(self.counts_from, steps)]
        best = max(range(len(values)), key=lambda i: -math.inf if math.isnan(values[i]) else values[i], default=0)
        return len(values) - 1 - best >= self.patience


class Watch(TrainerCallback):  # type: ignore[misc]
    """The progress bar, and the curves for whoever asked for them."""

    def __init__(self, label: str, curve: Callable[[int, dict[str, float]], None] | None) -> None:
        self.label = label
        self.curve = curve
        self.bar: Any = None
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = bar(self.label, state.max_steps, "step", start=state.global_step, shown=state.is_world_process_zero)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        point = curve_point(logs or {})
        self.shown |= {name: f"{point[name]:.3g}" for name in point if name == "loss" or name == args.metric_for_best_model.replace("eval_", "dev_")}
        self.bar.set_postfix(self.shown, refresh=False)
        if point and self.curve is not None and state.is_world_process_zero:
            self.curve(state.global_step, point)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def curve_point(logs: dict[str, float]) -> dict[str, float]:
    """What belongs into a curve, by the names of this project: ``loss``, ``learning_rate``, ``gradient_norm``, ``dev_loss``, ``dev_f1`` …; NaN is left out."""
    names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "gradient_norm"}
    timings = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    names |= {name: f"dev_{name.removeprefix('eval_')}" for name in logs if name.startswith("eval_") and name not in timings}
    return {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in logs and math.isfinite(logs[theirs])}
