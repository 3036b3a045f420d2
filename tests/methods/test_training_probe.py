"""The loss that claims about training are measured on: against one example at a time, and against what guessing is worth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recompress.benchmarks import Example
from recompress.methods.training_probe import KNOWS, SHARE, SLACK, guess, learned, losses, not_chance, some_features
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.training import train
from recompress.training.settings import TrainingSettings
from tests.by_hand import features_by_hand
from tests.six import SIX, checkpoint_of, inputs_of
from tests.tiny import tiny_checkpoint, tiny_examples

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", SIX)
def test_the_loss_is_that_of_one_example_after_the_other(family: str, tmp_path: Path) -> None:
    checkpoint, inputs = checkpoint_of(family), inputs_of(family, tmp_path)
    total, count = 0.0, 0
    for feature in features_by_hand(checkpoint, inputs):
        with torch.no_grad():
            logits = checkpoint.torch_network(input_ids=torch.tensor([feature["input_ids"]])).logits[0]
        for row, label in zip(logits if logits.ndim == 2 else logits[None], feature["labels"], strict=False):
            if label >= 0:
                total, count = total - float(row.log_softmax(-1)[label]), count + 1
    assert losses([checkpoint], inputs.train)[0] == pytest.approx(total / count, rel=1e-4)


def test_text_without_labels_has_no_loss() -> None:
    assert math.isnan(losses([tiny_checkpoint()], [Example(("kula", "leo"), ())])[0])


def test_a_guess_knows_frequencies_and_nothing_else() -> None:
    checkpoint, examples = tiny_checkpoint("text-classification"), tiny_examples(40, "text-classification")
    labels = [example.labels[0] for example in examples]
    expected = -sum(math.log(labels.count(label) / 40) for label in labels) / 40
    assert guess(some_features(checkpoint, examples)) == pytest.approx(expected)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    schedule = TrainingSettings(epochs=6, learning_rate=5e-3, batch_size=16, precision="fp32")
    rows = tiny_examples(240, "text-classification")
    return train(tiny_checkpoint("text-classification"), rows, rows[:30], schedule, 0, tmp_path_factory.mktemp("w"))


def test_what_forgot_is_chance_and_what_is_worse_learned_nothing(trained: Checkpoint, tmp_path: Path) -> None:
    """A network without its layers' weights answers all alike."""
    every = tiny_examples(80, "text-classification", seed=1)
    inputs = replace(inputs_of("distilbert", tmp_path), train=every, dev=every)
    start, empty = tiny_checkpoint("text-classification"), tiny_checkpoint("text-classification")
    empty.torch_network.load_state_dict(trained.torch_network.state_dict())
    for _, linear in encoder_linears(empty.torch_network):
        linear.weight.data.zero_()
    for claim in (not_chance, learned):
        assert claim(start, trained, inputs).kept
        assert claim(trained, trained, inputs).kept
        assert not claim(trained, empty, inputs).kept
    was, now = losses((trained, start), every)
    assert learned(trained, start, inputs)[1:] == (was, now, SLACK + SHARE * was, "at most")
    chance = guess(some_features(trained, every))
    assert was < chance
    assert not_chance(trained, trained, inputs).asked == pytest.approx(chance - KNOWS * (chance - was))
    assert not_chance(empty, trained, inputs).kept
    assert not not_chance(start, trained, replace(inputs, dev=[Example(("kula",), ())])).kept, "what cannot be measured is not kept"
