"""What a watcher sees is what flows, in any batch, padding marked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recompress.errors import DataRefused
from recompress.methods.calibration import calibration_features, watch
from recompress.models.architecture import layers_of
from tests.families import FAMILIES, HIDDEN, checkpoint_of, features_of, inputs_of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_watcher_sees_input_output_and_text(family: str) -> None:
    checkpoint = checkpoint_of(family)
    features = features_of(checkpoint, 7)
    first, second = layers_of(checkpoint.torch_network)[:2]
    came: list[torch.Tensor] = []
    given: list[torch.Tensor] = []
    seen: list[int] = []

    def watch_first(_: torch.Tensor, output: torch.Tensor, text: torch.Tensor) -> None:
        came.append(output[text])
        seen.append(int(text.sum()))

    watchers = {first.module: watch_first, second.module: lambda tensor, _, text: given.append(tensor[text])}
    watch(checkpoint.torch_network, features, watchers, batch_size=3)
    assert sum(seen) == sum(len(feature["input_ids"]) for feature in features)
    assert torch.equal(torch.cat(came), torch.cat(given))
    assert torch.cat(came).shape[1] == HIDDEN


def test_watchers_are_gone_afterwards_even_when_one_fails() -> None:
    checkpoint = checkpoint_of("bert")
    layer = layers_of(checkpoint.torch_network)[0].module

    def fail(*_: torch.Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watch(checkpoint.torch_network, features_of(checkpoint), {layer: fail})
    assert not layer._forward_hooks


def test_a_network_that_was_in_training_is_watched_without_dropout() -> None:
    checkpoint = checkpoint_of("bert")
    layer = layers_of(checkpoint.torch_network)[-1].module
    passes: list[torch.Tensor] = []
    for _ in range(2):
        checkpoint.torch_network.train()
        watch(checkpoint.torch_network, features_of(checkpoint, 2), {layer: lambda _, output, text: passes.append(output[text])})
    assert torch.equal(*passes)


def test_examples_are_drawn_by_seed(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    inputs = inputs_of(tmp_path)
    few = calibration_features(checkpoint, inputs, 5)
    assert len(few) == 5
    assert few == calibration_features(checkpoint, inputs, 5)
    assert few != calibration_features(checkpoint, replace(inputs, seed=1), 5)
    assert len(calibration_features(checkpoint, inputs, 999)) == len(inputs.train)


def test_no_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="calibration needs training examples"):
        calibration_features(checkpoint_of("bert"), replace(inputs_of(tmp_path), train=[]), 5)
