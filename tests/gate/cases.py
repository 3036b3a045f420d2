"""A candidate that passes every check of the gate, to be spoiled in one way at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recompress.benchmarks.text_classification import TextClassification
from recompress.gate import Expected, Measured, judge
from recompress.policy import Policy
from recompress.records import Evaluation, Look, Verdict

SPEED = {
    "latency_ratio": 7.0,
    "latency_ratio_runtime": 3.0,
    "latency_p95_ms": 12.0,
    "throughput_per_s": 150.0,
    "peak_memory_bytes": 300e6,
    "steady_memory_bytes": 200e6,
}
WORKED = {
    "latency_ratio": "processor_ratio",
    "latency_ratio_runtime": "processor_ratio_runtime",
    "latency_p95_ms": "processor_p95_ms",
    "throughput_per_s": "processor_per_s",
}
ROUNDS = 8
IDLE = {"processor_share": 1.0, "steal_share": 0.0, "switches_per_s": 1.0}
MACHINE = {"processor": "made up", "cores": "2"}
LABELS = ("food", "sport", "work")
SLICES = ("hau", "swa")
COUNT = 800
ACCEPTED, CANDIDATE, BASELINE, CHAMPION, DATASET, PREDICTIONS, SPLIT = ("f" * 64, "c" * 64, "b" * 64, "a" * 64, "d" * 64, "e" * 64, "7" * 64)
ALPHA = 1 - 0.95
"""As the policy says it, to the last digit."""
DIALS: dict[str, Any] = {
    "metric": "accuracy",
    "at_least": 0.8,
    "baseline": {"margin": 0.05, "slices": {"hau": 0.08, "swa": 0.08}},
    "champion": {"margin": 0.05, "slices": {"hau": 0.08, "swa": 0.08}},
    "loss_budget": 0.1,
    "draws": 1000,
    "min_examples": {"overall": 500, "per_slice": 200},
    "limits": {
        "size_bytes": 30_000_000,
        "times_smaller": 3.5,
        "times_faster": 1.5,
        "peak_memory_bytes": 500_000_000,
        "steady_memory_bytes": 400_000_000,
        "latency_p95_ms": 20.0,
        "throughput_per_s": 100.0,
        "machine": {"processor": "made up"},
    },
    "choose": "smallest",
}


def scores(totals: np.ndarray) -> Mapping[str, np.ndarray]:
    return TextClassification().metrics(totals, LABELS)


def policy(**changes: Any) -> Policy:
    return Policy.model_validate(DIALS | changes)


def references(count: int = COUNT) -> list[tuple[str]]:
    return [(LABELS[i % 3],) for i in range(count)]


def measured(name: str, sha256: str, wrong: set[int], *, count: int = COUNT, **metrics: float) -> Measured:
    """A model that answers everything right but the examples in ``wrong``."""
    true = references(count)
    predicted = [(LABELS[(i + (i in wrong)) % 3],) for i in range(count)]
    counts = TextClassification().counts(true, predicted, LABELS)
    speed = {"size_bytes": 20e6, **SPEED} | metrics
    quality = {metric: float(value) for metric, value in scores(counts.sum(axis=0)).items()}
    evaluation = Evaluation(
        model=name,
        model_sha256=sha256,
        dataset_sha256=DATASET,
        metrics=quality | speed,
        slices={},
        predictions_sha256=PREDICTIONS,
        machine=MACHINE,
        load=IDLE,
        rounds={key: (speed[key],) * ROUNDS for key in SPEED} | {also: (speed[key],) * ROUNDS for key, also in WORKED.items()},
    )
    return Measured(evaluation, [f"t{i}" for i in range(count)], [SLICES[i * 2 // count] for i in range(count)], true, counts)


def case(**changes: Any) -> dict[str, Any]:
    """Keyword arguments of ``judge`` for a candidate that passes: it has 100 of 800 wrong, the baseline 96 of the same and 2 others."""
    rules = changes.pop("policy", policy())
    given: dict[str, Any] = {
        "policy": rules,
        "scores": scores,
        "candidate": measured("small", CANDIDATE, set(range(0, 800, 8))),
        "baseline": measured("baseline", BASELINE, set(range(0, 768, 8)) | {3, 777}, size_bytes=90e6, latency_ratio=1.0, latency_ratio_runtime=1.0),
        "champion": measured("champion", CHAMPION, set(range(0, 800, 8)) - {0, 400} | {5}),
        "accepted_baseline": measured("accepted", ACCEPTED, set(range(0, 768, 8)) | {3}),
        "spent_loss": 0.01,
        "expected": expected(rules),
        "look": look(),
    }
    return given | changes


def expected(rules: Policy, **changes: Any) -> Expected:
    usual: dict[str, Any] = {
        "accepted_baseline_sha256": ACCEPTED,
        "baseline_accepted_by": "",
        "dataset_sha256": DATASET,
        "examples": COUNT,
        "candidate_sha256": CANDIDATE,
        "baseline_sha256": BASELINE,
        "champion_sha256": CHAMPION,
        "split_sha256": SPLIT,
        "finalists": (CANDIDATE,),
    }
    return Expected.model_validate({"policy_sha256": rules.sha256} | usual | changes)


def look(**changes: Any) -> Look:
    """One look that has the whole budget for itself, as the gate judged before there were others."""
    usual = {"key": "9" * 64, "model": "ner", "split": SPLIT, "candidate_sha256": CANDIDATE, "number": 1, "steps": {"first": 1, "others": 1}}
    return Look.model_validate(usual | {"budget": ALPHA, "level": ALPHA} | changes)


def verdict(**changes: Any) -> Verdict:
    given = case(**changes)
    return judge(given.pop("policy"), given.pop("scores"), **given)
