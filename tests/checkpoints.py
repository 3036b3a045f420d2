"""What the tests of checkpoints share: outputs, odd shapes, and what somebody else published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recompress.models.architecture import layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import keep_heads, keep_neurons
from recompress.runtimes import runtime_of
from tests.families import checkpoint_of, config_of, features_of, network_of, tokenizer_of

BENCHMARKS = ("token-classification", "text-classification")


def outputs(checkpoint: Checkpoint) -> list[np.ndarray]:
    return runtime_of(checkpoint).logits(features_of(checkpoint))


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def odd(family: str) -> Checkpoint:
    """A shape that no config can say: other heads and neurons in each layer."""
    checkpoint = checkpoint_of(family)
    for layer in layers_of(checkpoint.torch_network):
        keep_heads(layer, range(1 + layer.index))
        keep_neurons(layer, range(10 + 7 * layer.index))
    return checkpoint


def base_of(family: str, directory: Path, auto_model: Any, labels: int = 3) -> Path:
    """What somebody else published: transformers' own files, with another head or none."""
    tokenizer = tokenizer_of(family)
    network = network_of(config_of(family, len(tokenizer), labels), auto_model, seed=5)
    network.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
