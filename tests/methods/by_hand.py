"""What calibrated methods should feed their pure functions, a second time: plain forward passes, one example at a time (so that nothing is padded), one layer
behind the other, with module names as the families spell them. Nothing of the engine, of calibration or of the architectures' descriptions is used."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from recompress.benchmarks import Example
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, load, save
from tests.six import checkpoint_of, inputs_of

ENCODER_AND_DECODER = ("bert", "gpt2")
LAYERS_AT = {"bert": "bert.encoder.layer", "gpt2": "transformer.h", "llama": "model.layers"}
COUNT = 10
"""Calibration examples, drawn from 24, or windows from as many as the text has."""
Linears = dict[str, Any]
Rows = dict[str, Tensor]


def uneven(family: str, **changes: Any) -> Checkpoint:
    """Some of the inputs of every linear layer are many times larger than others, so that a method which does not look at them chooses otherwise."""
    checkpoint = checkpoint_of(family, **changes)
    with torch.no_grad():
        for name, parameter in checkpoint.torch_network.named_parameters():
            if LAYERS_AT[family] not in name or not name.endswith(("weight", "bias")):
                continue
            if "norm" in name.lower() or "ln_" in name:
                parameter[::5] *= 8  # what a norm hands on
            elif parameter.ndim == 1:
                parameter[::7] += 4  # values and neurons that are large whatever the text says
    return checkpoint


def inputs_for(family: str, place: Path) -> Inputs:
    """Text of unequal lengths: some rows are many times as long as others."""
    inputs = inputs_of(family, place, 24)
    rows = [example if i % 4 else Example(example.words * 3, example.labels * 3, example.slice) for i, example in enumerate(inputs.train)]
    return replace(inputs, train=rows, dev=rows[:4])


def saved_by(name: str, family: str, place: Path, whole: Checkpoint | None = None, **dials: Any) -> tuple[Checkpoint, Checkpoint, Inputs]:
    """The network before the step (an uneven one, unless another is given) and as ``run_step`` saved it, and what the step was given."""
    save(whole or uneven(family), place / "source")
    inputs = inputs_for(family, place / "work")
    run_step(name, get_method(name).config(**dials), place / "source", place / "target", inputs)
    return load(place / "source"), load(place / "target"), inputs


def drawn(checkpoint: Checkpoint, family: str, inputs: Inputs, count: int = COUNT) -> list[dict[str, list[int]]]:
    """As the documentation says: so many examples by the step's seed, or windows of full length where the benchmark reads running text."""
    benchmark, info = inputs.benchmark, checkpoint.info
    if family == "bert":
        rows = random.Random(inputs.seed).sample(inputs.train, count) if len(inputs.train) > count else inputs.train
        return benchmark.encode(checkpoint.tokenizer, rows, info.labels, info.max_length)
    windows: Any = benchmark.windows(checkpoint.tokenizer, inputs.train, info.max_length)  # type: ignore[attr-defined]
    return random.Random(inputs.seed).sample(windows, count) if len(windows) > count else windows


def linears_of(network: Any, family: str, layer: int) -> Linears:
    """The linear layers of one layer, by name."""
    prefix = f"{LAYERS_AT[family]}.{layer}."
    return {name: module for name, module in network.named_modules() if name.startswith(prefix) and isinstance(module, nn.Linear | Conv1D)}


def matrix(linear: Any) -> Tensor:
    """``[out, in]``, a view."""
    weight: Tensor = linear.weight.data
    return weight.T if isinstance(linear, Conv1D) else weight


def received(network: Any, modules: Linears, features: list[dict[str, list[int]]]) -> Rows:
    """``[tokens, inputs]`` of each module, in 64-bit floats."""
    rows: dict[str, list[Tensor]] = {name: [] for name in modules}

    def hook_of(name: str) -> Callable[[Any, Any], None]:
        return lambda _, given: rows[name].append(given[0][0].double())

    hooks = [module.register_forward_pre_hook(hook_of(name)) for name, module in modules.items()]
    with torch.no_grad():
        for feature in features:
            network.eval()(input_ids=torch.tensor([feature["input_ids"]]))
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in rows.items()}


def layer_behind_layer(
    checkpoint: Checkpoint, family: str, features: list[dict[str, list[int]]], change: Callable[[Tensor, Tensor], None]
) -> dict[str, Tensor]:
    """``change(matrix, rows)`` alters each matrix of a layer in place, before the next layer is looked at; all matrices in the end."""
    network: Any = checkpoint.torch_network
    changed: dict[str, Tensor] = {}
    for layer in range(network.config.num_hidden_layers):
        modules = linears_of(network, family, layer)
        rows = received(network, modules, features)
        for name, module in modules.items():
            change(matrix(module), rows[name])
            changed[name] = matrix(module).clone()
    return changed
