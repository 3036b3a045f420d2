"""On-policy text: of some batches a decoder reads the beginning alone and goes on by itself, and its teacher is asked about what it wrote.

    with the share l:   y_t ~ softmax(student(x, y_1 … y_t-1)),  x: the first k tokens of each text, k drawn between a quarter and three quarters
                        loss = T^2 * KL(softmax(teacher(x, y) / T) || softmax(student(x, y) / T)), the mean over the tokens of y
    else                the same over the text as it stands, and its labels

A student that learns from given text alone never sees what follows its own mistakes, and meets it when it writes. No gradient goes through the drawing.
All draws come from torch's generator, which training sets by (seed, step).
Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, section 3, algorithm 1, with the forward KL as divergence.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from recompress.benchmarks.scores import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Batch = dict[str, Tensor]
WRITTEN = "written"
"""Marks a batch that the student wrote: nobody has a label for its tokens."""


@dataclass(frozen=True)
class OnPolicy:
    """``on_policy(network, batch)``: the batch that a student learns from."""

    share: float
    """Of the batches, how many the student goes on with by itself, in [0, 1]."""
    tokens: int | None = None
    """Only the first so many rows of the vocabulary may come; all of them when left out."""

    def __call__(self, network: nn.Module, batch: Batch) -> Batch:
        length = batch["input_ids"].shape[1]
        if float(torch.rand(())) >= self.share or length < 2:
            return batch
        begun = int(torch.randint(max(1, length // 4), max(2, 3 * length // 4), ()))
        return self.rewritten(network, batch, begun)

    def rewritten(self, network: nn.Module, batch: Batch, begun: int) -> Batch:
        """The batch with everything behind the first ``begun`` tokens as the network writes it; what was padding stays padding, and only what was written counts."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        own = continued(network, ids[:, :begun], ids.shape[1], self.tokens)
        ids = torch.where(mask.bool(), own, ids)
        answers = torch.cat([ids[:, 1:], ids.new_full((len(ids), 1), NO_LABEL)], dim=1)
        counts = (batch["labels"] != NO_LABEL) & (torch.arange(ids.shape[1], device=ids.device) >= begun - 1)
        return batch | {"input_ids": ids, "labels": answers.masked_fill(~counts, NO_LABEL), WRITTEN: counts}


@torch.no_grad()
def continued(network: nn.Module, begun: Int[Tensor, "texts read"], length: int, tokens: int | None = None) -> Int[Tensor, "texts length"]:
    """What the network writes behind each beginning, token by token, drawn at temperature 1; with its dropout switched off."""
    reader: Any = getattr(network, "module", network)  # what trains on several processes is wrapped
    ids = given = begun
    cache = None
    with _still(reader):
        while ids.shape[1] < length:
            said = reader(input_ids=given, past_key_values=cache, use_cache=True)
            cache = said.past_key_values
            given = torch.multinomial(said.logits[:, -1, :tokens].float().softmax(-1), 1)
            ids = torch.cat([ids, given], dim=1)
    return ids


@contextmanager
def _still(network: nn.Module) -> Iterator[None]:
    """Without dropout, for as long as the block runs."""
    trains = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(trains)
