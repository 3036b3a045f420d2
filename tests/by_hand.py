"""A training in plain torch, from the words of ``Schedule`` alone: what methods that train are compared with, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from recompress.benchmarks import Example, ReadsOn
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import Checkpoint
from recompress.training.settings import Schedule
from tests.six import checkpoint_of

Tensors = dict[str, Tensor]
FEW_STEPS: dict[str, Any] = {"epochs": 1, "batch_size": 6, "learning_rate": 4e-3, "weight_decay": 0.1, "precision": "fp32", "group_by_length": False}
STILL: dict[str, dict[str, Any]] = {
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "llama": {},
}
"""No dropout, by architecture."""


def still(family: str, seed: int = 0, **changes: Any) -> Checkpoint:
    """A tiny model without dropout."""
    none = STILL.get(family, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    return checkpoint_of(family, seed, **none, **changes)


def features_by_hand(checkpoint: Checkpoint, inputs: Inputs, examples: list[Example] | None = None) -> list[dict[str, Any]]:
    info, text = checkpoint.info, inputs.train if examples is None else examples
    if isinstance(inputs.benchmark, ReadsOn):
        return list(inputs.benchmark.pieces(checkpoint.tokenizer, text, info.max_length))
    return list(inputs.benchmark.encode(checkpoint.tokenizer, text, info.labels, info.max_length))


def batches_by_hand(features: list[dict[str, Any]], schedule: Schedule, seed: int) -> Iterator[tuple[Tensors, list[int]]]:
    """Padded batches in the order that follows from seed and epoch, and which features are in each."""
    for epoch in range(schedule.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(features)).tolist()
        for start in range(0, len(order), schedule.batch_size):
            chosen = order[start : start + schedule.batch_size]
            yield padded([features[i] for i in chosen]), chosen


def padded(features: list[dict[str, Any]]) -> Tensors:
    longest = max(len(feature["input_ids"]) for feature in features)

    def rows(name: str, filler: int) -> Tensor:
        wide = max(len(feature[name]) for feature in features) if name == "labels" else longest
        return torch.tensor([[*feature[name], *[filler] * (wide - len(feature[name]))] for feature in features])

    return {"input_ids": rows("input_ids", 0), "attention_mask": rows("attention_mask", 0), "labels": rows("labels", -100)}


def units_of(logits: Tensor) -> Tensor:
    return logits if logits.ndim == 3 else logits[:, None]


def label_loss(logits: Tensor, batch: Tensors) -> Tensor:
    """The mean over labels; 0 where there are none."""
    labels = batch["labels"].flatten()
    total = torch.nn.functional.cross_entropy(units_of(logits).flatten(0, 1), labels, reduction="sum")
    return total / (labels != -100).sum().clamp(min=1)


def train_by_hand(
    checkpoint: Checkpoint,
    inputs: Inputs,
    schedule: Schedule,
    *,
    features: list[dict[str, Any]] | None = None,
    trained: Mapping[str, Tensor] | None = None,
    weights: Callable[[Tensors], Tensors] = lambda theta: theta,
    loss: Callable[[Any, Tensors, Tensors, list[int]], Tensor] = lambda output, theta, batch, chosen: label_loss(output.logits, batch),
    before: Callable[[int, Tensors, Tensors, Any], None] = lambda step, theta, gradients, optimizer: None,
    after: Callable[[int, int, Tensors], None] = lambda step, steps, theta: None,
    undecayed: tuple[str, ...] = (),
) -> Tensors:
    """AdamW over the first batches. ``trained`` are the tensors that are trained (all of the network, when left out), ``weights`` makes of them what the
    network computes with, ``loss(output, weights, batch, chosen)`` knows which features are in the batch, ``before`` sees the clipped gradients of a step
    counted from 0 and may change them, ``after`` changes what was trained.
    """
    network: Any = checkpoint.torch_network
    theta = {name: tensor.detach().clone().requires_grad_() for name, tensor in (trained or dict(network.named_parameters())).items()}
    groups = [
        {"params": [t for n, t in theta.items() if t.ndim > 1 and not n.endswith(undecayed or ("?",))], "weight_decay": schedule.weight_decay},
        {"params": [t for n, t in theta.items() if t.ndim < 2 or n.endswith(undecayed or ("?",))], "weight_decay": 0.0},
    ]
    known = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)
    batches = list(batches_by_hand(features or features_by_hand(checkpoint, inputs), schedule, inputs.seed))
    warmup = math.ceil(schedule.warmup * len(batches))
    for step, (batch, chosen) in enumerate(batches):
        rate = (step + 1) / warmup if step < warmup else (len(batches) - step) / (len(batches) - warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule.learning_rate
        optimizer.zero_grad()
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "output_hidden_states": True}
        used = weights(theta)
        output = functional_call(network, {name: tensor for name, tensor in used.items() if name in known}, kwargs=given)
        loss(output, used, batch, chosen).backward()
        moved = {name: tensor for name, tensor in theta.items() if tensor.grad is not None}
        torch.nn.utils.clip_grad_norm_(moved.values(), schedule.gradient_clip)
        with torch.no_grad():
            before(step, theta, {name: tensor.grad for name, tensor in moved.items() if tensor.grad is not None}, optimizer)
        optimizer.step()
        with torch.no_grad():
            after(step, len(batches), theta)
    return {name: tensor.detach() for name, tensor in weights(theta).items()}


def smallest_by_hand(scores: Tensor, count: int) -> Tensor:
    """True at the ``count`` smallest of a matrix, row by row the first of equal ones."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().sort(stable=True).indices[:count]] = True
    return mask.view(scores.shape)
