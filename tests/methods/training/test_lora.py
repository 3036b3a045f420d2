"""Low-rank recovery: equal to the formula, merged into plain weights, zeros kept, the same bytes after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from recompress.errors import InputError
from recompress.methods.pruning.mask import sparsity
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.methods.training import lora
from recompress.methods.training.lora import Lora, adapt, merge
from recompress.methods.training_probe import losses
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.surgery import weight_of
from recompress.training.run import weights_sha256
from tests.killed import Killed, killed_at
from tests.six import checkpoint_of, each, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
rank_of = jaxtyped(typechecker=beartype)(lora.rank_of)
QUICK: dict[str, Any] = {"epochs": 1, "learning_rate": 2e-2, "batch_size": 8, "precision": "fp32", "rank": 2}


def sparse(family: str, share: float = 0.5) -> Checkpoint:
    checkpoint = checkpoint_of(family)
    checkpoint.info = replace(checkpoint.info, steps=("magnitude",))
    for i, (_, linear) in enumerate(encoder_linears(checkpoint.torch_network)):
        if i % 2 == 0:
            linear.weight.data[torch.rand(linear.weight.shape, generator=torch.Generator().manual_seed(i)) < share] = 0
    return checkpoint


def outputs(network: Any, features: list[dict[str, list[int]]]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [network(input_ids=torch.tensor([feature["input_ids"]])).logits for feature in features]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_adapted_network_computes_the_formula_before_and_after_merging(family: str) -> None:
    """W + alpha / rank * B A, and where W has zeros, nothing is added to them; at first nothing is added at all."""
    checkpoint = sparse(family)
    network, features = checkpoint.torch_network, features_of(checkpoint, family)
    before, weights = outputs(network, features), {name: weight_of(linear).clone() for name, linear in encoder_linears(network)}
    names = adapt(network, Lora(rank=3, alpha=6), 0, hold=True)
    assert set(names) == set(weights)
    for was, now in zip(before, outputs(network, features), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-5, atol=1e-5)
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == {
        f"{name}.lora_{part}.default.weight" for name in names for part in "AB"
    }
    expected = {}
    for i, name in enumerate(names):
        adapter: Any = network.get_submodule(name)
        first, second = adapter.lora_A["default"].weight, adapter.lora_B["default"].weight
        second.data.normal_(generator=torch.Generator().manual_seed(i)).mul_(0.1)
        expected[name] = weights[name] + 6 / 3 * (second @ first).detach() * (weights[name] != 0)
    adapted = outputs(network, features)
    merge(network, names)
    for name, linear in encoder_linears(network):
        torch.testing.assert_close(weight_of(linear), expected[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(weight_of(linear) == 0, weights[name] == 0)
    for was, now, first_ in zip(adapted, outputs(network, features), before, strict=True):
        torch.testing.assert_close(now, was, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(now, first_, atol=1e-3)
    assert not [name for name, _ in network.named_modules() if "lora" in name]
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("family", each())
def test_on_every_architecture_zeros_stay_and_a_plain_model_is_left(family: str, tmp_path: Path) -> None:
    save(sparse(family), tmp_path / "source")
    report = run_step("lora", Lora(**QUICK), tmp_path / "source", tmp_path / "target", inputs_of(family, tmp_path / "work", 24))
    assert {claim["what"]: claim["measured"] for claim in report.claims if claim["bound"] == "equal"} == {
        claim["what"]: claim["asked"] for claim in report.claims if claim["bound"] == "equal"
    }
    before, after = load(tmp_path / "source").torch_network, load(tmp_path / "target").torch_network
    assert sparsity(after) == sparsity(before) > 0.1
    assert after.state_dict().keys() == before.state_dict().keys()
    changed = {name for name, tensor in before.state_dict().items() if not tensor.equal(after.state_dict()[name])}
    assert changed == {f"{name}.weight" for name, _ in encoder_linears(before)}


def test_layers_that_share_weights_share_their_adapters(tmp_path: Path) -> None:
    from recompress.models.shared_layers import share, shares_of

    checkpoint = checkpoint_of("bert")
    share(checkpoint.torch_network, (0, 0))
    save(checkpoint, tmp_path / "source")
    run_step("lora", Lora(**QUICK), tmp_path / "source", tmp_path / "target", inputs_of("bert", tmp_path / "work", 24))
    assert shares_of(load(tmp_path / "target").torch_network) == (0, 0)


def test_it_learns(tmp_path: Path) -> None:
    method, points = get_method("lora"), []
    inputs = replace(inputs_of("llama", tmp_path, 60), curve=lambda _, point: points.append(point))
    done = method.run(checkpoint_of("llama"), Lora(**(QUICK | {"epochs": 3})), inputs)
    scores = [point["dev_negative_bits_per_byte"] for point in points if "dev_negative_bits_per_byte" in point]
    assert scores == sorted(scores), "better after each epoch"
    was, now = losses((checkpoint_of("llama"), done), inputs.dev)
    assert now < was - 0.7


@pytest.mark.parametrize("family", ["gpt2", "roberta"])
def test_killed_and_resumed_it_ends_with_the_same_weights(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = get_method("lora")

    def run(place: str) -> str:
        torch.manual_seed(len(place))  # what was drawn elsewhere changes nothing
        return weights_sha256(method.run(sparse(family), Lora(**QUICK), inputs_of(family, tmp_path / place, 40)).torch_network)

    expected = run("whole")
    killed_at(monkeypatch, 3)
    with pytest.raises(Killed):
        run("killed")
    monkeypatch.undo()
    assert run("killed") == expected
    assert run("killed") == expected, "killed when the training was over"


def test_the_rank_of_a_change_is_found_through_rounding() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(60, 40, generator=draw)
    for rank in (0, 1, 3):
        change = (weight + 0.05 * torch.randn(60, rank, generator=draw) @ torch.randn(rank, 40, generator=draw)) - weight
        assert rank_of(change, float(weight.abs().max()), 7) == rank
    assert rank_of(0.01 * torch.randn(60, 40, generator=draw), 4.0, 7) == 7


def test_a_change_of_another_kind_is_found(tmp_path: Path) -> None:
    before, after = checkpoint_of("bert"), checkpoint_of("bert")
    weight = weight_of(dict(encoder_linears(after.torch_network))["bert.encoder.layer.0.output.dense"])
    weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    after.torch_network.get_input_embeddings().weight.data += 1
    inputs = inputs_of("bert", tmp_path)
    claims = {claim.what: claim for claim in lora.prove(before, after, Lora(rank=2), inputs)}
    assert {"largest rank of a change", "other tensors that changed", "matrices that changed"} <= {what for what, claim in claims.items() if not claim.kept}
    assert claims["largest rank of a change"].measured > 2
    assert {claim.what for claim in lora.prove(before, before, Lora(), inputs) if not claim.kept} == {"weights moved", "matrices that changed"}


def test_a_rank_that_no_matrix_has_is_refused(tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "source")
    with pytest.raises(InputError, match=r"rank 33 is more than the smaller side of .*query, which is 32 x 32; lower it"):
        run_step("lora", Lora(rank=33), tmp_path / "source", tmp_path / "target", inputs_of("bert", tmp_path / "work"))
    assert not (tmp_path / "target").exists()


def test_the_seed_decides_where_adapters_begin() -> None:
    begun = []
    for seed in (0, 0, 1):
        network = checkpoint_of("bert").torch_network
        adapted: Any = network.get_submodule(adapt(network, Lora(rank=2), seed, hold=False)[0])
        begun.append(next(weight.detach() for name, weight in adapted.named_parameters() if "lora_A" in name))
    assert torch.equal(begun[0], begun[1])
    assert not torch.equal(begun[0], begun[2])
