"""What a claim about a training is measured on: the loss on some of the text that it was given, beside that of before and that of a guess.

guess = - sum over labels (or next tokens) of f ln f,  f: how often each stands in that text; what a network without any knowledge of its input can reach
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from recompress.benchmarks import Example
from recompress.methods.registry import Claim, Inputs
from recompress.models.checkpoint import Checkpoint
from recompress.runtimes.asking import units_of
from recompress.training.batches import Feature, collate
from recompress.training.judge import training_features
from recompress.training.losses import ONE_LABEL, Losses, losses_of

EXAMPLES, TOKENS = 64, 8192
"""So many examples (or windows of text) are looked at, and so many tokens with their padding."""
BATCH_TOKENS = 2048
SLACK, SHARE = 0.05, 0.1
"""How far a loss may lie above its limit, in nats and as a share of it: a training that goes on where another ended may end a little above it."""
KNOWS = 0.1
"""Of what a network knew beyond guessing so much has to be left; less is chance."""


def losses(checkpoints: Sequence[Checkpoint], examples: Sequence[Example]) -> list[float]:
    """The mean loss of labels or next tokens (in nats, where these are classes) of each network in evaluation mode; all see the same text. NaN where nothing has a label."""
    kind = losses_of(checkpoints[-1].info)
    return [_loss(checkpoint, some_features(checkpoint, examples), kind) for checkpoint in checkpoints]


def some_features(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[Feature]:
    """Features of some of the examples, evenly spread; windows, where text is read on."""
    some = [examples[i] for i in np.linspace(0, len(examples) - 1, num=min(EXAMPLES, len(examples)), dtype=np.int64)]
    features, _, _ = training_features(checkpoint, some, some[:1], "a probe")
    longest = max(len(feature["input_ids"]) for feature in features)
    return features[: max(1, min(EXAMPLES, TOKENS // longest))]


def guess(features: Sequence[Feature], losses: Losses = ONE_LABEL) -> float:
    """The loss of whoever answers with the frequencies of what there is to answer."""
    return losses.guess(features)


def learned(before: Checkpoint, after: Checkpoint, inputs: Inputs) -> Claim:
    """The claim that the loss on the training text is not above that before the step."""
    was, now = losses((before, after), inputs.train)
    return Claim("loss on training text, not above that before", was, now, SLACK + SHARE * was, "at most")


def not_chance(before: Checkpoint, after: Checkpoint, inputs: Inputs) -> Claim:
    """The claim that the network knows more than frequencies on dev, a tenth of what it knew before at least; or, where it knew no more, is no worse."""
    was, now = losses((before, after), inputs.dev)
    chance = guess(some_features(before, inputs.dev), losses_of(after.info))
    limit = chance - KNOWS * (chance - was) if was < chance else was
    return Claim("loss on dev, below that of a guess", limit, now, 0.0 if was < chance else SLACK + SHARE * was, "at most")


def _loss(checkpoint: Checkpoint, features: Sequence[Feature], kind: Losses) -> float:
    network = checkpoint.torch_network.eval()
    size = max(1, BATCH_TOKENS // max(len(feature["input_ids"]) for feature in features))
    total, count = 0.0, 0
    for start in range(0, len(features), size):
        batch = collate(features[start : start + size], checkpoint.tokenizer.pad_token_id or 0)
        with torch.no_grad():
            units = units_of(network, batch).float()
        total += float(kind.each(units, batch["labels"]).sum())
        count += int(kind.carries(batch["labels"]).sum())
    return total / count if count else float("nan")
