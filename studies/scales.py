"""What is gained by searching each group's scale instead of taking its range, at the same bytes?

    recompress run recipes/quantization.yaml      (its baseline is what is rounded; another model: --model FOLDER)
    python -m studies.scales --model FOLDER --date 2026-11-30 --machine "2 cores of an Intel Xeon, no GPU"      (about five minutes)

``rtn`` in 2, 3 and 4 bits, groups of 64, with scales of the range and with those of least squared error, each through the runner: the squares that all matrices of
the layers lose, as a share of their own, and the accuracy on the test split. Writes ``studies/results/scales.json`` and ``.md``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from recompress.benchmarks import get_benchmark
from recompress.data.splits import read_split
from recompress.measure.quality import evaluate_quality
from recompress.methods.quantization.closeness import pairs_of
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load
from studies.written import ROOT, Results, parser_of, write

DATA = ROOT / "prepared" / "pydocs"
SEARCHED, RANGE = "mse", "minmax"


def squares_lost(before: Path, after: Path) -> float:
    """Of all matrices of the layers together."""
    lost = whole = 0.0
    for _, weight, module in pairs_of(load(before), load(after)):
        lost += float((weight - module.weight).double().square().sum())
        whole += float(weight.double().square().sum())
    return lost / whole


def measured(model: Path) -> list[dict[str, Any]]:
    learned, judged, asked = (read_split(DATA, split) for split in ("train", "dev", "test"))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        whole = evaluate_quality(model, asked, work / "predictions.parquet").metrics["accuracy"]
        rows.append({"bits": 32, "accuracy": whole, "squares": 0.0})
        for bits in (4, 3, 2):
            for symmetric in (False, True):
                for scales in (RANGE, SEARCHED):
                    dials = {"bits": bits, "group_size": 64, "symmetric": symmetric, "scales": scales}
                    place = work / "-".join(map(str, dials.values()))
                    inputs = Inputs(get_benchmark("text-classification"), learned, judged, 0, work / f"{place.name}-work")
                    run_step("rtn", get_method("rtn").config.model_validate(dials), model, place, inputs)
                    accuracy = evaluate_quality(place, asked, work / "predictions.parquet").metrics["accuracy"]
                    rows.append({**dials, "accuracy": accuracy, "squares": squares_lost(model, place)})
                    print(rows[-1], file=sys.stderr, flush=True)
    return rows


def page(results: Results) -> str:
    whole, *rows = results["rows"]
    by = {(row["bits"], row["symmetric"], row["scales"]): row for row in rows}
    lines = ["# Scales of the range, and searched ones", "", f"`python -m studies.scales --model FOLDER`, {results['date']}, {results['machine']}.", ""]
    lines += [
        f"The baseline of `recipes/quantization.yaml`, seed 0, {100 * whole['accuracy']:.1f} % on 1,605 texts; `rtn`, groups of 64. Squares lost: of those of all"
    ]
    lines += ["matrices of the layers, in %. The same bytes in each line.", ""]
    lines += ["| bits | symmetric | squares lost, range | searched | accuracy, range | searched |", "|---:|---|---:|---:|---:|---:|"]
    for bits, symmetric, _ in list(by)[::2]:
        pair = [by[bits, symmetric, scales] for scales in (RANGE, SEARCHED)]
        cells = [f"{100 * row['squares']:.2f}" for row in pair] + [f"{100 * row['accuracy']:.1f}" for row in pair]
        lines.append(f"| {bits} | {'yes' if symmetric else 'no'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    told = parser.parse_args()
    write("scales", told, {"rows": measured(told.model)}, page)


if __name__ == "__main__":
    main()
