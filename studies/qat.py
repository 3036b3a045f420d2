"""Does training with the rounding of the int8 graph win quality at equal bytes?

    python -m studies.qat MODELS --date 2026-11-29 --machine "2 cores AMD EPYC, CPU only"       (about an hour and a half; data as a recipe needs it)

Each seed trains a recipe's baseline, and from it models whose file is an int8 graph of the same bytes: rounded after training (``dynamic_int8``, ``static_int8``),
trained for one more epoch and then rounded, and trained for one epoch with the rounding in place (``qat_int8``), from the labels alone and from labels
and the baseline's answers. All further training has one schedule, so that what a longer training wins is told from what the rounding in training wins. The same once more with
weights in 7 bits and one scale for a matrix, as processors without VNNI need and per_channel: false gives, where rounding costs more.

Models stay in MODELS, and what is there is not trained again. Writes ``studies/results/qat.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
from pathlib import Path
from statistics import mean, stdev
from typing import Any

SCHEDULE = {"epochs": 1, "learning_rate": 5e-5, "precision": "fp32"}
COARSE = {"reduce_range": True, "per_channel": False}
FINE = {"reduce_range": False}
Steps = list[tuple[str, dict[str, Any]]]


def ladder(dials: dict[str, Any]) -> dict[str, Steps]:
    """The int8 models of one setting."""
    return {
        "dynamic_int8": [("dynamic_int8", dials)],
        "static_int8": [("static_int8", dials)],
        "finetune, dynamic_int8": [("finetune", SCHEDULE), ("dynamic_int8", dials)],
        "qat_int8, labels": [("qat_int8", dials | SCHEDULE | {"hard_labels": 1.0})],
        "qat_int8, both": [("qat_int8", dials | SCHEDULE | {"hard_labels": 0.5})],
    }


MODELS = {"8 bits, a scale for each output": ladder(FINE), "7 bits, a scale for each matrix": ladder(COARSE)}


def baseline(recipe: Any, dataset: Any, seed: int, place: Path) -> Path:
    """The recipe's fine-tuned model with this seed, trained where it is not there yet."""
    from recompress.models.base import find_base
    from recompress.models.checkpoint import save
    from recompress.models.pretrained import from_base
    from recompress.training.run import train
    from tasks.data.bring import examples_of

    if not place.is_dir():
        base = find_base(recipe.base.model, revision=recipe.base.revision, sha256=recipe.base.sha256, root=Path())
        started = from_base(base, recipe.benchmark, dataset.labels, recipe.baseline.max_length, seed)
        save(train(started, examples_of(dataset, "train"), examples_of(dataset, "dev"), recipe.baseline, seed, Path(f"{place}-work")), place)
    return place


def made(source: Path, steps: Steps, dataset: Any, benchmark: str, seed: int, models: Path, count: int) -> Path:
    """The model after ``steps``, each step made where it is not there yet, with ``count`` of the training texts."""
    from recompress.benchmarks import get_benchmark
    from recompress.methods.distillation.teacher import teacher_outputs
    from recompress.methods.registry import Inputs, get_method
    from recompress.methods.runner import run_step
    from tasks.data.bring import examples_of

    train_rows, dev_rows = examples_of(dataset, "train"), examples_of(dataset, "dev")
    train_rows = random.Random(seed).sample(train_rows, min(count, len(train_rows)))
    teacher, place = teacher_outputs(source, train_rows, Path(f"{source}-{len(train_rows)}-answers")), source
    for name, dials in steps:
        said = "-".join(f"{key}={value}" for key, value in dials.items())
        target = models / f"{place.name}-{name}-{len(train_rows)}-{said}"
        if not target.is_dir():
            inputs = Inputs(get_benchmark(benchmark), train_rows, dev_rows, seed, Path(f"{target}-work"), teacher=teacher)
            run_step(name, get_method(name).config(**dials), place, target, inputs)
        place = target
    return place


def measure(directory: Path, dataset: Any, metric: str) -> dict[str, float]:
    """Quality on test and the bytes of the weights."""
    from recompress.measure.quality import evaluate_quality
    from tasks.data.bring import examples_of

    kept = Path(f"{directory}.json")
    if not kept.is_file():
        quality = evaluate_quality(directory, examples_of(dataset, "test"), Path(f"{directory}.parquet"))
        size = sum(file.stat().st_size for file in directory.glob("model.*"))
        kept.write_text(json.dumps({"quality": quality.metrics[metric], "bytes": size}))
    return dict(json.loads(kept.read_text()))


def run(recipe_path: Path, seeds: list[int], models: Path, settings: list[str], count: int) -> list[dict[str, Any]]:
    from recompress.benchmarks import get_benchmark
    from recompress.recipe import read_recipe
    from tasks.data.bring import bring

    recipe = read_recipe(recipe_path, Path()).recipe
    dataset = bring(Path(), recipe.dataset.name, recipe.dataset.slices).dataset
    metric = get_benchmark(recipe.benchmark).primary
    rows = []
    for seed in seeds:
        source = baseline(recipe, dataset, seed, models / f"{recipe.dataset.name}-{seed}")
        rows.append({"data": recipe.dataset.name, "seed": seed, "setting": "", "model": "baseline", **measure(source, dataset, metric)})
        for setting in settings:
            for model, steps in MODELS[setting].items():
                place = made(source, steps, dataset, recipe.benchmark, seed, models, count)
                rows.append({"data": recipe.dataset.name, "seed": seed, "setting": setting, "model": model, **measure(place, dataset, metric)})
                print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]], data: str) -> list[str]:
    """Means over seeds, and the difference to ``dynamic_int8`` of the same seed and setting."""
    lines = [
        f"## {data}",
        "",
        "| setting | model | quality, % | by seed | against dynamic_int8, points | model.onnx, MB |",
        "|---|---|---:|---|---:|---:|",
    ]
    score = {(row["setting"], row["model"], row["seed"]): 100 * row["quality"] for row in rows if row["data"] == data}
    sizes = {(row["setting"], row["model"]): row["bytes"] / 1e6 for row in rows if row["data"] == data}
    for setting, model in sizes:
        seeds = sorted(seed for *which, seed in score if which == [setting, model])
        values = [score[setting, model, seed] for seed in seeds]
        gains = [score[setting, model, seed] - score[setting, "dynamic_int8", seed] for seed in seeds if (setting, "dynamic_int8", seed) in score]
        gain = f"{mean(gains):+.2f} ({', '.join(f'{g:+.2f}' for g in gains)})" if gains and model != "dynamic_int8" else "–"
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        lines.append(
            f"| {setting or 'floats'} | {model} | {mean(values):.2f}{spread} | {', '.join(f'{v:.2f}' for v in values)} | {gain} | {sizes[setting, model]:.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--recipe", type=Path, action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--examples", type=int, default=10**9, help="train on so many of the training texts only")
    parser.add_argument("--setting", choices=MODELS, action="append")
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    args.models.mkdir(parents=True, exist_ok=True)
    recipes = args.recipe or [Path("recipes/quantization.yaml")]
    rows = [row for recipe in recipes for row in run(recipe, args.seeds, args.models, args.setting or [*MODELS], args.examples)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime", "transformers"))
    head = [
        "# Training with the rounding of the int8 graph",
        "",
        f"`python -m studies.qat MODELS --seeds {' '.join(map(str, args.seeds))} --examples {args.examples}{''.join(f' --setting {json.dumps(setting)}' for setting in args.setting or ())}`",
        "",
    ]
    head += [f"{args.date}, {args.machine}, one thread. {versions}. Mean ± standard deviation over seeds; differences seed by seed.", ""]
    lines = [*head, *(line for data in dict.fromkeys(row["data"] for row in rows) for line in table(rows, data))]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "qat.json").write_text(json.dumps({"date": args.date, "machine": args.machine, "versions": versions, "rows": rows}, indent=1) + "\n")
    (args.out / "qat.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
