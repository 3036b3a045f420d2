"""The page of one recompression: one HTML file that opens anywhere, offline, with nothing outside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recompress.records import Evaluation, Selection, Verdict
from recompress.report.figures import MB, axis_name, change, change_name, megabytes, metric, metric_name, number
from recompress.report.plots import Point, trade_off

COMPARED = {
    f"{begins}latency_ratio{end}": f"{where}, {caches}"
    for begins, caches in (("", "hot"), ("cold_", "cold"))
    for end, where in (("_runtime", "same runtime"), ("", "torch"), ("_onnx", "ONNX Runtime"))
}
"""Every way in which a model is so many times as fast, as the page calls it."""
WRITES = {"decode_ratio_runtime": "× same runtime", "decode_ratio": "× torch"}
"""The same of a model that writes."""
TEMPLATE = Path(__file__).with_name("page.html")


def page(
    *,
    title: str,
    summary: str,
    primary: str,
    evaluations: Sequence[Evaluation],
    selection: Selection,
    looks: Mapping[str, Any],
    verdicts: Mapping[str, Verdict],
    winner: str | None,
    facts: Mapping[str, Mapping[str, Any]],
    steps: Mapping[str, Sequence[Mapping[str, Any]]],
    recipe_text: str,
    speeds: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> str:
    """The page's HTML. ``speeds`` are each model's ratios of latencies with their lower bounds; ``selection`` is what dev said of every variant, ``looks`` what is left of the test split; ``facts`` are tables of name and value (data, base, promotion, machine …); ``steps`` are the steps of each variant with their claims."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "metric": metric,
        "change": change,
        "megabytes": megabytes,
        "number": number,
        "metric_name": metric_name,
        "change_name": change_name,
    }
    return environment.get_template(TEMPLATE.name).render(
        title=title,
        summary=summary,
        primary=primary,
        rows=[table_row(e, evaluations[0], primary, winner, verdicts) for e in evaluations],
        slices=sorted({name for e in evaluations for name in e.slices}),
        types=sorted({name for e in evaluations for name in e.types}),
        evaluations=evaluations,
        selection=selection,
        looks=looks,
        verdicts=verdicts,
        winner=winner,
        pictures=pictures(evaluations, primary, winner),
        facts=facts,
        steps=steps,
        recipe_text=recipe_text,
        speeds=speeds or {},
        compared=COMPARED,
        writes=WRITES,
    )


def table_row(evaluation: Evaluation, baseline: Evaluation, primary: str, winner: str | None, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """One line of the table. Ratios are the baseline's value divided by this model's: more is better."""
    metrics, base = evaluation.metrics, baseline.metrics
    verdict = verdicts.get(evaluation.model)
    return {
        "name": evaluation.model,
        "quality": metrics.get(primary),
        "change": metrics[primary] - base[primary] if primary in metrics and primary in base else None,
        "size_bytes": metrics.get("size_bytes"),
        "smaller": base["size_bytes"] / metrics["size_bytes"] if metrics.get("size_bytes") else None,
        "parameters": metrics.get("parameters"),
        "latency_p50_ms": metrics.get("latency_p50_ms"),
        "latency_p95_ms": metrics.get("latency_p95_ms"),
        "faster": metrics.get("latency_ratio_runtime", metrics.get("latency_ratio")),
        "throughput": metrics.get("throughput_per_s"),
        "peak_memory_bytes": metrics.get("peak_memory_bytes"),
        "steady_memory_bytes": metrics.get("steady_memory_bytes"),
        "verdict": ("baseline" if evaluation is baseline or evaluation.model == baseline.model else "compared")
        if verdict is None
        else "champion"
        if evaluation.model == winner
        else "passed"
        if verdict.passed
        else "refused",
    }


def pictures(evaluations: Sequence[Evaluation], primary: str, winner: str | None) -> list[dict[str, str]]:
    """Size against quality and latency against quality, each in both themes; a model without one of the two numbers is left out of that picture."""
    wanted = (("size_bytes", 1 / MB, "size on disk, MB (log)"), ("latency_p50_ms", 1.0, "latency at batch 1, ms (log)"))
    drawn = []
    for key, scale, label in wanted:
        points = [
            Point(e.model, e.metrics[key] * scale, e.metrics[primary], "baseline" if e is evaluations[0] else "winner" if e.model == winner else "point")
            for e in evaluations
            if e.metrics.get(key) and primary in e.metrics
        ]
        drawn.append({theme: trade_off(points, x=label, y=axis_name(primary), theme=theme) for theme in ("light", "dark")} | {"label": label})
    return drawn
