"""Further training as a step: through the runner, after pruning, with zeros and odd shapes kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recompress.benchmarks import get_benchmark
from recompress.methods.pruning.mask import sparsity
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.methods.training.finetune import Finetune
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import load, save
from recompress.models.surgery import keep_heads, keep_neurons
from tests.tiny import tiny_checkpoint, tiny_examples

QUICK = Finetune(epochs=2, learning_rate=5e-3, batch_size=16, precision="fp32")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    torch.set_num_threads(1)
    return Inputs(get_benchmark("token-classification"), tiny_examples(60), tiny_examples(20, seed=1), 0, tmp_path / "work", label="a step")


def test_pruned_weights_stay_zero_and_the_step_proves_it(tmp_path: Path, inputs: Inputs) -> None:
    magnitude = get_method("magnitude")
    save(tiny_checkpoint(), tmp_path / "base")
    run_step("magnitude", magnitude.config(sparsity=0.5), tmp_path / "base", tmp_path / "pruned", inputs)
    report = run_step("finetune", QUICK, tmp_path / "pruned", tmp_path / "tuned", inputs)
    before, after = load(tmp_path / "pruned"), load(tmp_path / "tuned")
    assert sparsity(after.torch_network) == sparsity(before.torch_network) == pytest.approx(0.5, abs=0.01)
    assert {claim["what"]: claim["measured"] for claim in report.claims}["weights moved"] == 1
    assert after.info.steps == ("magnitude", "finetune")


def test_a_network_of_odd_shapes_is_trained_and_resumed(tmp_path: Path, inputs: Inputs) -> None:
    checkpoint = tiny_checkpoint()
    first, second = layers_of(checkpoint.torch_network)
    keep_heads(first, [0, 2])
    keep_neurons(second, list(range(10)))
    save(checkpoint, tmp_path / "odd")
    run_step("finetune", QUICK, tmp_path / "odd", tmp_path / "once", inputs)
    again = run_step("finetune", QUICK, tmp_path / "odd", tmp_path / "twice", inputs)  # the checkpoints of the first are still there
    assert again.parameters == again.parameters_before
    assert (tmp_path / "once" / "model.safetensors").read_bytes() == (tmp_path / "twice" / "model.safetensors").read_bytes()


def test_what_did_not_train_or_lost_its_zeros_is_found(inputs: Inputs) -> None:
    prove = get_method("finetune").prove
    pruned, tuned = tiny_checkpoint(), tiny_checkpoint()
    for checkpoint in (pruned, tuned):
        checkpoint.torch_network.bert.encoder.layer[0].intermediate.dense.weight.data[0] = 0
        checkpoint.info = replace(checkpoint.info, steps=("magnitude",))
    unmoved = {claim.what for claim in prove(pruned, tuned, QUICK, inputs) if not claim.kept}
    assert unmoved == {"weights moved"}
    tuned.torch_network.bert.encoder.layer[0].intermediate.dense.weight.data[0, 0] = 1e-9
    assert {claim.what for claim in prove(pruned, tuned, QUICK, inputs) if not claim.kept} == {"zeros that stayed zero"}
    assert {claim.what for claim in prove(pruned, tiny_checkpoint(layers=3), QUICK, inputs) if not claim.kept} >= {"parameters"}


def test_it_trains_for_as_many_epochs_and_from_the_seed_that_it_is_given(tmp_path: Path, inputs: Inputs) -> None:
    method, last = get_method("finetune"), {}
    for name, epochs, seed in (("plain", 1, 0), ("longer", 3, 0), ("other seed", 1, 5)):
        steps: list[int] = []
        place = replace(inputs, seed=seed, workdir=tmp_path / name, curve=lambda step, _, steps=steps: steps.append(step))  # type: ignore[misc]
        method.run(tiny_checkpoint(), QUICK.model_copy(update={"epochs": epochs, "learning_rate": 1e-4}), place)
        last[name] = max(steps)
    assert last["longer"] == 3 * last["plain"] == 3 * last["other seed"]
    orders = {seed: method.run(tiny_checkpoint(), QUICK, replace(inputs, seed=seed, workdir=tmp_path / str(seed))).torch_network for seed in (0, 5)}
    assert not torch.equal(*(next(iter(network.parameters())) for network in orders.values()))
