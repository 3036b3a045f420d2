"""GPTQModel's side of the parity table; runs in an environment of its own, started by ``studies.parity``.

    python parity_gptqmodel.py jobs.json

``jobs.json``: the model's folder, the calibration tokens, threads, the folder for results, and the jobs. Each job leaves the weights as numbers that any
network of this shape can load (what a packed layer answers to the unit vectors), and a line of JSON on stdout with its seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def config_of(job: dict[str, Any]) -> Any:
    from gptqmodel.quantization.config import AWQConfig, GPTQConfig

    settings = {"bits": job["bits"], "group_size": job["group_size"], "sym": False, "offload_to_disk": False}
    if job["method"] == "awq":
        return AWQConfig(**settings)
    order = job["act_order"]
    # The older format keeps zero points minus one and puts that right only in files, which are not written here.
    return GPTQConfig(**settings, format="gptq_v2", desc_act=order, static_groups=order, act_group_aware=False, damp_percent=0.01)


def plain_weights(model: Any) -> dict[str, Any]:
    """The weights as they are used; those of Conv1D the way round that it stores them."""
    import torch
    from transformers.pytorch_utils import Conv1D

    turned = {name for name, module in model.original.items() if isinstance(module, Conv1D)}
    weights = {}
    for name, module in model.network.named_modules():
        if name in model.original and type(module) is not type(model.original[name]):
            with torch.no_grad():
                kind = next(model.network.parameters()).dtype
                answers = module(torch.eye(module.in_features, dtype=kind)) - module(torch.zeros(1, module.in_features, dtype=kind))
            weights[f"{name}.weight"] = (answers if name in turned else answers.T).float().contiguous()
            if getattr(module, "bias", None) is not None:
                weights[f"{name}.bias"] = module.bias.detach().float().clone()
        else:
            weights |= {f"{name}.{key}".lstrip("."): value.detach().float().clone() for key, value in module.named_parameters(recurse=False)}
    return weights


class Seen:
    """A quantized network, and the modules that stood in it before."""

    def __init__(self, network: Any, original: dict[str, Any]) -> None:
        self.network, self.original = network, original


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # by default it takes half of the cores, and refuses to begin with one worker
    import torch
    from gptqmodel import BACKEND, GPTQModel
    from safetensors.torch import save_file
    from transformers import Conv1D

    torch.set_num_threads(request["threads"])
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in request["calibration"]]
    for job in [request["jobs"][0], *request["jobs"]]:  # once more than asked: the first time, modules are imported
        answer: dict[str, Any] = {"name": job["name"], "said": ""}
        kind = torch.float16 if job["method"] == "awq" else torch.float32  # its AWQ packs nothing in 32 bits
        try:
            model = GPTQModel.load(request["model"], config_of(job), device="cpu", backend=BACKEND.TORCH, dtype=kind)
            original = {name: module for name, module in model.model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)}
            wall, processor = time.perf_counter(), time.process_time()
            model.quantize(rows, batch_size=request["batch_size"], backend=BACKEND.TORCH)
            answer |= {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
            save_file(plain_weights(Seen(model.model, original)), Path(request["out"]) / job["file"])
        except Exception as error:
            answer["said"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
