"""How much of what `prune_structure` costs does its repair win back, before any training?

    RECOMPRESS_DATA_MIRROR=/data python -m studies.repair MODELS --date 2026-11-29 --machine "2 cores AMD EPYC, CPU only"    (hours of one core; it goes on where it was)

Baselines are trained as `recipes/pruning.yaml` and `recipes/masakhaner.yaml` say, one for each seed, and kept in MODELS. Each is cut in several ways, and cut
and repaired with the same dials; what the three models score on the test split is the table. Writes ``studies/results/repair.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from recompress.benchmarks import Example, get_benchmark
from recompress.methods.registry import Inputs, get_method
from recompress.models.checkpoint import Checkpoint, load

if TYPE_CHECKING:
    from recompress.records import DatasetRef

RECIPES = {"pydocs": Path("recipes/pruning.yaml"), "masakhaner": Path("recipes/masakhaner.yaml")}
TESTED = {"pydocs": None, "masakhaner": 400}
"""Test examples of each slice, drawn once for all; all of them where nothing is said."""
CUTS: dict[str, dict[str, Any]] = {
    "half of heads and neurons": {"heads": 0.5, "neurons": 0.5},
    "half of the neurons": {"neurons": 0.5},
    "half of the heads": {"heads": 0.5},
    "half of heads and neurons, by magnitude": {"heads": 0.5, "neurons": 0.5, "importance": "magnitude"},
}
NOTES = Path(__file__).parent / "repair_notes.md"
"""What the table means, in words."""
Row = dict[str, Any]


@cache
def dataset_of(data: str) -> DatasetRef:
    from recompress.recipe import read_recipe
    from tasks.data.bring import bring

    choice = read_recipe(RECIPES[data], Path()).recipe.dataset
    return bring(Path(), choice.name, choice.slices).dataset


def baseline(data: str, seed: int, models: Path, at_most: int | None) -> Path:
    """The fine-tuned model of the recipe with this seed, trained where it is not there yet; on ``at_most`` examples of each slice, where that is said."""
    from recompress.data.splits import draw_of_each
    from recompress.models.base import find_base
    from recompress.models.checkpoint import save
    from recompress.models.pretrained import from_base
    from recompress.recipe import read_recipe
    from recompress.training.run import train
    from tasks.data.bring import examples_of

    name = f"{data}-{seed}" if at_most is None else f"{data}-{seed}-{at_most}"
    place = models / name
    if not place.is_dir():
        recipe, dataset = read_recipe(RECIPES[data], Path()).recipe, dataset_of(data)
        base = find_base(recipe.base.model, revision=recipe.base.revision, sha256=recipe.base.sha256, root=Path())
        started = from_base(base, recipe.benchmark, dataset.labels, recipe.baseline.max_length, seed)
        examples = examples_of(dataset, "train")
        examples = examples if at_most is None else draw_of_each(examples, at_most, seed)
        save(train(started, examples, examples_of(dataset, "dev"), recipe.baseline, seed, models / f"{name}-work"), place)
    return place


def score(checkpoint: Checkpoint, examples: Sequence[Example]) -> float:
    """The benchmark's metric, in %."""
    from recompress.measure.quality import predict
    from recompress.runtimes import runtime_of

    info, benchmark = checkpoint.info, get_benchmark(checkpoint.info.benchmark)
    features = benchmark.encode(checkpoint.tokenizer, examples, info.labels, info.max_length)
    answers = [benchmark.decide(row, info.labels) for row in predict(runtime_of(checkpoint, threads=1), benchmark, features)]
    counts = benchmark.counts([example.labels for example in examples], answers, info.labels)
    return 100 * float(benchmark.metrics(counts.sum(axis=0), info.labels)[benchmark.primary])


def cut(source: Path, data: str, seed: int, dials: dict[str, Any]) -> tuple[Checkpoint, float]:
    """The model behind the step, and the step's seconds."""
    from tasks.data.bring import examples_of

    method = get_method("prune_structure")
    checkpoint, began = load(source), time.perf_counter()
    with tempfile.TemporaryDirectory() as workdir:
        examples = (examples_of(dataset_of(data), "train"), examples_of(dataset_of(data), "dev"))
        inputs = Inputs(get_benchmark(checkpoint.info.benchmark), *examples, seed, Path(workdir))
        return method.run(checkpoint, method.config.model_validate(dials), inputs), time.perf_counter() - began


def measure(data: str, seed: int, models: Path, rows: dict[str, Row], given: argparse.Namespace) -> None:
    """Fill in what is missing of one baseline's rows, one after another."""
    from recompress.data.splits import draw_of_each
    from tasks.data.bring import examples_of

    at_most = given.train_examples if data == "masakhaner" else None
    source = baseline(data, seed, models, at_most)
    tested = examples_of(dataset_of(data), "test")
    tested = tested if TESTED[data] is None else draw_of_each(tested, TESTED[data], 0)
    for name, dials in CUTS.items():
        if given.cut and name not in given.cut:
            continue
        key = f"{data} | {seed} | {name}"
        if key in rows:
            continue
        dense = next((row["dense"] for row in rows.values() if (row["data"], row["seed"]) == (data, seed)), None)
        row = {"data": data, "seed": seed, "cut": name, "dials": dials, "examples": len(tested), "trained_on_each": at_most}
        row |= {"dense": dense if dense is not None else score(load(source), tested)}
        row |= {"alone": score(cut(source, data, seed, dials)[0], tested)}
        repaired, seconds = cut(source, data, seed, {**dials, "repair": True})
        row |= {"repaired": score(repaired, tested), "seconds": round(seconds, 1)}
        rows[key] = row
        print(key, row["dense"], row["alone"], row["repaired"], row["seconds"], file=sys.stderr, flush=True)
        write(rows, given)


def won_back(row: Row) -> float:
    """Of what the cut loses, the share that is there again."""
    return float((row["repaired"] - row["alone"]) / (row["dense"] - row["alone"]))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and the lowest and highest value."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# What repair wins back before any training", "", f"`{result['command']}`", ""]
    lines += [f"{result['date']}, {result['machine']}. {result['versions']}", ""]
    lines += [
        "Accuracy (pydocs) and entity F1 (MasakhaNER: Swahili, Yorùbá, Hausa) on the test split, in %: mean, lowest and highest over the seeds. Won back:"
    ]
    lines += ["of the points that the cut loses, the share that the same cut with `repair: true` does not.", ""]
    for data in dict.fromkeys(row["data"] for row in result["rows"].values()):
        rows = [row for row in result["rows"].values() if row["data"] == data]
        seeds = sorted({row["seed"] for row in rows})
        learned = ", ".join(sorted({f"{row['trained_on_each']:,} of each language" if row["trained_on_each"] else "all" for row in rows}))
        lines += [
            f"## {data}, {rows[0]['examples']:,} test examples, seeds {', '.join(map(str, seeds))}; baselines from {learned} of the training examples",
            "",
        ]
        lines += ["| cut | whole | cut | repaired | points won back | share won back, % |", "|---|---|---|---|---|---|"]
        for name in dict.fromkeys(row["cut"] for row in rows):
            these = [row for row in rows if row["cut"] == name]
            scores = [spread([row[which] for row in these]) for which in ("dense", "alone", "repaired")]
            points = spread([row["repaired"] - row["alone"] for row in these])
            lines.append(f"| {' | '.join([name, *scores, points, spread([100 * won_back(row) for row in these], 0)])} |")
        lines.append("")
    return "\n".join(lines) + (NOTES.read_text(encoding="utf-8") if NOTES.is_file() else "")


def write(rows: dict[str, Row], given: argparse.Namespace) -> None:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    few = f" --train-examples {given.train_examples}" if given.train_examples else ""
    result = {"command": f"python -m studies.repair MODELS{few}", "date": given.date, "machine": given.machine, "versions": f"{versions}, one thread"}
    result |= {"rows": dict(sorted(rows.items(), key=lambda item: (list(RECIPES).index(item[1]["data"]), list(CUTS).index(item[1]["cut"]), item[1]["seed"])))}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "repair.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.out / "repair.md").write_text(as_markdown(result), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", choices=RECIPES, action="append", help="both when left out")
    parser.add_argument("--cut", choices=CUTS, action="append", help="all when left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-examples", type=int, help="sentences of each language that MasakhaNER's baseline learns from; all when left out")
    parser.add_argument("--train", action="store_true", help="train the baselines and measure nothing")
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    place = given.out / "repair.json"
    rows: dict[str, Row] = json.loads(place.read_text(encoding="utf-8"))["rows"] if place.is_file() else {}
    for seed in given.seeds:
        for data in given.data or RECIPES:
            if given.train:
                print(baseline(data, seed, given.models, given.train_examples if data == "masakhaner" else None), flush=True)
            else:
                measure(data, seed, given.models, rows, given)
    write(rows, given)


if __name__ == "__main__":
    main()
