"""The table and the picture that a README shows, made from a page's JSON: ``python -m recompress.report.readme reports/quickstart.json docs/quickstart.svg``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from recompress.records import Evaluation
from recompress.report.page import pictures


def table(report: dict[str, Any]) -> str:
    """The models of one recompression as a Markdown table."""
    rows = [Evaluation.model_validate(row) for row in report["evaluations"]]
    metric = next(iter(report["verdicts"].values()))["metric"]
    base = rows[0].metrics
    lines = [f"| model | {metric} | MB | × smaller | p50 ms | × faster | verdict |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        m = row.metrics
        verdict = report["verdicts"].get(row.model)
        outcome = "–" if verdict is None else "**champion**" if row.model == report["promotion"]["model"] else "passed" if verdict["passed"] else "refused"
        lines.append(
            f"| {row.model} | {100 * m[metric]:.1f} | {m['size_bytes'] / 1e6:.1f} | {base['size_bytes'] / m['size_bytes']:.1f} | {m['latency_p50_ms']:.2f} | {m['latency_ratio']:.1f} | {outcome} |"
        )
    return "\n".join(lines)


def main(source: str, picture: str) -> None:
    """Print the table; write size against quality as SVG on a plain ground, which reads on light and dark pages."""
    report = json.loads(Path(source).read_text(encoding="utf-8"))
    rows = [Evaluation.model_validate(row) for row in report["evaluations"]]
    metric = next(iter(report["verdicts"].values()))["metric"]
    drawn = pictures(rows, metric, report["promotion"]["model"])[0]["light"].replace("<svg ", '<svg style="background:#ffffff" ', 1)
    Path(picture).write_text(drawn, encoding="utf-8")
    sys.stdout.write(table(report) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
