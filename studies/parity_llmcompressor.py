"""llm-compressor's side of the parity table; runs in an environment of its own, started by ``studies.parity``.

    python parity_llmcompressor.py jobs.json

``jobs.json``: the model's folder, the calibration tokens, threads, the folder for results, and the jobs. Each job leaves the weights as numbers that any
network of this shape can load (what was rounded is multiplied out again), and a line of JSON on stdout with its seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def recipe_of(job: dict[str, Any]) -> list[Any]:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    method, targets = job["method"], job.get("targets", ["Linear"])
    if method in ("sparsegpt", "wanda"):
        modifier = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}[method]
        return [modifier(sparsity=0.5, mask_structure=job["pattern"] or "0:0", targets=targets, ignore=["re:.*lm_head"])]
    weights = QuantizationArgs(num_bits=job["bits"], type="int", symmetric=False, strategy="group", group_size=job["group_size"])
    groups = {"group_0": QuantizationScheme(targets=targets, weights=weights)}
    if method == "gptq":
        return [GPTQModifier(config_groups=groups, ignore=["re:.*lm_head"], actorder="static" if job["act_order"] else None)]
    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=["re:.*lm_head"])]


def plain_weights(model: Any) -> dict[str, Any]:
    """The weights as they are used."""
    from compressed_tensors.quantization import forward_quantize

    rounded = {}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None and scheme.weights is not None:
            rounded[f"{name}.weight"] = forward_quantize(module, module.weight.detach(), "weight", scheme.weights)
    extra = ("_scale", "_zero_point", "_g_idx", "_global_scale")
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(extra)}
    return {name: rounded.get(name, tensor).detach().float().clone().contiguous() for name, tensor in weights.items()}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    import torch
    from llmcompressor import oneshot
    from safetensors.torch import save_file
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(request["threads"])
    ids = torch.tensor(request["calibration"])
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    for job in [request["jobs"][0], *request["jobs"]]:  # once more than asked: the first time, modules are imported and traced
        model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
        loader = DataLoader(rows, batch_size=request["batch_size"], shuffle=False)
        answer: dict[str, Any] = {"name": job["name"], "said": ""}
        try:
            recipe = recipe_of(job)
            wall, processor = time.perf_counter(), time.process_time()
            oneshot(model=model, tokenizer=tokenizer, dataset=loader, recipe=recipe, num_calibration_samples=len(rows), pipeline="sequential")
            answer |= {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
            save_file(plain_weights(model), Path(request["out"]) / job["file"])
        except Exception as error:
            answer["said"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
