"""SparseGPT, Wanda, GPTQ and AWQ side by side with llm-compressor and GPTQModel: same model, same calibration tokens, same measure, same threads.

    python -m venv lc && lc/bin/pip install torch==2.13.0 llmcompressor==0.14.0.1
    python -m venv gq && gq/bin/pip install torch==2.13.0 && gq/bin/pip install gptqmodel==7.6.0
    RECOMPRESS_DATA_MIRROR=/data python -m studies.decoders decoders
    RECOMPRESS_DATA_MIRROR=/data python -m studies.parity decoders --llmcompressor lc/bin/python --gptqmodel gq/bin/python

Each tool runs in its environment, on a model in memory, and leaves weights as plain numbers; all are measured by this project's perplexity on WikiText-2's
test text. Each job is done with several draws of calibration text; perplexities are means over them, seconds the best. Beside the wall time stands the time
of the processor, which other work on the machine disturbs less. Writes ``studies/results/parity.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.benchmarks.language_modelling import LanguageModelling
from recompress.methods.registry import Inputs, get_method
from studies.decoders import FAMILIES, LENGTH, lines_of, train_text

if TYPE_CHECKING:
    from torch import Tensor

    from recompress.models.checkpoint import Checkpoint

Job = dict[str, Any]
Rows = list[dict[str, Any]]
GROUP, WINDOWS, BATCH = 64, 128, 4
JOBS: list[Job] = [
    {"name": "SparseGPT 50 %", "method": "sparsegpt", "pattern": None},
    {"name": "SparseGPT 2:4", "method": "sparsegpt", "pattern": "2:4"},
    {"name": "Wanda 50 %", "method": "wanda", "pattern": None},
    {"name": "Wanda 2:4", "method": "wanda", "pattern": "2:4"},
    {"name": "GPTQ 4 bits", "method": "gptq", "bits": 4, "act_order": True},
    {"name": "GPTQ 4 bits, plain order", "method": "gptq", "bits": 4, "act_order": False},
    {"name": "GPTQ 3 bits", "method": "gptq", "bits": 3, "act_order": True},
    {"name": "GPTQ 3 bits, plain order", "method": "gptq", "bits": 3, "act_order": False},
    {"name": "AWQ 4 bits", "method": "awq", "bits": 4},
    {"name": "AWQ 3 bits", "method": "awq", "bits": 3},
]
TOOLS = {"llm-compressor": ("sparsegpt", "wanda", "gptq", "awq"), "GPTQModel": ("gptq", "awq")}
NEAR = 0.002
"""How much worse a perplexity may be, as a share."""
NOTES = Path(__file__).parent / "parity_notes.md"
"""What was found where the table alone does not say why."""


class Drawn(LanguageModelling):
    """The benchmark with windows that were drawn before, so that no tool pays for cutting text into tokens, and all see the same."""

    def __init__(self, windows: list[list[int]]) -> None:
        self.drawn = windows

    def windows(self, *_: Any) -> list[dict[str, list[int]]]:
        return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in self.drawn]


def settings_of(job: Job) -> Any:
    settings = {name: value for name, value in job.items() if name not in ("name", "method") and value is not None}
    if job["method"] in ("gptq", "awq"):
        settings["group_size"] = GROUP
    return get_method(job["method"]).config.model_validate({**settings, "calibration_examples": WINDOWS})


def ours(base: Checkpoint, job: Job, windows: list[list[int]]) -> tuple[Checkpoint, float, float]:
    """The result, wall seconds and processor seconds."""
    from torch import nn

    checkpoint = copy.copy(base)
    assert isinstance(base.network, nn.Module)
    checkpoint.network = copy.deepcopy(base.network)
    with tempfile.TemporaryDirectory() as workdir:
        inputs = Inputs(benchmark=Drawn(windows), train=[], dev=[], seed=0, workdir=Path(workdir))
        config = settings_of(job)
        wall, processor = time.perf_counter(), time.process_time()
        compressed = get_method(job["method"]).run(checkpoint, config, inputs)
        return compressed, time.perf_counter() - wall, time.process_time() - processor


def theirs(python: Path, script: str, model: Path, jobs: list[Job], windows: list[list[int]], threads: int, folder: Path) -> Iterator[dict[str, Any]]:
    """What the other tool's process says of each job; weights are in ``folder``."""
    request = {"model": str(model), "calibration": windows, "threads": threads, "batch_size": BATCH, "out": str(folder)}
    request["jobs"] = [{"group_size": GROUP, "file": f"{i}.safetensors", **job} for i, job in enumerate(jobs)]
    (folder / "jobs.json").write_text(json.dumps(request))
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # nothing of this project is to be found from there
    quiet = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    command = [str(python), "-P", str(Path(__file__).with_name(script)), str(folder / "jobs.json")]
    completed = subprocess.run(command, capture_output=True, text=True, env=outside | quiet, cwd=folder)
    answers = [json.loads(line) for line in completed.stdout.splitlines() if line.startswith('{"name"')]
    for i, job in enumerate(jobs):
        default = {"said": (completed.stderr.strip().splitlines() or ["nothing came back"])[-1][:200]}
        yield next((each for each in reversed(answers) if each["name"] == job["name"]), default) | {"weights": folder / f"{i}.safetensors"}


def perplexity(checkpoint: Checkpoint, test: list[Any]) -> float:
    from recompress.runtimes import runtime_of

    benchmark = LanguageModelling()
    rows = benchmark.read(runtime_of(checkpoint), checkpoint.tokenizer, test, LENGTH, "perplexity")
    totals = benchmark.counts([()] * len(rows), rows, ()).sum(axis=0)
    return float(benchmark.metrics(totals, ())["perplexity"])


def fitted(base: Checkpoint, weights: Path) -> Checkpoint:
    """The model with another tool's weights."""
    from safetensors.torch import load_file
    from torch import nn

    stored = load_file(weights)
    checkpoint = copy.copy(base)
    assert isinstance(base.network, nn.Module)
    checkpoint.network = copy.deepcopy(base.network)
    incompatible = checkpoint.network.load_state_dict(stored, strict=False)
    tied = [name for name in incompatible.missing_keys if not name.startswith("lm_head")]
    if tied or incompatible.unexpected_keys:
        raise SystemExit(f"{weights}: {tied[:3]} missing, {incompatible.unexpected_keys[:3]} not expected")
    return checkpoint


def shares(before: Checkpoint, after: Checkpoint) -> tuple[float, float]:
    """Shares of the layers' weights that are zero, and that changed."""
    from recompress.models.architecture import encoder_linears
    from recompress.models.packed import PackedLinear
    from recompress.models.surgery import weight_of

    zeros = changed = total = 0
    for name, linear in encoder_linears(before.torch_network):
        module: Any = after.torch_network.get_submodule(name)
        new: Tensor = module.weight if isinstance(module, PackedLinear) else weight_of(module)
        zeros += int((new == 0).sum())
        changed += int((new != weight_of(linear)).sum())
        total += new.numel()
    return zeros / total, changed / total


def one_draw(args: argparse.Namespace, model: Path, test: list[Any], draw: int, rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    """All tools that are asked for, all jobs, with one draw of calibration text."""
    from recompress.models.pretrained import from_base

    base = from_base(model, "language-modelling", (), LENGTH, 0)
    every = LanguageModelling().windows(base.tokenizer, train_text()[0], LENGTH)
    windows = [feature["input_ids"] for feature in random.Random(draw).sample(every, WINDOWS)]

    def note(job: Job, tool: str, after: Checkpoint | None, wall: float | None, processor: float | None, error: str = "") -> None:
        row = rows.setdefault((job["name"], tool), {"job": job["name"], "tool": tool, "perplexity": [], "wall": [], "processor": [], "said": error})
        if after is not None:
            row["perplexity"].append(perplexity(after, test))
            row["zeros"], row["changed"] = shares(base, after)
            row["wall"].append(wall)
            row["processor"].append(processor)
        print(json.dumps(row), file=sys.stderr, flush=True)

    if "ours" in args.tool:
        if draw == 0:
            note({"name": "dense"}, "", base, None, None)
            ours(base, JOBS[0], windows)  # once more than asked, as for the others: the first time, modules are imported
        for job in JOBS:
            note(job, "ours", *ours(base, job, windows))
    for tool, methods in TOOLS.items():
        if tool not in args.tool:
            continue
        python = getattr(args, tool.replace("-", "").lower())
        slow = [] if args.slow else [job for job in JOBS if (tool, job["method"]) == ("GPTQModel", "awq")]
        jobs = [job for job in JOBS if job["method"] in methods and job not in slow]
        with tempfile.TemporaryDirectory() as folder:
            script = f"parity_{tool.replace('-', '').lower()}.py"
            for job, answer in zip(jobs, theirs(python.absolute(), script, model.absolute(), jobs, windows, args.threads, Path(folder)), strict=True):
                after = fitted(base, answer["weights"]) if answer["weights"].is_file() else None
                note(job, tool, after, answer.get("wall"), answer.get("processor"), answer["said"])


def version_in(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version('{package}'), 'torch', m.version('torch'), 'transformers', m.version('transformers'))"
    return f"{package} {subprocess.run([str(python), '-c', code], capture_output=True, text=True, check=True).stdout.strip()}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def cell(row: dict[str, Any] | None, own: dict[str, Any]) -> tuple[str, str]:
    """Perplexity and seconds of another tool, and how ours stand to them."""
    if row is None:
        return "–", "–"
    if not row["perplexity"]:
        return f"refused: {row['said'][:90]}", "–"
    value = mean(row["perplexity"])
    if row["changed"] == 0:
        return f"**nothing done**: {100 * row['zeros']:.1f} % zeros, {100 * row['changed']:.1f} % changed", "–"
    gap = 100 * (mean(own["perplexity"]) / value - 1)
    times = f"{min(row['wall']):.2f} / {min(row['processor']):.2f}"
    return f"{value:.3f} (ours {gap:+.2f} %{'' if gap <= 100 * NEAR else ' **worse**'})", times


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Side by side with llm-compressor and GPTQModel", "", f"`{result['command']}`", "", f"{result['date']}, {result['machine']}", ""]
    lines += ["; ".join(f"{tool}: {version}" for tool, version in result["versions"].items()), "", result["what"], ""]
    for family, rows in result["models"].items():
        table = {(row["job"], row["tool"]): row for row in rows}
        if ("dense", "") not in table:
            continue
        dense = table["dense", ""]["perplexity"][0]
        lines += [f"## {family}: perplexity {dense:.3f} before", ""]
        lines += ["| job | ours | llm-compressor | GPTQModel | seconds ours | llm-compressor | GPTQModel |", "|---|---:|---:|---:|---:|---:|---:|"]
        for job in JOBS:
            if (job["name"], "ours") not in table:
                continue
            own = table[job["name"], "ours"]
            others = [cell(table.get((job["name"], tool)), own) for tool in TOOLS]
            spread = f"{mean(own['perplexity']):.3f}"
            if len(own["perplexity"]) > 1:
                spread += f" ({min(own['perplexity']):.3f} to {max(own['perplexity']):.3f})"
            seconds = f"{min(own['wall']):.2f} / {min(own['processor']):.2f}"
            lines.append(f"| {job['name']} | {spread} | {others[0][0]} | {others[1][0]} | {seconds} | {others[0][1]} | {others[1][1]} |")
        lines.append("")
    return "\n".join(lines) + (NOTES.read_text() if NOTES.is_file() else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--llmcompressor", type=Path)
    parser.add_argument("--gptqmodel", type=Path)
    parser.add_argument("--tool", choices=("ours", *TOOLS), action="append", help="measured again, while the others stay; all when left out")
    parser.add_argument("--slow", action="store_true", help="GPTQModel's AWQ too, which takes minutes for each job")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--rows", type=int, default=150, help="lines of the test text that are measured on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    test = lines_of("wikitext2/test.txt")[: args.rows]
    place = args.out / "parity.json"
    stored = json.loads(place.read_text()) if place.is_file() else {"models": {}, "versions": {}}
    own = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    args.tool = args.tool or ["ours", *(tool for tool in TOOLS if getattr(args, tool.replace("-", "").lower()))]
    for tool in args.tool:
        package = tool.replace("-", "").lower()
        stored["versions"][tool] = f"Python {platform.python_version()}, {own}" if tool == "ours" else version_in(getattr(args, package), package)
    args.out.mkdir(parents=True, exist_ok=True)
    for family in args.family or FAMILIES:
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for draw in range(args.draws):
            one_draw(args, args.models / family, test, draw, rows)
        others = [row for row in stored["models"].get(family, []) if (row["job"], row["tool"]) not in rows]
        stored["models"][family] = [*others, *rows.values()]
        result = {
            "command": f"python -m studies.parity decoders --llmcompressor … --gptqmodel … --draws {args.draws} --rows {args.rows} --threads {args.threads}",
            "date": args.date,
            "machine": args.machine,
            "versions": stored["versions"],
            "what": f"Perplexity on {args.rows} lines of WikiText-2's test text in windows of {LENGTH} tokens, {WINDOWS} calibration windows "
            f"(draws: {args.draws}; the mean, and of several ours from the smallest to the largest); {GROUP} columns share a scale, steps not symmetric, "
            f"damping 0.01, 32-bit floats (GPTQModel's AWQ: 16), threads: {args.threads}. Seconds: wall / processor, the best, without loading and saving. "
            f"*worse*: by more than {100 * NEAR:g} %.",
            "models": stored["models"],
        }
        place.write_text(json.dumps(result, indent=1) + "\n")
        (args.out / "parity.md").write_text(as_markdown(result))


if __name__ == "__main__":
    main()
