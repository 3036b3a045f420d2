"""What is left of an encoder at 80 % zeros after two epochs, by the way in which its zeros were chosen while it was trained?

    python -m studies.pruning_in_training --seeds 0 1 2 --date 2026-11-29 --machine "2 cores AMD EPYC, CPU only"       (about two minutes a model)
    python -m studies.pruning_in_training --seeds 0 --methods movement --dials '{"learning_rate": 3e-4}' --out /somewhere/else

Baseline, data and dials are those of ``recipes/pruning.yaml``; each method starts from the baseline of its seed and goes through the runner, proofs included.
Writes ``studies/results/pruning_in_training.json`` and ``.md``. Baselines and results are kept in ``--work`` and not computed again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recompress.benchmarks import get_benchmark
from recompress.data.splits import draw, labels_of, read_split
from recompress.errors import EffectMissing
from recompress.integrity.digest import sha256_json
from recompress.measure.quality import evaluate_quality
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.architecture import encoder_linears
from recompress.models.base import find_base
from recompress.models.checkpoint import load, save
from recompress.models.pretrained import from_base
from recompress.recipe import read_recipe
from recompress.training import train
from recompress.training.batches import collate

RECIPE = Path("recipes/pruning.yaml")
SHARED: dict[str, Any] = {"sparsity": 0.8, "epochs": 2, "learning_rate": 1e-4}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "movement": ("movement", {}),
    "platon": ("platon", {}),
    "gradual": ("gradual", {}),
    "dynamic_sparse": ("dynamic_sparse", {}),
    "movement, as in the paper": ("movement", {"prior": 0.0}),
}
"""Each by a name of its own: the method and what is not its default."""


def baseline(seed: int, data: Path, work: Path) -> Path:
    """The recipe's baseline from this seed."""
    place = work / f"baseline-{seed}"
    if not place.exists():
        recipe = read_recipe(RECIPE, Path.cwd()).recipe
        base = find_base(recipe.base.model, sha256=recipe.base.sha256, root=Path.cwd())
        start = from_base(base, recipe.benchmark, labels_of(data), recipe.baseline.max_length, seed)
        folder = work / f"training-{seed}"
        save(train(start, read_split(data, "train"), read_split(data, "dev"), recipe.baseline, seed, folder), place)
        shutil.rmtree(folder)
    return place


def accuracy_of(model: Path, data: Path) -> float:
    return evaluate_quality(model, read_split(data, "test"), model.parent / f"{model.name}.parquet").metrics["accuracy"]


def measured(method: str, dials: dict[str, Any], seed: int, data: Path, work: Path) -> dict[str, Any]:
    """Accuracy on test, and what the step claimed."""
    name = f"{method}-{seed}-{sha256_json(dials)[:10]}"
    result = work / f"{name}.json"
    if not result.exists():
        source, config = baseline(seed, data, work), get_method(method).config.model_validate(dials)
        inputs = Inputs(get_benchmark("text-classification"), read_split(data, "train"), read_split(data, "dev"), seed, work / f"{name}-work")
        begun = time.perf_counter()
        row: dict[str, Any] = {"method": method, "dials": dials, "seed": seed}
        try:
            report = run_step(method, config, source, work / name, inputs)
            row |= {"accuracy": accuracy_of(work / name, data), "claims": report.claims}
        except EffectMissing as error:  # its own proof refuses it, as it would in a recipe
            row |= {"accuracy": None, "refused": str(error)}
        result.write_text(json.dumps(row | {"seconds": round(time.perf_counter() - begun)}, indent=1))
        for folder in (work / name, work / f"{name}-work"):
            shutil.rmtree(folder, ignore_errors=True)
    row = json.loads(result.read_text())
    print(f"{name} {row['dials']}: {shown(row['accuracy'])}", file=sys.stderr, flush=True)
    return dict(row)


def lowest(seed: int, data: Path, work: Path, batches: int = 24, size: int = 6) -> dict[str, float]:
    """Of the 5 % of weights on which the loss depends most (sum of |g w|), the share that is among the lowest 20 % of movement's scores, when these are the sums
    of - g w, and when each is divided by its usual size as Adam does. By chance it is 0.2. A few batches from the baseline, no step is taken.
    """
    import torch

    model = load(baseline(seed, data, work))
    network, linears = model.torch_network.train(), [linear for _, linear in encoder_linears(model.torch_network)]
    examples = draw(read_split(data, "train"), batches * size, seed)
    features = get_benchmark("text-classification").encode(model.tokenizer, examples, model.info.labels, model.info.max_length)
    sizes, sums, squares = ([torch.zeros_like(linear.weight) for linear in linears] for _ in range(3))
    for start in range(0, len(features), size):
        batch = collate(features[start : start + size], model.tokenizer.pad_token_id or 0)
        network.zero_grad()
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        torch.nn.functional.cross_entropy(logits, batch["labels"][:, 0]).backward()
        for i, linear in enumerate(linears):
            slope = linear.weight.grad * linear.weight.detach()
            sizes[i] += slope.abs()
            sums[i] -= slope
            squares[i] += slope.square()

    def share(scores: Sequence[torch.Tensor]) -> float:
        shares = []
        for one, score in zip(sizes, scores, strict=True):
            most = one > one.flatten().kthvalue(int(0.95 * one.numel())).values
            shares.append(float((score[most] <= score.flatten().kthvalue(int(0.2 * score.numel())).values).float().mean()))
        return mean(shares)

    return {"summed": share(sums), "divided": share([one / (two.sqrt() + 1e-12) for one, two in zip(sums, squares, strict=True)])}


def shown(accuracy: float | None) -> str:
    return "refused" if accuracy is None else f"{100 * accuracy:.1f}"


def table(rows: dict[str, list[dict[str, Any]]], baselines: dict[int, float]) -> list[str]:
    """A line for each method: the mean over seeds, and each seed. What its own proof refused has no mean."""
    seeds = list(baselines)
    lines = [f"| method | accuracy, % | {' | '.join(f'seed {seed}' for seed in seeds)} |", "|---|---|" + "---|" * len(seeds)]
    by_name: dict[str, dict[int, float | None]] = {"baseline": dict(baselines)} | {
        name: {row["seed"]: row["accuracy"] for row in some} for name, some in rows.items()
    }
    for name, scores in by_name.items():
        known = [score for score in scores.values() if score is not None]
        lines.append(
            f"| {name} | {shown(mean(known) if len(known) == len(scores) else None)} | {' | '.join(shown(scores[seed]) if seed in scores else '' for seed in seeds)} |"
        )
    refused = sorted({row["refused"] for some in rows.values() for row in some if "refused" in row})
    return lines + ([""] + [f"refused: {why}" for why in refused] if refused else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--dials", type=json.loads, default={})
    parser.add_argument("--data", type=Path, default=Path("prepared/pydocs"))
    parser.add_argument("--work", type=Path, default=Path(".recompress/pruning_in_training"))
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default="")
    parser.add_argument("--out", type=Path, default=Path("studies/results"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    baselines = {seed: accuracy_of(baseline(seed, given.data, given.work), given.data) for seed in given.seeds}
    rows = {
        name: [measured(METHODS[name][0], SHARED | METHODS[name][1] | given.dials, seed, given.data, given.work) for seed in given.seeds]
        for name in given.methods
    }
    head = [
        "# Zeros in training, 80 % of the weights of the layers, pydocs",
        "",
        f"`python -m studies.pruning_in_training --seeds {' '.join(map(str, given.seeds))}`",
    ]
    head += ["", f"{given.date}, {given.machine}. Dials: {json.dumps(SHARED | given.dials)}, all others as they are by default.", ""]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "pruning_in_training.md").write_text("\n".join([*head, *table(rows, baselines)]) + "\n", encoding="utf-8")
    bottom = {seed: lowest(seed, given.data, given.work) for seed in given.seeds}
    contents = {
        "date": given.date,
        "most important weights among the lowest fifth of movement's scores": bottom,
        "machine": given.machine,
        "baselines": baselines,
        "rows": rows,
    }
    (given.out / "pruning_in_training.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(rows, baselines)))


if __name__ == "__main__":
    main()
