"""What does compression take first from a model of language: how well it foresees text, the labels it names after a few examples, or what it writes?

    recompress run recipes/quickstart.yaml          (brings the data)
    python -m studies.asked_in_words --date 2026-11-30 --machine "2 cores of an AMD EPYC, no GPU"      (about a quarter of an hour)

SmolLM2-135M-Instruct, as its package has it, beside what each method makes of it, and the same examples for all: windows of docstrings (bits per byte), docstrings whose package
is to be named after nine others, by three draws of these nine (accuracy), and docstrings to be written to their end (agreement with the baseline, repeats). Writes
``studies/results/asked_in_words.json`` and ``.md``; a model that was measured is not measured again.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recompress.benchmarks import Example, get_benchmark
from recompress.data.splits import read_split
from recompress.measure.quality import Beside, evaluate_quality
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, load, save
from studies.smollm import dense
from studies.written import RESULTS, ROOT, Results, parser_of, write

DATA = ROOT / "prepared" / "pydocs"
LENGTH, ASKED, WRITTEN, WINDOWS, DRAWS = 512, 60, 24, 12, 3
ON_GRID = {"bits": 4, "group_size": 32, "symmetric": True, "embeddings": True, "calibration_examples": 24}
VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "baseline": [],
    "Q8_0": [("gguf", {"weights": "q8_0"})],
    "Q4_1": [("gguf", {"weights": "q4_1", "embeddings": "q4_1"})],
    "GPTQ in Q4_0": [("gptq", ON_GRID), ("gguf_nbits", {})],
    "Q4_0": [("gguf", {"weights": "q4_0", "embeddings": "q4_0"})],
    "Wanda 50 %": [("wanda", {"sparsity": 0.5, "calibration_examples": 24})],
    "27 of 30 layers": [("prune_structure", {"layers": 27})],
}
"""The steps of each."""
PROMPT = {"shots": 9, "template": "Docstring: {text}\nPackage: {label}", "longest_shot": 30}


def made(steps: Sequence[tuple[str, dict[str, Any]]], baseline: Path, train: list[Example], work: Path) -> Path:
    """The model that the steps leave."""
    place = baseline
    text = [Example((example.words[0],), (), example.slice) for example in train]
    for number, (name, dials) in enumerate(steps):
        inputs = Inputs(get_benchmark("language-modelling"), text, text[:64], 0, work / f"work{number}")
        run_step(name, get_method(name).config.model_validate(dials), place, work / f"step{number}", inputs)
        place = work / f"step{number}"
    return place


def as_asked(model: Path, name: str, answering: dict[str, Any], labels: Sequence[str], place: Path) -> Path:
    """The same model, made to be asked something else."""
    checkpoint = load(model)
    info = replace(checkpoint.info, benchmark=name, answering=answering, labels=tuple(labels), max_length=LENGTH)
    save(Checkpoint(checkpoint.network, checkpoint.tokenizer, info), place)
    return place


def measured(model: Path, baseline: Path, beside: Path, work: Path) -> dict[str, Any]:
    """All three of one model. ``beside``: where the baseline's own answers lie, or come to lie."""
    train, test = (read_split(DATA, split) for split in ("train", "test"))
    labels = sorted({example.labels[0] for example in test})
    drawn = random.Random(0).sample(test, ASKED)
    plain = [Example((example.words[0],), (), example.slice) for example in random.Random(1).sample(test, len(test))]
    text = as_asked(model, "language-modelling", {}, (), work / "text")
    tokens = load(baseline).tokenizer("".join(f"{example.words[0]}\n" for example in plain), verbose=False)["input_ids"]
    share = WINDOWS * LENGTH / len(tokens)
    row: dict[str, Any] = {
        "bits_per_byte": evaluate_quality(text, plain[: int(share * len(plain))], work / "text.parquet").metrics["bits_per_byte"],
        "accuracy": [],
    }
    for seed in range(DRAWS):
        few = get_benchmark("few-shot-classification", {**PROMPT, "seed": seed}).completed(train, labels).answering  # type: ignore[attr-defined]
        asked = as_asked(model, "few-shot-classification", few, labels, work / f"few{seed}")
        row["accuracy"].append(evaluate_quality(asked, drawn, work / f"few{seed}.parquet").metrics["accuracy"])
    writing = get_benchmark("text-generation", {"beginning": 12, "tokens": 32}).completed(plain, ()).answering  # type: ignore[attr-defined]
    long = [example for example in plain if len(example.words[0].split()) > 16][:WRITTEN]
    writer, start = (as_asked(place, "text-generation", writing, (), work / name) for place, name in ((model, "writer"), (baseline, "start")))
    predictions = work / "written.parquet"
    quality = evaluate_quality(writer, long, predictions, beside=Beside(start, beside if beside.is_file() else None))
    if not beside.is_file():
        beside.write_bytes(predictions.read_bytes())
    return row | quality.metrics


def every(kept: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save(dense(work, LENGTH), work / "baseline")
        train = read_split(DATA, "train")
        for number, (name, steps) in enumerate(VARIANTS.items()):
            if name in kept and (name != "baseline" or all(other in kept for other in VARIANTS)):
                continue
            place = work / str(number)
            place.mkdir()
            kept[name] = measured(made(steps, work / "baseline", train, place), work / "baseline", work / "beside.parquet", place)
            (RESULTS / "asked_in_words.json").write_text(json.dumps({"models": kept}, indent=1) + "\n", encoding="utf-8")
            print(name, kept[name], file=sys.stderr, flush=True)
    return {name: kept[name] for name in VARIANTS}


def page(results: Results) -> str:
    lines = ["# What compression takes first from a model of language", "", f"`python -m studies.asked_in_words`, {results['date']}, {results['machine']}.", ""]
    lines += [
        f"SmolLM2-135M-Instruct: bits per byte of {WINDOWS} windows of {LENGTH} tokens of docstrings; accuracy in naming the package of {ASKED} docstrings (nine packages) after nine examples,",
        f"mean and spread of {DRAWS} draws of the examples; and what it writes behind the first twelve words of {WRITTEN} docstrings, 32 tokens at most, greedy, beside what the baseline writes there:",
        "tokens that both find likeliest, tokens before the first difference, KL divergence in nats a token, and the share of four tokens in a row that did not stand there before.",
        "",
        "| model | bits per byte | few-shot accuracy | equal tokens | before the first difference | KL | distinct-4 | chrF |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in results["models"].items():
        shots = np.array(row["accuracy"])
        cells = [f"{row['bits_per_byte']:.3f}", f"{100 * shots.mean():.1f} ± {100 * shots.std(ddof=1):.1f}", f"{100 * row['equal_tokens']:.1f} %"]
        cells += [f"{row['tokens_before_difference']:.1f}", f"{row['kl_per_token']:.4f}", f"{100 * row['distinct_4']:.1f} %", f"{100 * row['chrf']:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    told = parser_of(__doc__).parse_args()
    there = RESULTS / "asked_in_words.json"
    kept = json.loads(there.read_text(encoding="utf-8"))["models"] if there.is_file() else {}
    write("asked_in_words", told, {"models": every(kept)}, page)


if __name__ == "__main__":
    main()
