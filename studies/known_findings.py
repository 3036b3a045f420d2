"""Do findings that others published come out here too, at the scale of a small machine?

    RECOMPRESS_DATA_MIRROR=/data python -m studies.decoders decoders
    RECOMPRESS_DATA_MIRROR=/data python -m studies.known_findings decoders                        (about 15 minutes on one core, half of it retraining)
    RECOMPRESS_DATA_MIRROR=/data python -m studies.known_findings decoders --part pruning          (that part again; the others stay as they are)

Three models: stories260k of the mirror, a real Llama of 0.26 M parameters, and the Llama and the GPT-2 of ``studies.decoders``. Each line of the table names
ways to do one thing in the order that is expected, from the best to the worst. Where something is trained it is done with three orders of the training text,
and where lots are drawn, or GPTQ's calibration text, with three draws. Writes ``studies/results/known_findings.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from recompress.benchmarks import Example, get_benchmark
from recompress.methods.registry import Inputs, get_method
from recompress.models.checkpoint import Checkpoint, save
from recompress.models.pretrained import from_base
from studies.decoders import LENGTH, lines_of, train_text
from studies.parity import mean, perplexity

SEEDS = (0, 1, 2)
"""Orders of the training text, draws of lots, and for GPTQ draws of calibration text; for all else that is drawn once."""
LINES, RETRAINED = 100, 600
"""Lines of text that are measured on, and that a cut network is trained on again."""
WINDOWS = 128
RETRAIN: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 16, "precision": "fp32"}
WIDTH: dict[str, Any] = {"hidden": 0.25, "neurons": 0.375}
DEPTH: dict[str, Any] = {"layers": 2}
"""Half of the layers; ``WIDTH`` leaves as many parameters (522 and 525 thousand of the Llama's 919)."""
NOTES = Path(__file__).parent / "known_findings_notes.md"
"""What the table means, in words."""
Row = dict[str, Any]
Step = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Model:
    name: str
    base: Checkpoint
    train: list[Example]
    dev: list[Example]
    test: list[Example]

    @cached_property
    def dense(self) -> float:
        return perplexity(self.base, self.test)


def model(name: str, folder: Path) -> Model:
    if name == "stories260k":
        place = Path(os.environ.get("RECOMPRESS_DATA_MIRROR", "")) / name
        stories = lines_of("stories260k/stories.txt")
        return Model(name, from_base(place, "language-modelling", (), 256, 0), stories[:350], stories[350:380], stories[380:430])
    learned, judged = train_text()
    return Model(name, from_base(folder / name, "language-modelling", (), LENGTH, 0), learned, judged, lines_of("wikitext2/test.txt")[:LINES])


def after(one: Model, steps: Sequence[Step], seed: int, teacher: Path | None = None) -> Checkpoint:
    """The model behind these steps."""
    checkpoint = copy.copy(one.base)
    checkpoint.network = copy.deepcopy(one.base.torch_network)
    for name, settings in steps:
        method = get_method(name)
        with tempfile.TemporaryDirectory() as workdir:
            inputs = Inputs(get_benchmark("language-modelling"), one.train, one.dev, seed, Path(workdir), teacher_model=teacher)
            checkpoint = method.run(checkpoint, method.config.model_validate(settings), inputs)
    return checkpoint


def compare(one: Model, case: str, variants: Mapping[str, Sequence[Step]], often: Sequence[str] = (), teacher: Path | None = None) -> Iterator[Row]:
    """One line of the table. ``variants`` stand in the order that is expected, the best first; those of ``often`` are done with all seeds."""
    perplexities: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for variant, steps in variants.items():
        for seed in SEEDS if variant in often else SEEDS[:1]:
            began = time.perf_counter()
            compressed = after(one, steps, seed, teacher)
            perplexities.setdefault(variant, []).append(perplexity(compressed, one.test))
            sizes[variant] = sum(parameter.numel() for parameter in compressed.torch_network.parameters())
            print(f"{one.name} | {case} | {variant} | {perplexities[variant][-1]:.3f} | {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    yield {"model": one.name, "case": case, "dense": one.dense, "perplexities": perplexities, "parameters": sizes}


def pruning(models: Mapping[str, Model]) -> Iterator[Row]:
    for one in models.values():
        for case, settings in (("50 %", {"sparsity": 0.5}), ("2:4", {"pattern": "2:4"})):
            calibrated = {**settings, "calibration_examples": WINDOWS}
            variants: dict[str, list[Step]] = {
                "SparseGPT": [("sparsegpt", calibrated)],
                "Wanda": [("wanda", calibrated)],
                "magnitude": [("magnitude", settings)],
            }
            yield from compare(one, case, variants)


def rounding(models: Mapping[str, Model]) -> Iterator[Row]:
    for one in models.values():
        for bits in (4, 3):
            settings: dict[str, Any] = {"bits": bits}
            calibrated = {**settings, "calibration_examples": WINDOWS}
            variants: dict[str, list[Step]] = {
                "GPTQ act-order": [("gptq", calibrated)],
                "GPTQ": [("gptq", {**calibrated, "act_order": False})],
                "rounding": [("rtn", settings)],
            }
            yield from compare(one, f"{bits} bits, a scale for each row", variants, ("GPTQ act-order", "GPTQ"))


def low_rank(models: Mapping[str, Model]) -> Iterator[Row]:
    for one in models.values():
        for share in (0.8, 0.5):
            settings = {"parameters": share}
            variants = {"whitened": [("activation_svd", {**settings, "calibration_examples": WINDOWS})], "plain": [("svd", settings)]}
            yield from compare(one, f"{share:.0%} of the parameters", variants)


def importance(models: Mapping[str, Model]) -> Iterator[Row]:
    for one in models.values():
        for case, settings in (("half of the neurons", {"neurons": 0.5}), ("a quarter of the width", {"hidden": 0.25})):
            variants = {
                f"by {how}": [("prune_structure", {**settings, "importance": how, "calibration_examples": WINDOWS})]
                for how in ("activation", "magnitude", "random")
            }
            yield from compare(one, case, variants, ("by random",))


def retraining(models: Mapping[str, Model]) -> Iterator[Row]:
    """Three findings from the same networks: how a network that lost nearly half of its parameters is best trained on."""
    one = replace(models["llama"], train=models["llama"].train[:RETRAINED])
    cut: Step = ("prune_structure", {**WIDTH, "calibration_examples": WINDOWS})
    flat: Step = ("prune_structure", {**DEPTH, "calibration_examples": WINDOWS})
    learn = {**RETRAIN, "temperature": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher"
        save(one.base, teacher)
        variants: dict[str, list[Step]] = {
            "width, KL": [cut, ("distill", learn)],
            "width, KL + hard labels": [cut, ("distill", {**learn, "hard_labels": 0.5})],
            "width, plain": [cut, ("finetune", RETRAIN)],
            "depth, KL": [flat, ("distill", learn)],
        }
        [row] = compare(one, "", variants, tuple(variants), teacher)
        [before] = compare(one, "", {"width": [cut], "depth": [flat]})
    for case, names in (
        ("KL alone, or with hard labels", ("width, KL", "width, KL + hard labels")),
        ("width or depth, at equal size, retrained", ("width, KL", "depth, KL")),
        ("distilled or plain retraining", ("width, KL", "width, plain")),
    ):
        yield {**row, "case": case, **{key: {name: row[key][name] for name in names} for key in ("perplexities", "parameters")}}
    yield {**before, "case": "width or depth, before they are retrained (arXiv:2407.14679 says that the order turns round)"}


PARTS: dict[str, tuple[str, str, Callable[[Mapping[str, Model]], Iterator[Row]]]] = {
    "pruning": (
        "SparseGPT ≤ Wanda ≤ magnitude, without retraining",
        "arXiv:2306.11695, arXiv:2301.00774; on small models SparseGPT is ahead of Wanda",
        pruning,
    ),
    "rounding": ("GPTQ with act-order < GPTQ < rounding to nearest", "arXiv:2210.17323, table 3, and the authors' later code", rounding),
    "low_rank": ("Whitened SVD far below plain SVD at equal size", "arXiv:2403.07378, table 1", low_rank),
    "importance": ("Importance by activation is better than by magnitude and by chance, without retraining", "arXiv:2407.14679, arXiv:2408.11796", importance),
    "retraining": ("KL alone is enough; width ends better than depth; distilled better than plain", "arXiv:2407.14679, tables 1, 10 and 15", retraining),
}


def verdict(row: Row, part: str) -> str:
    """Whether the means stand in the expected order (of importance only the first has a place), and whether the worst and best runs leave it beyond doubt."""
    runs = list(row["perplexities"].values())
    pairs = [(runs[0], other) for other in runs[1:]] if part == "importance" else list(zip(runs, runs[1:], strict=False))
    if all(mean(better) <= mean(worse) for better, worse in pairs):
        if all(len(run) == 1 for run in runs):
            return "yes, once"
        return "yes" if all(max(better) <= min(worse) for better, worse in pairs) else "yes, on average"
    return "**no**"


def shown(runs: Sequence[float]) -> str:
    digits = 3 if mean(runs) < 100 else 1
    text = f"{mean(runs):.{digits}f}"
    return text if len(runs) == 1 else f"{text} ({min(runs):.{digits}f} to {max(runs):.{digits}f})"


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Do known findings come out?", "", f"`{result['command']}`", "", f"{result['machine']}, {result['versions']}", ""]
    lines += [
        "Perplexity on text that nothing was trained or calibrated on: the mean, and in brackets the smallest and the largest, of three runs where",
        "something is trained, lots are drawn, or weights are rounded by GPTQ. All else was measured once, with one draw of calibration text, so that small",
        "differences there prove nothing. In each line the expected best stands first. What it says, it says of models of a million parameters.",
        "",
    ]
    for name, part in result["parts"].items():
        title, source, _ = PARTS[name]
        lines += [f"## {title}", "", f"{source}. Measured {part['date']}.", ""]
        lines += ["| model | before | case | expected from best to worst | found |", "|---|---:|---|---|---|"]
        for row in part["rows"]:
            ranking = " < ".join(f"{variant} {shown(runs)}" for variant, runs in row["perplexities"].items())
            lines.append(f"| {row['model']} | {row['dense']:.3f} | {row['case']} | {ranking} | {verdict(row, name)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append", help="all when left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    place = args.out / "known_findings.json"
    parts = json.loads(place.read_text())["parts"] if place.is_file() else {}
    models = {name: model(name, args.models) for name in ("stories260k", "llama", "gpt2")}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    for name in args.part or PARTS:
        parts[name] = {"date": args.date, "rows": list(PARTS[name][2](models))}
        result = {
            "command": "python -m studies.known_findings decoders",
            "machine": args.machine,
            "versions": f"Python {platform.python_version()}, {versions}, {args.threads} thread",
            "parts": {each: parts[each] for each in PARTS if each in parts},
        }
        place.write_text(json.dumps(result, indent=1) + "\n")
        (args.out / "known_findings.md").write_text(as_markdown(result) + (NOTES.read_text() if NOTES.is_file() else ""))


if __name__ == "__main__":
    main()
