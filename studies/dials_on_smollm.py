"""Levels per layer, learned rounding and searched clips on a real decoder: what each gains over the same method without it.

    python -m studies.dials_on_smollm --text DIR --date 2026-12-01 --machine "2 cores of an AMD EPYC (AVX512-VNNI)"      (one thread; --only NAMES for some of them)

``DIR`` holds WikiText-2's ``valid.txt``, of which windows of 512 tokens are drawn for calibration, and ``test.txt``, whose first windows of 1,024 tokens are read by every model. SmolLM2-135M-Instruct
is what its package has, as floats. A difference is that of the nats a token in the same window; its interval is Student's, over the windows. Methods run without their proof. Writes
``studies/results/dials_on_smollm.json`` and ``.md`` as it goes; a model that was measured is not measured again.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from recompress.methods.registry import Inputs, get_method
from recompress.models.checkpoint import Checkpoint
from recompress.runtimes import runtime_of
from studies.parity import Drawn
from studies.smollm import apart, dense, nats
from studies.written import RESULTS, Results, parser_of, write

CALIBRATION, SHORT, WINDOWS, LENGTH, SEED = 32, 512, 16, 1024, 0
FOUR, THREE = {"bits": 4, "group_size": 64}, {"bits": 3, "group_size": 64}
SHORTLY: dict[str, Any] = {"steps": 32, "calibration_examples": 16}
"""Learned rounding costs a training pass through each layer a step: the 200 that are usual, on all windows, take several times as long."""
VARIANTS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "baseline": None,
    "wanda 50 %": ("wanda", {"sparsity": 0.5}),
    "sparsegpt 50 %": ("sparsegpt", {"sparsity": 0.5, "calibration_examples": 8}),
    "rtn 4 bits": ("rtn", FOUR),
    "gptq 4 bits": ("gptq", FOUR),
    "awq 4 bits": ("awq", FOUR),
    "rtn 3 bits": ("rtn", THREE),
    "gptq 3 bits": ("gptq", THREE),
    "awq 3 bits": ("awq", THREE),
    "awq 4 bits, clip": ("awq", {**FOUR, "clip": True}),
    "awq 3 bits, clip": ("awq", {**THREE, "clip": True}),
    "wanda 50 %, owl": ("wanda", {"sparsity": 0.5, "levels": "owl"}),
    "sparsegpt 50 %, owl": ("sparsegpt", {"sparsity": 0.5, "levels": "owl", "calibration_examples": 8}),
    "signround 4 bits, 32 steps": ("signround", {**FOUR, **SHORTLY}),
    "signround 3 bits, 32 steps": ("signround", {**THREE, **SHORTLY}),
}
BESIDE: dict[str, tuple[str, ...]] = {
    "wanda 50 %, owl": ("wanda 50 %",),
    "sparsegpt 50 %, owl": ("sparsegpt 50 %",),
    "signround 4 bits, 32 steps": ("rtn 4 bits", "gptq 4 bits"),
    "signround 3 bits, 32 steps": ("rtn 3 bits", "gptq 3 bits"),
    "awq 4 bits, clip": ("awq 4 bits",),
    "awq 3 bits, clip": ("awq 3 bits",),
    "gptq 4 bits": ("rtn 4 bits",),
    "awq 4 bits": ("rtn 4 bits",),
    "gptq 3 bits": ("rtn 3 bits",),
    "awq 3 bits": ("rtn 3 bits",),
}
"""With which others each is compared."""


def cut(checkpoint: Checkpoint, file: Path, length: int) -> list[list[int]]:
    """The text in windows of so many tokens; what is left over is left out."""
    ids: list[int] = checkpoint.tokenizer(file.read_text(encoding="utf-8"), verbose=False)["input_ids"]
    return [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]


def made(chosen: tuple[str, dict[str, Any]] | None, checkpoint: Checkpoint, drawn: list[list[int]], work: Path) -> Checkpoint:
    if chosen is None:
        return checkpoint
    method = get_method(chosen[0])
    told = {**({"calibration_examples": CALIBRATION} if "calibration_examples" in method.config.model_fields else {}), **chosen[1]}
    return method.run(checkpoint, method.config.model_validate(told), Inputs(Drawn(drawn), [], [], SEED, work))


def perplexity(row: dict[str, Any]) -> float:
    return float(np.exp(np.array(row["nats"][:WINDOWS]).mean()))


def page(results: Results) -> str:
    models = results["models"]
    lines = ["# Levels per layer, learned rounding and searched clips on a real decoder", ""]
    lines += [
        f"`python -m studies.dials_on_smollm`, {results['date']}, {results['machine']}, one thread, other work beside it; seconds are of the processor.",
        "",
    ]
    lines += [
        f"SmolLM2-135M-Instruct; {CALIBRATION} windows of {SHORT} tokens of WikiText-2's validation text for calibration, {WINDOWS} of {LENGTH} of its test text to be read."
    ]
    fewer = (f"{name}: {' '.join(f'{dial} {value}' for dial, value in chosen[1].items() if dial in ('steps', 'calibration_examples'))}" for name, chosen in VARIANTS.items()
             if chosen and "calibration_examples" in chosen[1] and name in models)  # fmt: skip
    lines += [f"With fewer: {'; '.join(fewer)}."]
    lines += ["Differences in nats a token (less is better), window by window, with the 95 % interval of their mean. One draw of calibration text.", ""]
    lines += ["| model | perplexity | against | difference | 95 % | windows that it wins | seconds |", "|---|---:|---|---:|---|---:|---:|"]
    for name in VARIANTS:
        if name not in models:
            continue
        row = models[name]
        start = f"| {name} | {perplexity(row):.2f} |"
        others = [other for other in BESIDE.get(name, ()) if other in models]
        for number, other in enumerate(others):
            mean, low, high = apart(row["nats"][:WINDOWS], models[other]["nats"][:WINDOWS])
            wins = sum(ours < theirs for ours, theirs in zip(row["nats"][:WINDOWS], models[other]["nats"], strict=False))
            head = start if not number else "| | |"
            lines.append(f"{head} {other} | {mean:+.4f} | {low:+.4f} to {high:+.4f} | {wins} of {WINDOWS} | {'' if number else round(row['seconds'])} |")
        if not others:
            lines.append(f"{start} | | | | {round(row['seconds'])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    told = parser.parse_args()
    torch.set_num_threads(1)
    there = RESULTS / "dials_on_smollm.json"
    for name in told.only:
        kept = json.loads(there.read_text(encoding="utf-8"))["models"] if there.is_file() else {}
        if name not in kept:
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = dense(Path(folder), SHORT)
                windows = cut(checkpoint, told.text / "test.txt", LENGTH)[:WINDOWS]
                drawn = random.Random(SEED).sample(cut(checkpoint, told.text / "valid.txt", SHORT), CALIBRATION)
                begun = process_time()
                after = made(VARIANTS[name], checkpoint, drawn, Path(folder))
                seconds = process_time() - begun
                row: dict[str, Any] = {"nats": nats(runtime_of(after, threads=1), windows), "seconds": seconds}
            kept = json.loads(there.read_text(encoding="utf-8"))["models"] if there.is_file() else {}
            kept[name] = row
            print(name, perplexity(row), round(seconds), file=sys.stderr, flush=True)
        write("dials_on_smollm", told, {"models": kept}, page)


if __name__ == "__main__":
    main()
