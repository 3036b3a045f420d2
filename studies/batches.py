"""What texts cost that are asked together: one padded batch, one at a time, those of one length together, and cut where they cost least.

    make run && python -m studies.batches --models /somewhere/batches --date 2026-11-30 --machine "2 cores of an AMD EPYC, no GPU"     (models there are kept)

1. What a call costs: batches of n texts of one length, each shape in each round; the coefficients of ``recompress.runtimes.cutting``, fitted to the medians with the
   same relative error everywhere, none of them below zero.
2. 32 texts in the order in which they stand in the test split, every way by turns in each round.
3. How far the logits of a text lie from those that it gets alone.

The network is the quickstart's baseline, in ``--models`` as ``torch``, or else its base with a head that was not trained, on which no time depends. Processor time, one
thread. Writes ``studies/results/batches.json`` and ``.md``, anew after each model.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from recompress.benchmarks import get_benchmark
from recompress.data.splits import read_split
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.base import find_base
from recompress.models.checkpoint import load, save
from recompress.models.pretrained import from_base
from recompress.recipe import read_recipe
from recompress.runtimes import Feature, runtime_of
from recompress.runtimes.batches import pad_batch
from recompress.runtimes.cutting import Cost, cut
from studies.written import parser_of, write

RECIPE, DATA = "recipes/quickstart.yaml", "prepared/pydocs"
PACKED: dict[str, Any] = {"bits": 4, "group_size": 32, "embeddings": True}
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "ONNX fp32": ("onnx", "torch", "onnx_fp32", {}),
    "torch": ("torch", "", "", {}),
    "dynamic int8": ("dynamic", "torch", "dynamic_int8", {}),
    "torch, packed in 4 bits": ("rtn4", "torch", "rtn", PACKED),
    "4 bits, `onnx_nbits`": ("nbits4", "rtn4", "onnx_nbits", {}),
    "static int8": ("static", "torch", "static_int8", {}),
}
"""Each model, its folder, the one that it is made from, and how."""
SHAPES = [(count, length) for length in (8, 32, 64, 128) for count in (1, 4, 8, 16, 32) if count * length <= 1024]
TEXTS, ROUNDS, SHAPE_ROUNDS, BATCHES = 32, 5, 2, 1
LEAST = 128
"""Tokens: smaller calls are repeated until they hold so many, so that the clock can see them."""
WAYS = ("one padded batch", "one at a time", "those of one length together", "as they cost least")
Batches = list[list[int]]


def made(name: str, folder: Path, project: Path) -> Path:
    """A model, by the runner, unless it is there."""
    place, source, method, dials = MODELS[name]
    if (folder / place).exists():
        return folder / place
    recipe = read_recipe(project / RECIPE, project).recipe
    learned, judged = (read_split(project / DATA, split) for split in ("train", "dev"))
    if not source:
        labels = tuple(sorted({label for example in learned for label in example.labels}))
        base = find_base(recipe.base.model, sha256=recipe.base.sha256, root=project)
        save(from_base(base, recipe.benchmark, labels, recipe.baseline.max_length, 0), folder / place)
        return folder / place
    whole = made(next(other for other, told in MODELS.items() if told[0] == source), folder, project)
    with tempfile.TemporaryDirectory() as workdir:
        inputs = Inputs(get_benchmark(recipe.benchmark), learned, judged, 0, Path(workdir))
        run_step(method, get_method(method).config.model_validate(dials), whole, folder / place, inputs)
    return folder / place


def seconds(work: Callable[[], object], times: int = 1) -> float:
    begun = process_time()
    for _ in range(times):
        work()
    return (process_time() - begun) / times


def fitted(runtime: Any) -> dict[str, float]:
    """The coefficients of a runtime, a token's time in microseconds, and the median error of the fit."""
    draw = np.random.default_rng(0)
    batches = {shape: {"input_ids": draw.integers(5, 5000, shape), "attention_mask": np.ones(shape, dtype=np.int64)} for shape in SHAPES}
    times: dict[tuple[int, int], list[float]] = {shape: [] for shape in SHAPES}
    for number in range(SHAPE_ROUNDS + 1):
        for count, length in SHAPES if number % 2 else SHAPES[::-1]:
            batch = batches[count, length]
            times[count, length].append(seconds(lambda batch=batch: runtime._run(batch), -(-LEAST // (count * length))))
    medians = np.array([statistics.median(times[shape][1:]) for shape in SHAPES])
    parts = np.array([[1, n * length, n * length**2, (n * length) ** 2] for n, length in SHAPES], dtype=float)
    sizes = parts.max(axis=0)
    call, token, square, crowd = nnls(parts / sizes / medians[:, None], np.ones(len(medians)))[0] / sizes
    expected = parts @ np.array([call, token, square, crowd])
    return {
        "call": call / token,
        "even": token / square if square else float("inf"),
        "crowd": token / crowd if crowd else float("inf"),
        "microseconds": token * 1e6,
        "error": float(np.median(np.abs(expected / medians - 1))),
    }


def ways(lengths: Sequence[int], cost: Cost) -> dict[str, Batches]:
    """What each way puts together."""
    ordered = sorted(range(len(lengths)), key=lengths.__getitem__)
    equal = [list(rows) for _, rows in itertools.groupby(ordered, key=lengths.__getitem__)]
    return dict(zip(WAYS, ([ordered], [[i] for i in ordered], equal, cut(lengths, TEXTS, cost)), strict=True))


def asked(runtime: Any, features: Sequence[Feature], batches: Batches) -> list[np.ndarray]:
    answers: dict[int, np.ndarray] = {}
    for rows in batches:
        answers |= dict(zip(rows, runtime._run(pad_batch([features[i] for i in rows], runtime.pad_id)), strict=True))
    return [answers[i] for i in range(len(features))]


def timed(runtime: Any, texts: Sequence[list[Feature]]) -> dict[str, Any]:
    """Seconds for each way in each round, how many tokens and calls it takes, and how far answers lie from those alone, by the largest logit."""
    cuts = [ways([len(feature["input_ids"]) for feature in features], runtime.cost) for features in texts]
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(ROUNDS + 1):
        for way in WAYS if number % 2 else WAYS[::-1]:
            found[way].append(
                sum(
                    seconds(lambda features=features, cuts=cuts, way=way: asked(runtime, features, cuts[way]))
                    for features, cuts in zip(texts, cuts, strict=True)
                )
            )
    answers = {way: np.stack([row for features, one in zip(texts, cuts, strict=True) for row in asked(runtime, features, one[way])]) for way in WAYS}
    alone = answers[WAYS[1]]
    size = float(np.abs(alone).max())
    return {
        "seconds": {way: values[1:] for way, values in found.items()},
        "calls": {way: sum(len(one[way]) for one in cuts) / len(texts) for way in WAYS},
        "moved": {way: float(np.abs(rows - alone).max()) / size for way, rows in answers.items()},
    }


def measured(place: Path, project: Path) -> dict[str, Any]:
    """What a model's calls cost, and its texts together."""
    checkpoint = load(place)
    runtime: Any = runtime_of(checkpoint)
    info = checkpoint.info
    examples = read_split(project / DATA, "test")[: TEXTS * BATCHES]
    features = get_benchmark(info.benchmark).encode(checkpoint.tokenizer, examples, info.labels, info.max_length)
    texts = [features[start : start + TEXTS] for start in range(0, len(features), TEXTS)]
    alone = bool(getattr(runtime, "asks_alone", False))
    padded = sum(len(some) * max(len(feature["input_ids"]) for feature in some) for some in texts) / sum(len(feature["input_ids"]) for feature in features)
    return {"alone": alone, "padded": padded, "cost": None if alone else runtime.cost._asdict()} | timed(runtime, texts) | {"fit": fitted(runtime)}


def page(results: dict[str, Any]) -> str:
    """The results for people."""
    models = results["models"]
    lines = [
        "# What texts cost that are asked together\n",
        f"`python -m studies.batches`, {results['date']}, {results['machine']}. Processor time at one thread, so that it can be compared; the quickstart's encoder, texts of pydocs.\n",
        f"{TEXTS} texts in the order of the test split ({ROUNDS} rounds by turns): how many times as fast each way is as one padded batch, in which stand",
        f"{next(iter(models.values()))['padded']:.1f} times as many tokens as there is text; the median of the rounds, and the least and the most. Bold is what the runtime does.\n",
        f"| | {' | '.join(WAYS[1:])} | calls, as they cost least |\n|---|{'---:|' * len(WAYS)}",
    ]
    for name, one in models.items():
        cells = []
        for way in WAYS[1:]:
            ratios = [before / now for before, now in zip(one["seconds"][WAYS[0]], one["seconds"][way], strict=True)]
            cell = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells.append(f"**{cell}**" if way == (WAYS[1] if one["alone"] else WAYS[-1]) else cell)
        lines.append(f"| {name} | {' | '.join(cells)} | {one['calls'][WAYS[-1]]:.1f} |")
    lines += [
        "\nWhat a call costs (`recompress.runtimes.cutting`), as measured here and, in brackets, as it stands in the code:\n",
        "| | a call, tokens | attention even at, tokens | twice as dear in a batch of, tokens | a token, µs | error of the fit |\n|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in models.items():
        fit, cost = one["fit"], one["cost"] or {}
        cells = [f"{fit[key]:,.0f}".replace("inf", "–") + (f" ({cost[key]:,})" if cost else "") for key in Cost._fields]
        lines.append(f"| {name} | {' | '.join(cells)} | {fit['microseconds']:.0f} | {100 * fit['error']:.0f} % |")
    lines += [
        "\nThose in the code are from a longer and quieter run on the same machine and day: 56 shapes up to 256 tokens a text and 2,048 a batch, medians of 7 rounds, fitted in",
        "the same way with errors of 2 to 3 %; that of packed weights from another run of this study. Where other work empties the caches, a call costs up to twice as much, but much the same texts",
        "share one: what is cut by one of the two sets of coefficients costs by the other at most 3 % more (50 draws of 32 lengths).",
        "\nHow far a logit lies at most from the one that the text gets alone, by the largest logit:\n",
        f"| | {' | '.join(way for way in WAYS if way != WAYS[1])} |\n|---|{'---:|' * (len(WAYS) - 1)}",
    ]
    for name, one in models.items():
        cells = ["0" if one["moved"][way] == 0 else f"{one['moved'][way]:.1e}" for way in WAYS if way != WAYS[1]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "\nDynamic int8 takes one range for all that is in a call, and is asked one text at a time for that reason. On this processor ONNX Runtime's sums of floats come in the same",
        "order whatever stands beside a text, padding included. torch's do not, and batches of one length do not change that: another number of rows is another kernel. Nor does a",
        "static int8 graph quite: the row of a text alone is multiplied by another kernel behind its last layer, and what is rounded behind that may move by one step.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write what came out."""
    parser = parser_of(__doc__, in_a_project=True)
    parser.add_argument("--models", type=Path, required=True)
    told = parser.parse_args()
    torch.set_num_threads(1)
    models: dict[str, Any] = {}
    told.models.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        models[name] = measured(made(name, told.models, told.project.resolve()), told.project.resolve())
        write("batches", told, {"models": models}, page)


if __name__ == "__main__":
    main()
