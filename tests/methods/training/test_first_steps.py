"""The first steps of finetune and lora, against a few lines of plain torch over the same batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.methods.registry import get_method
from recompress.methods.training.finetune import Finetune
from recompress.methods.training.lora import Lora, adapt
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.training.trainer import SteadyTrainer
from tests.by_hand import FEW_STEPS, Tensors, still, train_by_hand
from tests.six import checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


def linears_of(checkpoint: Checkpoint) -> Tensors:
    return {f"{name}.weight": linear.weight.detach() for name, linear in encoder_linears(checkpoint.torch_network)}


def half_zero(family: str) -> Checkpoint:
    """Half of every second matrix was pruned."""
    checkpoint = still(family)
    for i, (_, linear) in enumerate(encoder_linears(checkpoint.torch_network)):
        if i % 2 == 0:
            linear.weight.data[torch.rand(linear.weight.shape, generator=torch.Generator().manual_seed(i)) < 0.5] = 0
    checkpoint.info = replace(checkpoint.info, steps=("magnitude",))
    return checkpoint


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "llama"])
def test_finetune_is_adamw_with_warmup_decay_and_clipping(family: str, tmp_path: Path) -> None:
    config, inputs = Finetune(**FEW_STEPS, warmup=0.3), inputs_of(family, tmp_path, 24, seed=3)
    expected = train_by_hand(still(family), inputs, config)
    done = get_method("finetune").run(still(family), config, inputs)
    for name, weight in linears_of(done).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)
    was = linears_of(still(family))
    assert all(float((weight - was[name]).abs().max()) > 5e-3 for name, weight in linears_of(done).items())


def test_texts_of_like_length_lie_together_only_where_that_is_asked_for(tmp_path: Path) -> None:
    plain, grouped = (
        linears_of(get_method("finetune").run(still("bert"), Finetune(**FEW_STEPS | {"group_by_length": on}), inputs_of("bert", tmp_path / str(on), 24)))
        for on in (False, True)
    )
    assert all(not torch.allclose(plain[name], grouped[name], atol=1e-4) for name in plain)


@pytest.mark.parametrize("where", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_drops_in_training_as_the_model_says(where: str, tmp_path: Path) -> None:
    """Two models that differ in nothing but their dropout learn differently, and dropout is not the same in any two steps."""
    without = {name: 0.0 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob") if name != where}
    config = Finetune(**FEW_STEPS)
    plain, dropped = (
        linears_of(get_method("finetune").run(source, config, inputs_of("bert", tmp_path / name, 24)))
        for name, source in (("plain", still("bert")), ("dropped", checkpoint_of("bert", **without)))
    )
    assert all(not torch.allclose(plain[name], dropped[name], atol=1e-4) for name in plain)


def test_dropout_is_drawn_anew_at_each_step_and_follows_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    inside = SteadyTrainer.compute_loss

    def look(self: Any, model: Any, *rest: Any, **named: Any) -> Any:
        if model.training:
            drawn.append(torch.initial_seed())
        return inside(self, model, *rest, **named)

    monkeypatch.setattr(SteadyTrainer, "compute_loss", look)
    for seed in (0, 3):
        get_method("finetune").run(checkpoint_of("bert"), Finetune(**FEW_STEPS), inputs_of("bert", tmp_path / str(seed), 24, seed))
    assert len(set(drawn)) == len(drawn) == 8


def test_finetune_holds_what_was_pruned_and_nothing_else(tmp_path: Path) -> None:
    config, inputs, source = Finetune(**FEW_STEPS), inputs_of("bert", tmp_path, 24, seed=3), half_zero("bert")
    masks = {name: (weight != 0).float() for name, weight in linears_of(source).items()}

    def hold(step: int, steps: int, theta: Tensors) -> None:
        for name, mask in masks.items():
            theta[name].mul_(mask)

    expected = train_by_hand(half_zero("bert"), inputs, config, after=hold)
    for name, weight in linears_of(get_method("finetune").run(half_zero("bert"), config, inputs)).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_lora_trains_a_and_b_alone_from_no_change_at_all(family: str, tmp_path: Path) -> None:
    """W + alpha / rank * (B A) * M with W fixed, M over what was pruned, and B zero at first."""
    config, inputs = Lora(**FEW_STEPS, rank=2, alpha=6), inputs_of(family, tmp_path, 24, seed=3)
    adapted = half_zero(family)
    names = adapt(adapted.torch_network, config, inputs.seed, hold=True)
    modules: dict[str, Any] = {name: adapted.torch_network.get_submodule(name) for name in names}
    factors = {f"{name}.A": module.lora_A["default"].weight for name, module in modules.items()}
    factors |= {f"{name}.B": module.lora_B["default"].weight for name, module in modules.items()}
    assert not any(factor.any() for name, factor in factors.items() if name.endswith(".B"))
    assert all(factor.any() for name, factor in factors.items() if name.endswith(".A"))
    source = half_zero(family)
    fixed = {name: tensor.detach() for name, tensor in source.torch_network.named_parameters()}

    def merged(theta: Tensors) -> Tensors:
        changes = {name: 3.0 * theta[f"{name}.B"] @ theta[f"{name}.A"] for name in names}
        changes = {name: change.T if family == "gpt2" else change for name, change in changes.items()}
        return fixed | {f"{name}.weight": fixed[f"{name}.weight"] + change * (fixed[f"{name}.weight"] != 0) for name, change in changes.items()}

    expected = train_by_hand(source, inputs, config, trained=factors, weights=merged)
    done = get_method("lora").run(half_zero(family), config, inputs).torch_network.state_dict()
    for name, tensor in fixed.items():
        torch.testing.assert_close(done[name], expected[name], rtol=1e-4, atol=1e-5)
        assert done[name].equal(tensor) == (name.removesuffix(".weight") not in names)
