"""How long do the layer-by-layer methods take on a decoder of 100 million parameters, and how much memory?

    python -m studies.calibration --date 2026-11-20 --machine "2 cores AMD EPYC, CPU only"       (about half an hour)
    python -m studies.calibration --method gptq --windows 8 --out /somewhere/else                (a minute, to see that it runs)

A Llama of 101 million parameters with random weights is calibrated on 128 windows of 512 random tokens: time and memory follow from the shapes alone. Each
method runs in a process of its own, so that its peak is its own. Writes ``studies/results/calibration.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "wanda": {},
    "sparsegpt": {},
    "gptq": {"bits": 4, "group_size": 128},
    "awq": {"bits": 4, "group_size": 128},
    "activation_svd": {"parameters": 0.7},
}
VOCABULARY, WIDTH, LAYERS, HEADS, GROUPS, NEURONS, LENGTH = 16000, 768, 12, 12, 4, 2560, 512


def run_here(method: str, windows: int, threads: int) -> dict[str, Any]:
    """One method in this process: seconds and bytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from recompress.benchmarks import Example
    from recompress.layerwise.engine import groups_of
    from recompress.methods.registry import Inputs, get_method
    from recompress.models.architecture import layers_of
    from recompress.models.checkpoint import Checkpoint, Info
    from studies.decoders import tokenizer_of
    from studies.parity import Drawn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "intermediate_size": NEURONS}
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, max_position_embeddings=LENGTH, tie_word_embeddings=True, **shape)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    checkpoint = Checkpoint(network, tokenizer_of([Example(("no text is read",))]), Info(benchmark="language-modelling", labels=(), max_length=LENGTH))
    drawn = torch.randint(VOCABULARY, (windows, LENGTH)).tolist()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = max(sum(4 * group[0].in_features ** 2 for group in groups_of(layer)) for layer in layers_of(network))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory() as workdir:
        inputs = Inputs(benchmark=Drawn(drawn), train=[], dev=[], seed=0, workdir=Path(workdir))
        config_of = get_method(method).config
        dials = METHODS[method] | ({"calibration_examples": windows} if "calibration_examples" in config_of.model_fields else {})
        wall, processor = time.perf_counter(), time.process_time()
        get_method(method).run(checkpoint, config_of(**dials), inputs)
        spent = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"method": method, "dials": dials, "parameters": parameters, **spent, "peak_above_model_bytes": peak - before, "statistics_bytes": statistics}


def as_markdown(result: dict[str, Any]) -> str:
    rows = result["rows"]
    lines = [
        "# Calibration of a decoder of 100 million parameters",
        "",
        f"`{result['command']}`",
        "",
        f"{result['date']}, {result['machine']}. {result['versions']}",
        "",
    ]
    lines += [f"Llama, {rows[0]['parameters'] / 1e6:.0f} million parameters, {LAYERS} layers of {WIDTH}, {result['windows']} windows of {LENGTH} tokens."]
    lines += [
        "Memory is what the process took at most above what it held when the model was there; one layer's statistics are the sums X^T X of its inputs.",
        "",
    ]
    lines += ["| method | settings | minutes | processor minutes | peak above the model, MB | one layer's statistics, MB |", "|---|---|---:|---:|---:|---:|"]
    for row in rows:
        times = f"{row['wall_s'] / 60:.1f} | {row['processor_s'] / 60:.1f}"
        memory = f"{row['peak_above_model_bytes'] / 1e6:.0f} | {row['statistics_bytes'] / 1e6:.0f}"
        lines.append(f"| {row['method']} | {', '.join(f'{key} {value}' for key, value in row['dials'].items())} | {times} | {memory} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    methods = args.method or list(METHODS)
    if args.here:
        print(json.dumps(run_here(methods[0], args.windows, args.threads)))
        return
    rows = []
    for method in methods:
        command = [sys.executable, "-m", "studies.calibration", "--here", "--method", method, f"--windows={args.windows}", f"--threads={args.threads}"]
        rows.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    options = "".join(f" --method {method}" for method in args.method or ())
    result = {"command": f"python -m studies.calibration{options} --threads {args.threads}", "date": args.date, "machine": args.machine, "versions": versions}
    result |= {"windows": args.windows, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "calibration.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "calibration.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
