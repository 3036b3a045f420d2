"""What a claim about a method is measured on: a little of the text that the method was given, sent through the networks before and after it.

    error(layer) = ||X W^T - X W'^T||_F^2 / ||X W^T||_F^2        X: what the layer of the network *after* the step receives

The same error is taken for a simpler method's weights on the same X, so that a method which claims to do better than a simpler one has to show it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.benchmarks import Example
from recompress.methods.calibration import calibration_features
from recompress.methods.registry import Claim, Inputs
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.padding import padding_of
from recompress.models.surgery import weight_of
from recompress.runtimes.batches import Feature, pad_batch

EXAMPLES, TOKENS = 32, 2048
"""So many calibration examples are looked at, and so many tokens with their padding; one example at least."""

Simpler = Callable[[str, Float[Tensor, "out in"]], Float[Tensor, "out in"]]
"""``simpler(name, weight)``: what the simpler method makes of a matrix of the network before the step."""


class OutputErrors(NamedTuple):
    """Relative squared errors of the outputs of the linear layers, as their mean over layers."""

    method: float
    simpler: float


def probe_features(checkpoint: Checkpoint, inputs: Inputs) -> list[Feature]:
    """The first of the examples, or windows, that calibration draws, as many as ``TOKENS`` hold. Raises what ``calibration_features`` raises."""
    features = sorted(calibration_features(checkpoint, inputs, EXAMPLES), key=lambda feature: len(feature["input_ids"]))
    count = max([1, *(i for i, feature in enumerate(features, 1) if i * len(feature["input_ids"]) <= TOKENS)])
    return features[:count]


def probe_text(inputs: Inputs, count: int) -> list[Example]:
    """The first rows of the training text, or of that which is not labelled, with anything in them: a blank row proves nothing."""
    rows = (example for example in (*inputs.train, *inputs.unlabelled) if any(word.strip() for word in example.words))
    return list(itertools.islice(rows, count))


def output_errors(before: Checkpoint, after: Checkpoint, inputs: Inputs, simpler: Simpler) -> OutputErrors:
    """How far the outputs of each linear layer of the layers are from what the weights before the step would give, for the step and for ``simpler``.

    Layers are paired by name, so the step must leave the shapes as they were; packed and factored layers stand for the matrices that they replaced.
    """
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    network = after.torch_network.eval()
    batch = {name: torch.from_numpy(rows) for name, rows in pad_batch(probe_features(before, inputs), padding_of(network)).items()}
    text = batch["attention_mask"].bool()

    def look(name: str, weight: Tensor, bias: Tensor | None) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def compare(_: nn.Module, received: tuple[Tensor, ...], answered: Tensor) -> None:
            if name in ours:  # layers that share their weights are changed by what the first of them sees
                return
            rows = received[0][text].float()
            wanted = rows @ weight.T
            given = answered[text].float() - (0 if bias is None else bias)
            size = float(wanted.square().sum()) or 1.0
            ours[name] = float((wanted - given).square().sum()) / size
            theirs[name] = float((wanted - rows @ simpler(name, weight).T).square().sum()) / size

        return compare

    pairs = [(name, linear, network.get_submodule(name)) for name, linear in encoder_linears(before.torch_network)]
    hooks = [module.register_forward_hook(look(name, weight_of(linear), module.bias)) for name, linear, module in pairs]
    try:
        with torch.no_grad():
            network(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return OutputErrors(sum(ours.values()) / len(ours), sum(theirs.values()) / len(theirs))


def below_simpler(name: str, before: Checkpoint, after: Checkpoint, inputs: Inputs, simpler: Simpler, tolerance: float = 0.0, *, margin: float = 0.0) -> Claim:
    """The claim that the outputs of the layers are nearer to what they were than those of the simpler method called ``name`` are, by at least the share
    ``margin`` of its error: what is merely equal is no gain."""
    errors = output_errors(before, after, inputs, simpler)
    return Claim(f"error of the layers' outputs, below that of {name}", (1 - margin) * errors.simpler, errors.method, tolerance * errors.simpler, "at most")
