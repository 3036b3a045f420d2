"""One composed recipe on three data sets: what it keeps, what it saves, and what the same further training gives the whole model.

    RECOMPRESS_DATA_MIRROR=/data python -m studies.tenfold MODELS --date 2026-12-01 --machine "2 cores of an AMD EPYC"       (an hour and a half for each seed; it goes on where it was)

The steps are those of ``recipes/tenfold.yaml``; how they were chosen stands in ``studies/tenfold_notes.md``. Each seed trains a baseline, with the schedule of the data's
recipe, and the small model from it; both answer the whole test split, and are timed beside each other (text by text, one thread, the baseline as an ONNX graph
in full precision and in torch). Beside them stands the whole model behind the training that the student had, from the same labels and as many passes: what the
small model loses to it is the price of being small, what both gain over the baseline is the price of a short training. Models stay in MODELS. Writes
``studies/results/tenfold.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from recompress.benchmarks import get_benchmark
from recompress.integrity.digest import sha256_json
from recompress.measure.quality import evaluate_quality
from recompress.measure.size import size_bytes
from recompress.measure.speed import measure_rounds
from recompress.methods.distillation.teacher import teacher_outputs
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.base import find_base
from recompress.models.checkpoint import save
from recompress.models.pretrained import from_base
from recompress.recipe import BaselineChoice, read_recipe
from recompress.training.run import train
from studies.written import RESULTS, ROOT, Results, parser_of, write

RECIPE = Path("recipes/tenfold.yaml")
NOTES = Path(__file__).parent / "tenfold_notes.md"
"""What was tried before, in words."""
Steps = Sequence[tuple[str, dict[str, Any]]]


class Data(NamedTuple):
    """A prepared data set, and how its baseline learns."""

    benchmark: str
    slices: tuple[str, ...] | None
    schedule: dict[str, Any]


DATA = {
    "pydocs": Data("text-classification", None, {"epochs": 2, "learning_rate": 2e-4, "batch_size": 32, "max_length": 64}),
    "masakhaner2": Data("token-classification", ("swa", "yor", "hau"), {"epochs": 1, "learning_rate": 2e-4, "batch_size": 32, "max_length": 128}),
    "afrisenti": Data("text-classification", ("hau", "pcm", "swa", "yor"), {"epochs": 2, "learning_rate": 2e-4, "batch_size": 32, "max_length": 64}),
}
WANTED = 0.97
"""Of the baseline's quality, at a tenth of its bytes and of its time."""
TIMED = 200
"""Texts that are timed, the first of the test split."""


def prepared(name: str) -> Any:
    from tasks.data.bring import bring

    return bring(ROOT, name, DATA[name].slices).dataset


def baseline(name: str, seed: int, models: Path) -> Path:
    """The fine-tuned model, trained where it is not there yet."""
    from tasks.data.bring import examples_of

    place, dataset, about = models / f"{name}-{seed}", prepared(name), DATA[name]
    if not place.is_dir():
        base = read_recipe(RECIPE, ROOT).recipe.base
        directory = find_base(base.model, sha256=base.sha256, root=ROOT)
        started = from_base(directory, about.benchmark, dataset.labels, about.schedule["max_length"], seed)
        schedule = BaselineChoice(**about.schedule)
        save(train(started, examples_of(dataset, "train"), examples_of(dataset, "dev"), schedule, seed, Path(f"{place}-work")), place)
    return place


def made(name: str, seed: int, steps: Steps, source: Path, models: Path) -> tuple[Path, float]:
    """What the steps make of the baseline, and the minutes of the processor that they took, now or when they were made."""
    from tasks.data.bring import examples_of

    dataset = prepared(name)
    learned, judged, place, minutes = examples_of(dataset, "train"), examples_of(dataset, "dev"), source, 0.0
    for method, dials in steps:
        target = models / f"{name}-{seed}-{sha256_json([place.name, method, dials])[:12]}"
        taken = Path(f"{target}.seconds")
        if not target.is_dir():
            begun = time.process_time()
            teacher = teacher_outputs(source, learned, Path(f"{source}-answers")) if method == "distill" else None
            inputs = Inputs(get_benchmark(DATA[name].benchmark), learned, judged, seed, Path(f"{target}-work"), teacher=teacher, teacher_model=source)
            run_step(method, get_method(method).config(**dials), place, target, inputs)
            taken.write_text(str(time.process_time() - begun))
        minutes += float(taken.read_text()) / 60
        place = target
    return place, minutes


def quality(model: Path, name: str) -> dict[str, float]:
    """Of the test split and of each slice of it, in %."""
    from tasks.data.bring import examples_of

    kept = Path(f"{model}.json")
    if not kept.is_file():
        primary = get_benchmark(DATA[name].benchmark).primary
        found = evaluate_quality(model, examples_of(prepared(name), "test"), Path(f"{model}.parquet"))
        slices = found.slices if len(found.slices) > 1 else {}
        kept.write_text(json.dumps({"all": 100 * found.metrics[primary]} | {each: 100 * metrics[primary] for each, metrics in slices.items()}))
    return dict(json.loads(kept.read_text()))


def times_faster(row: Results, models: Path) -> dict[str, float]:
    """Beside the baseline in torch, and as a graph in full precision."""
    from tasks.data.bring import examples_of

    name, seed = row["data"], row["seed"]
    source, model = baseline(name, seed, models), models / row["model"]
    texts = examples_of(prepared(name), "test")[:TIMED]
    floats, _ = made(name, seed, [("onnx_fp32", {})], source, models)
    with tempfile.TemporaryDirectory() as folder:
        [found] = measure_rounds([model], source, texts, Path(folder), others={"onnx": floats})
    return {"torch": found.metrics["latency_ratio"], "onnx": found.metrics["latency_ratio_onnx"]}


def one(name: str, seed: int, steps: Steps, models: Path) -> Results:
    source = baseline(name, seed, models)
    small, minutes = made(name, seed, steps, source, models)
    row = {"data": name, "seed": seed, "minutes": minutes, "times_smaller": size_bytes(source) / size_bytes(small), "bytes": size_bytes(small)}
    return row | {"model": small.name} | {which: quality(model, name) for which, model in (("baseline", source), ("small", small))}


def as_long_trained(row: Results, steps: Steps, models: Path) -> dict[str, float]:
    """Quality of the whole model in 8 bits, after as many further passes over the labels as the student had."""
    name, seed = row["data"], row["seed"]
    [passes] = [dials["epochs"] for method, dials in steps if method == "distill"]
    whole = [("finetune", {"epochs": passes, "learning_rate": 2e-4}), ("dynamic_int8", {})]
    return quality(made(name, seed, whole, baseline(name, seed, models), models)[0], name)


def remember(steps: Steps, rows: list[Results]) -> None:
    print(rows[-1], file=sys.stderr, flush=True)
    (RESULTS / "tenfold.json").write_text(json.dumps({"steps": steps, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def spread(values: Sequence[float], digits: int = 1) -> str:
    return "–" if not values else f"{mean(values):.{digits}f}" + (f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else "")


def page(results: Results) -> str:
    lines = ["# One composed recipe on three data sets", "", "`python -m studies.tenfold MODELS`", "", f"{results['date']}, {results['machine']}.", ""]
    lines += [f"The steps: {', '.join(f'`{method}: {json.dumps(dials)}`' for method, dials in results['steps'])}.", ""]
    lines += [
        "Accuracy (pydocs, AfriSenti) and entity F1 (MasakhaNER) on the whole test split, in %; times faster text by text on one thread. Trained on: the whole model in 8 bits,",
        "after as many further passes over the same labels as the small one had. Minutes: of the processor, for all steps. Mean, and the lowest and highest of the seeds.",
        "",
        "| data | seeds | baseline | small | keeps, % | keeps in the worst slice, % | trained on | x smaller | x faster than torch | x faster than ONNX Runtime | minutes | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name in DATA:
        rows = [row for row in results["rows"] if row["data"] == name]
        if not rows:
            continue
        shares = [{each: 100 * row["small"][each] / row["baseline"][each] for each in row["baseline"]} for row in rows]
        kept, worst = [share["all"] for share in shares], [min(share.values()) for share in shares]
        faster = [[row["times_faster"][what] for row in rows if "times_faster" in row] for what in ("torch", "onnx")]
        smaller = [row["times_smaller"] for row in rows]
        reached = mean(kept) >= 100 * WANTED and all(values and mean(values) >= 10 for values in (smaller, faster[1]))
        scores = [spread([row[which]["all"] for row in rows]) for which in ("baseline", "small")]
        cells = [
            f"{len(rows)}",
            *scores,
            spread(kept),
            spread(worst),
            spread([row["whole"]["all"] for row in rows if "whole" in row]),
            spread([row["times_smaller"] for row in rows]),
        ]
        cells += [*map(spread, faster), spread([row["minutes"] for row in rows], 0), f"{'' if reached else 'not '}97 % at 10 x and 10 x"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + NOTES.read_text(encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", choices=DATA, action="append", help="all three when left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--alone", action="store_true", help="train no whole model beside it yet")
    parser.add_argument("--untimed", action="store_true", help="time nothing yet: other work runs on this machine")
    return parser.parse_args()


def main() -> None:
    import torch

    torch.set_num_threads(1)
    told = arguments()
    told.models.mkdir(parents=True, exist_ok=True)
    [chain] = read_recipe(RECIPE, ROOT).steps.values()
    steps = [(step.method, step.config.model_dump(mode="json", exclude_unset=True)) for step in chain]
    there = RESULTS / "tenfold.json"
    kept = json.loads(there.read_text(encoding="utf-8")) if there.is_file() else {}
    rows = kept.get("rows", []) if kept.get("steps") == [list(step) for step in steps] else []
    for name in told.data or DATA:
        for seed in told.seeds:
            if not any((row["data"], row["seed"]) == (name, seed) for row in rows):
                rows.append(one(name, seed, steps, told.models))
                remember(steps, rows)
    for row in () if told.alone else rows:
        if "whole" not in row:
            row["whole"] = as_long_trained(row, steps, told.models)
            remember(steps, rows)
    for row in () if told.untimed else rows:
        if "times_faster" not in row:
            row["times_faster"] = times_faster(row, told.models)
            remember(steps, rows)
    write("tenfold", told, {"steps": steps, "rows": rows}, page)


if __name__ == "__main__":
    main()
