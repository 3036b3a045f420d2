"""Groups of layers with one set of weights: the orders of the paper, the mean and the first, on all six architectures, trained and compressed further."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import EffectMissing, InputError
from recompress.methods.chain import check_chain
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, parameters_in, run_step
from recompress.methods.sharing.share_layers import ShareLayers, shared_weights, shares_for
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import load, save
from recompress.models.shared_layers import shares_of
from recompress.models.surgery import keep_neurons
from recompress.training.run import train, weights_sha256
from tests.cut import deep, factor_embeddings, factor_layers, share_two
from tests.six import ENCODERS, checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "share_layers"


def step(family: str, place: Path, target: str = NAME, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(deep(family), place / "source")
    return run_step(NAME, get_method(NAME).config(**dials), place / "source", place / target, inputs_of(family, place / f"work-{target}", 24))


@pytest.mark.parametrize(
    ("layers", "dials", "expected"),
    [
        (6, {"groups": 3, "order": "sequence"}, "001122"),
        (6, {"groups": 3, "order": "cycle"}, "012012"),
        (6, {"groups": 3, "order": "cycle_rev"}, "012210"),
        (9, {"groups": 3, "order": "cycle_rev"}, "012012210"),
        (6, {"groups": 2, "order": "cycle_rev"}, "010110"),
        (7, {"groups": 3, "order": "cycle"}, "0120120"),
        (7, {"groups": 3}, "0001122"),
        (4, {"groups": 3, "order": "cycle_rev"}, "0122"),
        (4, {"groups": 1}, "0000"),
        (4, {"groups": 4}, "0123"),
        (4, {"groups": 4, "order": "cycle_rev"}, "0123"),
        (5, {"groups": [[0, 3], [2, 4]]}, "01232".replace("3", "0")),
        (5, {"groups": [[4, 1]]}, "01231"),
    ],
)
def test_orders(layers: int, dials: dict[str, Any], expected: str) -> None:
    """As letters of the paper; every group's name here is its first appearance."""
    shares = shares_for(ShareLayers(**dials), layers)
    names = {source: str(i) for i, source in enumerate(dict.fromkeys(shares))}
    spelled = "".join(names[source] for source in shares)
    first = {letter: str(i) for i, letter in enumerate(dict.fromkeys(expected))}
    assert spelled == "".join(first[letter] for letter in expected)
    assert all(source <= i and shares[source] == source for i, source in enumerate(shares))


def test_the_mean_and_the_first() -> None:
    layers = [{"a": torch.tensor([1.0, 4.0])}, {"a": torch.tensor([3.0, 0.0])}, {"a": torch.tensor([2.0, 5.0])}]
    assert shared_weights(layers, "mean")["a"].tolist() == [2.0, 3.0]
    assert shared_weights(layers, "first")["a"].tolist() == [1.0, 4.0]


@pytest.mark.parametrize("family", each())
def test_on_every_architecture(family: str, tmp_path: Path) -> None:
    report = step(family, tmp_path, groups=2, order="cycle_rev")
    old, new = load(tmp_path / "source").torch_network, load(tmp_path / NAME).torch_network
    before, after = layers_of(old), layers_of(new)
    assert shares_of(new) == (0, 1, 1, 0)
    assert after[0].query is after[3].query
    torch.testing.assert_close(after[1].out.weight, (before[1].out.weight + before[2].out.weight) / 2)
    assert report.parameters == report.parameters_before - 2 * sum(parameter.numel() for parameter in before[0].module.parameters())
    assert load(tmp_path / NAME).info.shares == (0, 1, 1, 0)


def test_as_many_groups_as_layers_are_refused_also_where_layers_are_shared_already(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="share_layers leaves 4 different layers, and the model has as many already; ask for fewer groups"):
        step("bert", tmp_path, groups=4)
    step("bert", tmp_path, "shared", groups=2)
    save(load(tmp_path / "shared"), tmp_path / "more" / "source")
    with pytest.raises(InputError, match="share_layers leaves 2 different layers, and the model has as many already"):
        step("bert", tmp_path / "more", groups=2)


@pytest.mark.parametrize("weights", ["mean", "first"])
def test_weights_that_are_not_those_of_the_group_are_refused(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"mean": "first", "first": "mean"}[weights]
    monkeypatch.setattr("recompress.methods.sharing.share_layers.shared_weights", lambda layers, _: shared_weights(layers, other))
    with pytest.raises(EffectMissing, match=f"largest distance from the {weights} of a group"):
        step("bert", tmp_path, groups=2, weights=weights)


@pytest.mark.parametrize("weights", ["mean", "first"])
def test_equal_layers_keep_their_outputs(weights: str, tmp_path: Path) -> None:
    checkpoint = deep("bert")
    for layer in layers_of(checkpoint.torch_network)[1:]:
        layer.module.load_state_dict(layers_of(checkpoint.torch_network)[0].module.state_dict())
    save(checkpoint, tmp_path / "source")
    step("bert", tmp_path, groups=2, weights=weights)
    was, now = (load(tmp_path / which).torch_network.state_dict() for which in ("source", NAME))
    assert all(torch.equal(tensor, was[name]) for name, tensor in now.items())


def test_lists_leave_other_layers_alone(tmp_path: Path) -> None:
    step("gpt2", tmp_path, groups=[[3, 1]], weights="first")
    old, new = (layers_of(load(tmp_path / which).torch_network) for which in ("source", NAME))
    assert load(tmp_path / NAME).info.shares == (0, 1, 2, 1)
    for i, source in enumerate((0, 1, 2, 1)):
        assert torch.equal(new[i].neurons_out.weight, old[source].neurons_out.weight)


@pytest.mark.parametrize("family", ["distilbert", "llama"])
def test_training_teaches_the_one_tensor(family: str, tmp_path: Path) -> None:
    """Its gradient is the sum over the places where it is used, and it is one tensor afterwards, also out of a training checkpoint."""
    step(family, tmp_path, groups=2)
    network: Any = load(tmp_path / NAME).torch_network
    layers = layers_of(network)
    assert sum(parameter is layers[0].out.weight for parameter in network.parameters()) == 1
    config = get_method("finetune").config(epochs=2, batch_size=8, learning_rate=1e-3)
    report = run_step("finetune", config, tmp_path / NAME, tmp_path / "trained", inputs_of(family, tmp_path / "work", 24))
    trained = load(tmp_path / "trained")
    assert trained.info.shares == (0, 0, 2, 2)
    assert not torch.equal(layers_of(trained.torch_network)[0].out.weight, layers[0].out.weight)
    assert report.parameters == report.parameters_before == parameters_in(trained)


@pytest.mark.parametrize("family", ENCODERS[:1])
def test_the_gradient_is_the_sum_of_those_of_layers_that_are_equal_but_apart(family: str) -> None:
    from recompress.models.shared_layers import share

    def gradients(checkpoint: Any) -> list[torch.Tensor]:
        network = checkpoint.torch_network
        network(input_ids=torch.tensor([[5, 6, 7]])).logits.square().sum().backward()
        return [layer.query.weight.grad for layer in layers_of(network)]

    apart, together = deep(family), deep(family)
    for layer in layers_of(apart.torch_network)[1:]:
        layer.module.load_state_dict(layers_of(apart.torch_network)[0].module.state_dict())
    share(together.torch_network, (0, 0, 0, 0))
    torch.testing.assert_close(gradients(together)[0], torch.stack(gradients(apart)).sum(0), rtol=1e-4, atol=1e-4)


def test_factoring_and_packing_after_it(tmp_path: Path) -> None:
    step("llama", tmp_path, groups=2)
    inputs = inputs_of("llama", tmp_path / "work", 24)
    run_step("svd", get_method("svd").config(parameters=0.5), tmp_path / NAME, tmp_path / "svd", inputs)
    run_step("rtn", get_method("rtn").config(bits=4), tmp_path / "svd", tmp_path / "rtn", inputs)
    sizes = [(tmp_path / which / "model.safetensors").stat().st_size for which in ("source", NAME, "svd", "rtn")]
    assert sizes == sorted(sizes, reverse=True)
    assert load(tmp_path / "rtn").info.shares == (0, 0, 2, 2)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dials, reason in [
        ({"groups": 5}, "leaves 5 different layers, but the model has 4; ask for at most that many"),
        ({"groups": [[0, 4]]}, "names layer 4, but the model has 4, numbered from 0 to 3"),
        ({"groups": [[0, 1], [1, 2]]}, "names layer 1 twice"),
        ({"groups": [[0]]}, "at least two layers in each group"),
        ({"groups": []}, "at least two layers in each group"),
        ({"groups": [[0, 1]], "order": "cycle"}, "leave it out where groups lists them"),
    ]:
        with pytest.raises(InputError, match=reason):
            step("bert", tmp_path, **dials)
    step("bert", tmp_path, groups=2)
    with pytest.raises(InputError, match="layers 0 and 1 share their weights already; put both in one group"):
        run_step(NAME, get_method(NAME).config(groups=[[1, 2]]), tmp_path / NAME, tmp_path / "x", inputs_of("bert", tmp_path / "w"))
    with pytest.raises(InputError, match="prune_structure cannot follow share_layers: .*cut structure first"):
        check_chain([(NAME, ShareLayers()), ("prune_structure", get_method("prune_structure").config(neurons=0.5))], "token-classification", "bert")
    with pytest.raises(InputError, match="share_layers cannot follow svd: layers are shared before they are factored"):
        check_chain([("svd", get_method("svd").config(energy=0.5)), (NAME, ShareLayers())], "token-classification", "bert")
    monkeypatch.setattr("recompress.methods.sharing.share_layers.share", lambda *_: None)
    with pytest.raises(EffectMissing, match="different layers: asked for 1, measured 4"):
        step("bert", tmp_path, "y")
    assert not (tmp_path / "y").exists()


def test_layers_of_other_shapes_and_factored_ones_are_refused(tmp_path: Path) -> None:
    method, odd = get_method(NAME), checkpoint_of("bert")
    keep_neurons(layers_of(odd.torch_network)[1], range(9))
    with pytest.raises(InputError, match="layers 0 and 1 have different shapes"):
        method.run(odd, ShareLayers(), inputs_of("bert", tmp_path))
    with pytest.raises(InputError, match="layers that are factored have no mean"):
        method.run(factor_layers(checkpoint_of("bert")), ShareLayers(), inputs_of("bert", tmp_path))
    checkpoint = method.run(factor_layers(checkpoint_of("bert")), ShareLayers(weights="first"), inputs_of("bert", tmp_path))
    assert shares_of(checkpoint.torch_network) == (0, 0)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_training_of_shared_and_factored_layers_that_is_killed_ends_with_the_same_bytes(family: str, tmp_path: Path) -> None:
    """A training checkpoint keeps each tensor once, and gives it back to all places."""
    from transformers import TrainerCallback

    class Kill(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    config = get_method("finetune").config(epochs=2, batch_size=8, precision="fp32")

    def learn(place: str, *callbacks: Any) -> str:
        checkpoint, inputs = factor_embeddings(factor_layers(share_two(deep(family)))), inputs_of(family, tmp_path, 24)
        trained = train(checkpoint, inputs.train, inputs.dev, config, 0, tmp_path / place, callbacks=callbacks)
        assert shares_of(trained.torch_network) == (0, 1, 0, 1)
        return weights_sha256(trained.torch_network)

    with pytest.raises(KeyboardInterrupt):
        learn("killed", Kill())
    assert [path.name for path in (tmp_path / "killed").glob("checkpoint-*")] == ["checkpoint-3"]
    assert learn("killed") == learn("whole")
