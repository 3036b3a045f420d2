"""The table of a README: who answered the test split, and who was not asked."""

from __future__ import annotations

from typing import Any

from recompress.records import Evaluation
from recompress.report.readme import table


def row(name: str, accuracy: float, size: float, ratio: float) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "size_bytes": size, "latency_p50_ms": 8 / ratio, "latency_ratio": ratio, "latency_ratio_runtime": max(1, ratio / 2)}
    place = {"predictions_uri": "p", "predictions_sha256": "e" * 64}
    return Evaluation(model=name, model_sha256="a" * 64, dataset_sha256="d" * 64, metrics=metrics, slices={}, machine={}, **place).as_json()


def report(**verdicts: bool) -> dict[str, Any]:
    rows = [row("baseline", 0.9, 80e6, 1), *(row(name, 0.88, 20e6, 4) for name in verdicts)]
    trials = [{"name": name, "size_bytes": 20e6, "latency_ratio": 4.0} for name in (*verdicts, "sparse")]
    judged = {name: {"passed": passed} for name, passed in verdicts.items()}
    return {"metric": "accuracy", "evaluations": rows, "dev": {"trials": trials}, "verdicts": judged, "promotion": {"model": next(iter(verdicts), None)}}


def test_each_model_has_its_line_and_who_was_no_finalist_has_no_figure_of_the_test_split() -> None:
    lines = table(report(int8=True, small=False)).splitlines()
    assert lines[2:] == [
        "| baseline | 90.0 | 80.0 | 1.0 | 8.00 | 1.0 | 1.0 | – |",
        "| int8 | 88.0 | 20.0 | 4.0 | 2.00 | 2.0 | 4.0 | **champion** |",
        "| small | 88.0 | 20.0 | 4.0 | 2.00 | 2.0 | 4.0 | refused |",
        "| sparse | – | 20.0 | 4.0 | – | – | 4.0 | no finalist |",
    ]


def test_nobody_may_have_been_judged() -> None:
    assert table(report()).splitlines()[-1] == "| sparse | – | 20.0 | 4.0 | – | – | 4.0 | no finalist |"
