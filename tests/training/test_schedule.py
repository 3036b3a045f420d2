"""No step is in vain, zeros that nobody pruned train, steps are not decayed, and a training in which nothing moved says so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recompress.errors import EffectMissing
from recompress.methods.distillation.distill import Distill, distill
from recompress.methods.registry import get_method
from recompress.methods.training_step import was_pruned
from recompress.models.architecture import encoder_linears, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.training import train
from recompress.training.settings import TrainingSettings
from recompress.training.trainer import rate_at
from tests.six import checkpoint_of, inputs_of
from tests.tiny import tiny_checkpoint, tiny_examples

pytestmark = pytest.mark.usefixtures("one_thread")
BENCHMARK = "text-classification"


@given(st.integers(1, 200), st.floats(0, 0.999))
def test_the_learning_rate_rises_and_falls_and_is_never_0(steps: int, share: float) -> None:
    warmup = math.ceil(share * steps)
    rates = [rate_at(step, warmup, steps) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert max(rates) == 1
    assert rate_at(steps, warmup, steps) == (0 if warmup < steps else rate_at(steps, steps, steps))


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_a_training_of_one_batch_trains(warmup: float, epochs: int, tmp_path: Path) -> None:
    """Two epochs of one step each, too: the first of them may be the best on dev."""
    model, rows = tiny_checkpoint(BENCHMARK), tiny_examples(30, BENCHMARK)
    was = {name: tensor.clone() for name, tensor in model.torch_network.state_dict().items()}
    schedule = TrainingSettings(epochs=epochs, learning_rate=0.01, precision="fp32", warmup=warmup)
    done = train(model, rows, rows, schedule, 0, tmp_path / "w").torch_network.state_dict()
    unmoved = {name for name, tensor in done.items() if tensor.equal(was[name]) and "position" not in name and "token_type" not in name}
    assert unmoved == set()


def test_a_training_in_which_nothing_moves_says_so(tmp_path: Path) -> None:
    rows = tiny_examples(30, BENCHMARK)
    with pytest.raises(EffectMissing, match=r"a step: no weight moved in training; raise learning_rate \(1e-60\)") as refused:
        train(tiny_checkpoint(BENCHMARK), rows, rows, TrainingSettings(epochs=1, learning_rate=1e-60, precision="fp32"), 0, tmp_path / "w", label="a step")
    assert "\n" not in str(refused.value)


def with_a_block_that_changes_nothing(family: str, steps: tuple[str, ...] = ()) -> Checkpoint:
    """The last layer passes its input through, as one does that was added to a trained model."""
    checkpoint = checkpoint_of(family)
    last = layers_of(checkpoint.torch_network)[-1]
    with torch.no_grad():
        last.out.weight.zero_()
        last.neurons_out.weight.zero_()
    checkpoint.info = replace(checkpoint.info, steps=steps)
    return checkpoint


def share_that_left_zero(checkpoint: Checkpoint) -> float:
    last = layers_of(checkpoint.torch_network)[-1]
    return float(torch.cat([last.out.weight.flatten() != 0, last.neurons_out.weight.flatten() != 0]).float().mean())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_zeros_that_nobody_pruned_train(family: str, tmp_path: Path) -> None:
    inputs = inputs_of(family, tmp_path, 24)
    schedule = TrainingSettings(epochs=1, learning_rate=3e-3, batch_size=8, precision="fp32")
    done = train(with_a_block_that_changes_nothing(family), inputs.train, inputs.dev, schedule, 0, tmp_path / "w")
    assert share_that_left_zero(done) > 0.99


@pytest.mark.parametrize(
    "name", ["finetune", "movement", *(pytest.param(name, marks=pytest.mark.long) for name in ("lora", "gradual", "platon", "dynamic_sparse"))]
)
def test_the_zeros_that_steps_hold_are_those_of_steps(name: str, tmp_path: Path) -> None:
    """After trim_vocabulary, say, zeros are the base model's; after wanda they are wanda's."""
    method = get_method(name)
    dials = {"epochs": 1, "learning_rate": 3e-3, "batch_size": 6, "precision": "fp32"} | ({"sparsity": 0.3} if "sparsity" in method.config.model_fields else {})
    for steps, trains in (((), True), (("trim_vocabulary", "prune_structure"), True), (("wanda", "finetune"), name == "dynamic_sparse")):
        before = with_a_block_that_changes_nothing("bert", steps)
        assert was_pruned(before) == ("wanda" in steps)
        inputs = inputs_of("bert", tmp_path / "_".join(["w", *steps]), 24)
        dials |= {"scope": "layer"} if name == "platon" else {}
        dials |= {"sparsity": 0.5} if "sparsity" in dials and "wanda" in steps else {}
        done = method.run(with_a_block_that_changes_nothing("bert", steps), method.config(**dials), inputs)
        left = share_that_left_zero(done)
        assert left > 0.2 if trains else left == 0
        claims = method.prove(before, done, method.config(**dials), inputs)
        assert all(claim.kept for claim in claims), [claim for claim in claims if not claim.kept]
        assert any(claim.what == "zeros that stayed zero" for claim in claims) == (was_pruned(before) and name != "dynamic_sparse")


def test_a_student_keeps_the_zeros_of_steps_alone(tmp_path: Path) -> None:
    from recompress.methods.distillation.teacher import teacher_outputs
    from recompress.models.checkpoint import save

    save(checkpoint_of("bert", seed=3), tmp_path / "teacher")
    inputs = inputs_of("bert", tmp_path / "w", 24)
    inputs = replace(inputs, teacher=teacher_outputs(tmp_path / "teacher", inputs.train, tmp_path / "outputs"))
    config = Distill(epochs=2, learning_rate=3e-3, batch_size=6, precision="fp32")
    for steps, trains in (((), True), (("magnitude",), False)):
        done = distill(with_a_block_that_changes_nothing("bert", steps), config, replace(inputs, workdir=tmp_path / "_".join(["d", *steps])))
        assert (share_that_left_zero(done) > 0.99) == trains
        assert trains or share_that_left_zero(done) == 0


def test_what_makes_no_single_zeros_is_no_pruning() -> None:
    checkpoint = checkpoint_of("bert")
    for step, expected in (
        ("magnitude", True),
        ("sparsegpt", True),
        ("platon", True),
        ("prune_structure", False),
        ("svd", False),
        ("of another version", False),
    ):
        checkpoint.info = replace(checkpoint.info, steps=(step, "finetune"))
        assert was_pruned(checkpoint) == expected
    assert len(list(encoder_linears(checkpoint.torch_network))) > 0
