"""Pruning by magnitude where a network is trained too: between rounds, before fine-tuning, and with zeros that stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import InputError
from recompress.integrity.digest import sha256_file
from recompress.methods.chain import check_chain
from recompress.methods.pruning.magnitude import Magnitude
from recompress.methods.pruning.mask import sparsity
from recompress.methods.pruning.scope import smallest_masks
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.methods.training.finetune import Finetune
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import load, save
from recompress.models.surgery import weight_of
from recompress.training.run import weights_sha256
from recompress.training.settings import Schedule
from recompress.training.zeros import hold_zeros
from tests import six
from tests.families import checkpoint_of, features_of, inputs_of, saved
from tests.killed import Killed, killed_at

pytestmark = pytest.mark.usefixtures("one_thread")


RETRAIN = Schedule(epochs=1, learning_rate=1e-2, batch_size=16, precision="fp32")


@pytest.mark.parametrize(("family", "dials"), [("bert", {"sparsity": 0.8, "scope": "global"}), ("gpt2", {"pattern": "2:4"}), ("llama", {"block": (4, 4)})])
def test_in_rounds_the_network_is_trained_between_and_ends_with_what_was_asked(family: str, dials: dict[str, Any], tmp_path: Path) -> None:
    save(six.checkpoint_of(family), tmp_path / "source")
    config = Magnitude(**dials, rounds=2, retrain=RETRAIN)
    report = run_step("magnitude", config, tmp_path / "source", tmp_path / "target", six.inputs_of(family, tmp_path / "work", 24))
    measured = {claim["what"]: claim["measured"] for claim in report.claims}
    assert measured["weights that stayed are others"] == 1
    assert report.claims[0]["measured"] == pytest.approx(dials.get("sparsity", 0.5), abs=1e-4)
    again = run_step("magnitude", config, tmp_path / "source", tmp_path / "again", six.inputs_of(family, tmp_path / "other", 24))
    assert again.claims == report.claims
    assert sha256_file(tmp_path / "again" / "model.safetensors") == sha256_file(tmp_path / "target" / "model.safetensors")


def test_rounds_are_trained_by_the_steps_own_seed_and_dials(tmp_path: Path) -> None:
    """Zeros of the first round, a training under them, zeros of the second."""
    config = Magnitude(sparsity=0.75, rounds=2, retrain=RETRAIN.model_copy(update={"epochs": 2}))
    inputs = six.inputs_of("bert", tmp_path / "work", 24, seed=3)
    made = get_method("magnitude").run(six.checkpoint_of("bert"), config, inputs)
    half = get_method("magnitude").run(six.checkpoint_of("bert"), Magnitude(sparsity=0.5), inputs)
    half.info = replace(half.info, steps=("magnitude",))
    tuned = Finetune(**config.retrain.model_dump()) if config.retrain else Finetune()
    trained = get_method("finetune").run(half, tuned, replace(inputs, workdir=tmp_path / "tuned"))
    assert weights_sha256(get_method("magnitude").run(trained, Magnitude(sparsity=0.75), inputs).torch_network) == weights_sha256(made.torch_network)


def test_rounds_that_are_killed_end_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = get_method("magnitude")
    config = Magnitude(sparsity=0.8, rounds=3, retrain=RETRAIN)

    def run(place: Path) -> str:
        return weights_sha256(method.run(six.checkpoint_of("bert"), config, six.inputs_of("bert", place, 40)).torch_network)

    expected = run(tmp_path / "whole")
    killed_at(monkeypatch, 4)
    with pytest.raises(Killed):
        run(tmp_path / "killed")
    monkeypatch.undo()
    assert (tmp_path / "killed" / "round-2").is_dir()
    assert run(tmp_path / "killed") == expected


@pytest.mark.parametrize("family", ["xlm-roberta", "llama"])
def test_before_training_the_base_model_is_pruned_and_then_fine_tuned(family: str, tmp_path: Path) -> None:
    base, trained = six.checkpoint_of(family), six.checkpoint_of(family, seed=1)
    (base.torch_network if family == "llama" else base.torch_network.base_model).save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    save(trained, tmp_path / "baseline")
    inputs = replace(six.inputs_of(family, tmp_path / "work", 24), base=tmp_path / "base")
    run_step("magnitude", Magnitude(sparsity=0.6, start="base"), tmp_path / "baseline", tmp_path / "pruned", inputs)
    pruned = load(tmp_path / "pruned")
    for (_, old), (_, new) in zip(encoder_linears(base.torch_network), encoder_linears(pruned.torch_network), strict=True):
        gone = smallest_masks([weight_of(old).abs()], 0.6, "layer")[0]
        assert torch.equal(weight_of(new), weight_of(old).masked_fill(gone, 0))
    assert pruned.info.labels == trained.info.labels
    run_step("finetune", Finetune(learning_rate=1e-2, batch_size=8, precision="fp32"), tmp_path / "pruned", tmp_path / "tuned", inputs)
    assert sparsity(load(tmp_path / "tuned").torch_network) == sparsity(pruned.torch_network) == pytest.approx(0.6, abs=1e-3)


def test_a_base_model_that_is_missing_or_would_undo_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="magnitude with start: base needs the base model, and was given none"):
        run_step("magnitude", Magnitude(start="base"), saved("bert", tmp_path / "source"), tmp_path / "target", inputs_of(tmp_path / "work"))
    chain = [("finetune", Finetune()), ("magnitude", Magnitude(start="base"))]
    with pytest.raises(InputError, match="magnitude begins anew, so that what finetune did before it would be lost"):
        check_chain(chain, "text-classification", "bert")
    check_chain([chain[1], chain[0], ("magnitude", Magnitude(sparsity=0.7))], "text-classification", "bert")


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_zeros_are_held_while_training_and_free_afterwards(optimizer: Any) -> None:
    checkpoint = checkpoint_of("bert")
    network: Any = checkpoint.torch_network
    marks = {}
    for name, linear in encoder_linears(network):
        gone = smallest_masks([weight_of(linear).abs()], 0.5, "layer")[0]
        weight_of(linear).masked_fill_(gone, 0)
        marks[name] = gone
    steps = optimizer(network.parameters(), lr=0.05)
    ids = torch.tensor([features_of(checkpoint, 1)[0]["input_ids"]])

    def step() -> None:
        steps.zero_grad()
        network(input_ids=ids, labels=torch.zeros_like(ids)).loss.backward()
        steps.step()

    with hold_zeros(network):
        before = {name: weight_of(linear).clone() for name, linear in encoder_linears(network)}
        step()
        step()
        for name, linear in encoder_linears(network):
            assert torch.equal(weight_of(linear) == 0, marks[name])
        assert any(not torch.equal(weight_of(linear), before[name]) for name, linear in encoder_linears(network))
    step()
    assert sparsity(network) < 0.5


def test_holding_a_dense_network_holds_nothing() -> None:
    from torch.optim.optimizer import _global_optimizer_post_hooks

    network = checkpoint_of("bert").torch_network
    with hold_zeros(network):
        assert not _global_optimizer_post_hooks


def test_zeros_are_held_for_as_long_as_the_block_runs_and_no_longer() -> None:
    network = checkpoint_of("bert").torch_network
    weight = weight_of(next(linear for _, linear in encoder_linears(network)))
    weight[0] = 0
    with hold_zeros(network):
        pass
    parameter = next(linear for _, linear in encoder_linears(network)).weight
    parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD([parameter], lr=1.0).step()
    assert bool((weight[0] == -1).all())
