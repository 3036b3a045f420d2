"""Calibration: what a network does on training text, seen through forward passes only.

No labels and no gradients: examples are drawn by seed from the training split, and what flows into and out of a module is handed to a watcher.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recompress.benchmarks import ReadsOn
from recompress.errors import DataRefused
from recompress.layerwise.statistics import Kind, Statistics
from recompress.methods.examples import with_text
from recompress.models.architecture import shape_of
from recompress.models.padding import padding_of
from recompress.runtimes.batches import BATCH_SIZE, Feature, batches_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from recompress.methods.registry import Inputs
    from recompress.models.checkpoint import Checkpoint

log = logging.getLogger(__name__)
Watcher = Callable[[Float[Tensor, "batch length width"], Float[Tensor, "batch length out"], Bool[Tensor, "batch length"]], None]
"""Called with a module's input, its output, and where there is text and no padding."""


def calibration_features(checkpoint: Checkpoint, inputs: Inputs, count: int) -> list[Feature]:
    """``count`` training examples (all, where there are fewer), drawn by the step's seed; windows of full length, where the benchmark reads running text. Blank
    rows are left out, and counted in the log.

    Raises ``DataRefused`` when there are none, or the text is shorter than one window.
    """
    examples = with_text(inputs.train)
    if inputs.train and not examples:
        raise DataRefused(f"calibration needs training text, and all {len(inputs.train):,} examples are blank")
    if blank := len(inputs.train) - len(examples):
        log.warning("calibration: %d of %d training examples are blank and left out", blank, len(inputs.train))
    info = checkpoint.info
    if isinstance(inputs.benchmark, ReadsOn):
        windows = inputs.benchmark.windows(checkpoint.tokenizer, examples, info.max_length)
        return random.Random(inputs.seed).sample(windows, count) if len(windows) > count else windows
    if len(examples) > count:
        examples = random.Random(inputs.seed).sample(examples, count)
    if not examples:
        raise DataRefused("calibration needs training examples, got none")
    return inputs.benchmark.encode(checkpoint.tokenizer, examples, info.labels, info.max_length)


def watch(network: PreTrainedModel, features: Sequence[Feature], watchers: Mapping[nn.Module, Watcher], batch_size: int = BATCH_SIZE) -> None:
    """Run the network over all features, in batches, and call each module's watcher with what it saw."""
    now: dict[str, Bool[Tensor, "batch length"]] = {}

    def hook_of(watcher: Watcher) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, given, came: watcher(given[0], came[0] if isinstance(came, tuple) else came, now["text"])

    hooks = [module.register_forward_hook(hook_of(watcher)) for module, watcher in watchers.items()]
    model: Any = network.eval()
    try:
        with torch.no_grad():
            for _, batch in batches_of(features, padding_of(network), batch_size):
                tensors = {name: torch.from_numpy(values).to(network.device) for name, values in batch.items()}
                now["text"] = tensors["attention_mask"].bool()
                model(**tensors)
    finally:
        for hook in hooks:
            hook.remove()


def statistics_of(
    network: PreTrainedModel, linears: Mapping[str, Any], features: Sequence[Feature], wanted: Collection[Kind], batch_size: int = BATCH_SIZE
) -> dict[str, Statistics]:
    """What flows into each of ``linears`` on its way through the whole network, padding left out; of layers that share their weights into the first."""
    collected = {name: Statistics(shape_of(linear)[1], wanted, network.device) for name, linear in linears.items()}

    def watcher(statistics: Statistics) -> Watcher:
        batches: list[Tensor] = []

        def see(given: Float[Tensor, "batch length width"], _: Tensor, text: Bool[Tensor, "batch length"]) -> None:
            if not (batches and batches[-1] is text):
                batches[:] = [text]
                statistics.add(given[text].float())

        return see

    watch(network, features, {linears[name]: watcher(statistics) for name, statistics in collected.items()}, batch_size)
    return collected
