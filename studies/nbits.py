"""What is gained when packed weights are multiplied by ONNX Runtime instead of being unpacked in torch?

    dvc repro prepare@pydocs
    python -m studies.nbits /somewhere/nbits --date 2026-12-01 --machine "2 cores of an AMD EPYC, no GPU"     (about a quarter of an hour; models there are kept)

The baseline of ``recipes/quantization.yaml`` is trained from three seeds. Each is rounded, exported and measured with the project's own measures: accuracy over
the test split, bytes of all files, latency at batch 1 with one thread, all models of a seed interleaved in one process. The last column counts test texts whose
label is another when they are answered in batches of 32 as they come than when each is answered alone. Writes ``studies/results/nbits.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from recompress.benchmarks import Example, get_benchmark
from recompress.data.splits import read_split
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from recompress.recipe import read_recipe

RECIPE, DATA = Path("recipes/quantization.yaml"), Path("prepared/pydocs")
GROUPS: dict[str, Any] = {"group_size": 32, "embeddings": True}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "onnx_fp32": ("baseline", "onnx_fp32", {}),
    "dynamic_int8": ("baseline", "dynamic_int8", {}),
    "rtn_4, packed in torch": ("baseline", "rtn", {"bits": 4, **GROUPS}),
    "gptq_4, packed in torch": ("baseline", "gptq", {"bits": 4, **GROUPS}),
    "rtn_4 mse, packed in torch": ("baseline", "rtn", {"bits": 4, **GROUPS, "scales": "mse"}),
    "rtn_4 symmetric, packed in torch": ("baseline", "rtn", {"bits": 4, **GROUPS, "symmetric": True}),
    "rtn_4 symmetric mse, packed in torch": ("baseline", "rtn", {"bits": 4, **GROUPS, "symmetric": True, "scales": "mse"}),
    "rtn_8, packed in torch": ("baseline", "rtn", {"bits": 8, **GROUPS}),
    "rtn_4, onnx_nbits": ("rtn_4, packed in torch", "onnx_nbits", {}),
    "gptq_4, onnx_nbits": ("gptq_4, packed in torch", "onnx_nbits", {}),
    "gptq_4, onnx_nbits, accuracy_level 1": ("gptq_4, packed in torch", "onnx_nbits", {"accuracy_level": 1}),
    "rtn_8, onnx_nbits": ("rtn_8, packed in torch", "onnx_nbits", {}),
}
"""Each model, what it is made from, by which method and with what settings."""
BATCH = 32
Measured = dict[str, float]


def baseline(folder: Path, seed: int) -> Path:
    """The recipe's baseline from this seed, trained once."""
    from recompress.models.base import find_base
    from recompress.models.pretrained import from_base
    from recompress.training import train

    target = folder / f"baseline-{seed}"
    if target.exists():
        return target
    recipe = read_recipe(RECIPE, Path.cwd()).recipe
    base = find_base(recipe.base.model, sha256=recipe.base.sha256, root=Path.cwd())
    learned, judged = (read_split(DATA, split) for split in ("train", "dev"))
    labels = tuple(sorted({label for example in learned for label in example.labels}))
    started = from_base(base, recipe.benchmark, labels, recipe.baseline.max_length, seed)
    save(train(started, learned, judged, recipe.baseline, seed, folder / f"work-{seed}", label=f"baseline {seed}"), target)
    return target


def made(folder: Path, seed: int) -> dict[str, Path]:
    """All models of a seed, each by the runner, so that every one has proved its effect."""
    learned, judged = (read_split(DATA, split) for split in ("train", "dev"))
    places = {"baseline": baseline(folder, seed)}
    for name, (source, method, dials) in MODELS.items():
        places[name] = folder / f"seed-{seed}" / name.replace(", ", "-").replace(" ", "_")
        if places[name].exists():
            continue
        print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as workdir:
            inputs = Inputs(get_benchmark("text-classification"), learned, judged, seed, Path(workdir))
            run_step(method, get_method(method).config.model_validate(dials), places[source], places[name], inputs)
    return places


def moved_by_neighbours(place: Path, examples: list[Example]) -> int:
    """Texts with another label in a batch than alone."""
    from recompress.runtimes import open_runtime

    checkpoint = load(place)
    features = get_benchmark(checkpoint.info.benchmark).encode(checkpoint.tokenizer, examples, checkpoint.info.labels, checkpoint.info.max_length)
    runtime = open_runtime(place)
    alone = [int(runtime.logits([feature])[0].argmax()) for feature in features]
    batches = [features[start : start + BATCH] for start in range(0, len(features), BATCH)]
    together = [int(row.argmax()) for batch in batches for row in runtime.logits(batch, batch_size=BATCH)]
    return sum(one != other for one, other in zip(alone, together, strict=True))


def measured(folder: Path, seed: int) -> dict[str, Measured]:
    """Every measure of every model of a seed."""
    from recompress.measure.quality import evaluate_quality
    from recompress.measure.speed import measure_all

    places, examples = made(folder, seed), read_split(DATA, "test")
    with tempfile.TemporaryDirectory() as workdir:
        work = Path(workdir)
        speeds = measure_all(list(places.values()), places["baseline"], examples, work)
        rows = {name: dict(speed) for name, speed in zip(places, speeds, strict=True)}
        for name, place in places.items():
            rows[name]["accuracy"] = evaluate_quality(place, examples, work / "predictions.parquet").metrics["accuracy"]
            if "torch" not in name and name != "baseline":
                rows[name]["moved"] = moved_by_neighbours(place, examples)
            print(f"seed {seed}: {name} {rows[name]}", file=sys.stderr, flush=True)
    return rows


def spread(values: list[float], digits: int) -> str:
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def as_markdown(result: dict[str, Any]) -> str:
    seeds: list[dict[str, Measured]] = list(result["seeds"].values())
    lines = ["# Packed weights on ONNX Runtime", "", f"`{result['command']}`", "", f"{result['date']}, {result['machine']}; {result['versions']}", ""]
    lines += [f"pydocs, all-MiniLM-L6-v2, {len(seeds)} seeds: the mean, in brackets the lowest and the highest. Groups of 32, embeddings packed too.", ""]
    lines += ["| model | accuracy, % | points lost | MB | times smaller | times as fast | the same, batches of 32 | moved by neighbours |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name in ("baseline", *MODELS):
        rows = [seed[name] for seed in seeds]
        lost = [100 * (seed["baseline"]["accuracy"] - seed[name]["accuracy"]) for seed in seeds]
        cells = [spread([100 * row["accuracy"] for row in rows], 1), spread(lost, 2), f"{mean(row['size_bytes'] for row in rows) / 1e6:.1f}"]
        cells += [f"{mean(row['size_ratio'] for row in rows):.1f}"]
        cells += [spread([row[key] for row in rows], 2) for key in ("latency_ratio", "throughput_ratio")]
        cells += [spread([row["moved"] for row in rows], 0) if "moved" in rows[0] else "–"]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default="")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime"))
    result: dict[str, Any] = {"command": f"python -m studies.nbits FOLDER --seeds {' '.join(map(str, given.seeds))}", "date": given.date}
    result |= {"machine": given.machine, "versions": versions, "seeds": {}}
    for seed in given.seeds:
        result["seeds"][str(seed)] = measured(given.folder, seed)
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "nbits.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (given.out / "nbits.md").write_text(as_markdown(result), encoding="utf-8")
    print(as_markdown(result))


if __name__ == "__main__":
    main()
