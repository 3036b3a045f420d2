"""The table and the picture that a README shows, made from a page's JSON: ``python -m recompress.report.readme reports/quickstart.json docs/quickstart.svg``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recompress.records import Evaluation
from recompress.report.figures import metric as shown
from recompress.report.figures import metric_name
from recompress.report.page import pictures


def table(report: dict[str, Any]) -> str:
    """The models of one recompression as a Markdown table, faster than the baseline in the same runtime and than in torch: those that answered the test split, then variants that were no finalists, which have no figure there."""
    rows = [Evaluation.model_validate(row) for row in report["evaluations"]]
    metric, base = report["metric"], rows[0].metrics
    lines = [f"| model | {metric_name(metric)} | MB | × smaller | p50 ms | × faster | × torch | verdict |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        m = row.metrics
        cells = (
            shown(m[metric], metric),
            *_size(m["size_bytes"], base),
            f"{m['latency_p50_ms']:.2f}",
            f"{m.get('latency_ratio_runtime', m['latency_ratio']):.1f}",
            f"{m['latency_ratio']:.1f}",
            _outcome(report, row.model),
        )
        lines.append(f"| {row.model} | {' | '.join(cells)} |")
    for trial in report["dev"]["trials"]:
        if trial["name"] not in {row.model for row in rows}:
            cells = ("–", *_size(trial["size_bytes"], base), "–", "–", f"{trial['latency_ratio']:.1f}", "no finalist")
            lines.append(f"| {trial['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _size(size_bytes: float, base: Mapping[str, float]) -> tuple[str, str]:
    return f"{size_bytes / 1e6:.1f}", f"{base['size_bytes'] / size_bytes:.1f}"


def _outcome(report: dict[str, Any], model: str) -> str:
    verdict = report["verdicts"].get(model)
    if verdict is None:
        return "–"
    return "**champion**" if model == report["promotion"]["model"] else "passed" if verdict["passed"] else "refused"


def main(source: str, picture: str) -> None:
    """Print the table; write size against quality as SVG on a plain ground, which reads on light and dark pages."""
    report = json.loads(Path(source).read_text(encoding="utf-8"))
    rows = [Evaluation.model_validate(row) for row in report["evaluations"]]
    drawn = pictures(rows, report["metric"], report["promotion"]["model"])[0]["light"].replace("<svg ", '<svg style="background:#ffffff" ', 1)
    Path(picture).write_text(drawn, encoding="utf-8")
    sys.stdout.write(table(report) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
