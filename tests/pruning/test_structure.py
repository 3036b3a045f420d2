"""Heads, neurons and layers go as asked, the weakest first, and the choice follows from the data and the seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoModelForTokenClassification

from recompress.architecture import layers_of
from recompress.checkpoint import Checkpoint, load
from recompress.compression import StepReport, run_step
from recompress.digest import sha256_file
from recompress.errors import InputError
from recompress.pruning.importance import by_magnitude, strongest
from recompress.pruning.structure import PruneStructure, chosen_layers, removed
from recompress.runtimes import runtime_of
from recompress.surgery import weight_of
from tests.families import FAMILIES, HEADS, LAYERS, NEURONS, checkpoint_of, features_of, inputs_of, saved


def prune(source: Path, target: Path, **dials: Any) -> StepReport:
    return run_step("prune_structure", PruneStructure(calibration_examples=12, **dials), source, target, inputs_of(target.parent / "work"))


@pytest.mark.parametrize("family", FAMILIES)
def test_removing_nothing_changes_nothing(family: str, tmp_path: Path) -> None:
    source = saved(family, tmp_path / "source")
    prune(source, tmp_path / "target", layers=LAYERS)
    assert sha256_file(source / "model.safetensors") == sha256_file(tmp_path / "target" / "model.safetensors")


@pytest.mark.parametrize("importance", ["activation", "magnitude", "random"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_as_many_go_as_asked(importance: str, scope: str, tmp_path: Path) -> None:
    source = saved("roberta", tmp_path / "source")
    report = prune(source, tmp_path / "target", heads=0.5, neurons=0.3, importance=importance, scope=scope)
    layers = layers_of(load(tmp_path / "target").torch_network)
    assert sum(layer.heads for layer in layers) == LAYERS * HEADS // 2
    total = LAYERS * (NEURONS - int(0.3 * NEURONS)) if scope == "layer" else LAYERS * NEURONS - int(0.3 * LAYERS * NEURONS)
    assert sum(layer.neurons for layer in layers) == total
    assert report.parameters < report.parameters_before
    assert report.size_bytes < report.size_bytes_before
    if scope == "layer":
        assert {layer.heads for layer in layers} == {2}


def test_the_weakest_go_by_magnitude(tmp_path: Path) -> None:
    source = saved("bert", tmp_path / "source")
    prune(source, tmp_path / "target", heads=0.25, neurons=0.5, importance="magnitude")
    for old, new in zip(layers_of(load(source).torch_network), layers_of(load(tmp_path / "target").torch_network), strict=True):
        heads, neurons = by_magnitude(old)
        kept = strongest(neurons, NEURONS // 2)
        assert torch.equal(weight_of(new.neurons_in[0]), weight_of(old.neurons_in[0])[kept])
        channels = [head * 8 + i for head in strongest(heads, 3) for i in range(8)]
        assert torch.equal(weight_of(new.value), weight_of(old.value)[channels])
        assert torch.equal(weight_of(new.out), weight_of(old.out)[:, channels])


def test_activation_finds_the_neurons_and_heads_that_never_speak(tmp_path: Path) -> None:
    """Half of the neurons and one head of each layer are made silent: cutting them must not change the answers."""
    from recompress.checkpoint import save

    checkpoint = checkpoint_of("bert")
    for layer in layers_of(checkpoint.torch_network):
        weight_of(layer.neurons_in[0])[::2] = 0
        layer.neurons_in[0].bias.data[::2] = 0  # gelu(0) = 0
        weight_of(layer.value)[8:16] = 0
        layer.value.bias.data[8:16] = 0
    save(checkpoint, tmp_path / "source")
    prune(tmp_path / "source", tmp_path / "target", heads=0.25, neurons=0.5)
    features = features_of(checkpoint)
    for old, new in zip(runtime_of(checkpoint).logits(features), runtime_of(load(tmp_path / "target")).logits(features), strict=True):
        torch.testing.assert_close(torch.from_numpy(new), torch.from_numpy(old), rtol=1e-4, atol=1e-5)


def test_influence_drops_the_layer_that_does_nothing(tmp_path: Path) -> None:
    from recompress.checkpoint import save

    checkpoint = checkpoint_of("bert")
    idle = layers_of(checkpoint.torch_network)[1].module
    before = layers_of(checkpoint.torch_network)[0].module
    with torch.no_grad():
        # Both parts add nothing, and the norms pass on what is normed already.
        for linear in (idle.attention.output.dense, idle.output.dense):
            linear.weight.zero_()
            linear.bias.zero_()
        for norm in (idle.attention.output.LayerNorm, idle.output.LayerNorm, before.output.LayerNorm):
            norm.weight.fill_(1)
            norm.bias.zero_()
    save(checkpoint, tmp_path / "source")
    prune(tmp_path / "source", tmp_path / "target", layers=2)
    features = features_of(checkpoint)
    for old, new in zip(runtime_of(checkpoint).logits(features), runtime_of(load(tmp_path / "target")).logits(features), strict=True):
        torch.testing.assert_close(torch.from_numpy(new), torch.from_numpy(old), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_layers_and_neurons_load_with_plain_transformers(family: str, tmp_path: Path) -> None:
    prune(saved(family, tmp_path / "source"), tmp_path / "target", layers=1, neurons=0.5)
    ours = load(tmp_path / "target")
    plain = Checkpoint(AutoModelForTokenClassification.from_pretrained(tmp_path / "target"), ours.tokenizer, ours.info)
    assert ours.info.heads == ours.info.neurons == ()
    features = features_of(ours)
    for left, right in zip(runtime_of(ours).logits(features), runtime_of(plain).logits(features), strict=True):
        assert (left == right).all()


@pytest.mark.parametrize("importance", ["activation", "magnitude", "random"])
def test_the_same_seed_gives_the_same_bytes(importance: str, tmp_path: Path) -> None:
    source = saved("distilbert", tmp_path / "source")
    for name in ("a", "b"):
        prune(source, tmp_path / name, heads=0.5, neurons=0.5, layers=2, importance=importance)
    assert sha256_file(tmp_path / "a" / "model.safetensors") == sha256_file(tmp_path / "b" / "model.safetensors")


def test_pruning_twice_goes_on_from_where_it_stands(tmp_path: Path) -> None:
    source = saved("bert", tmp_path / "source")
    prune(source, tmp_path / "once", heads=0.5, neurons=0.5, scope="global")
    prune(tmp_path / "once", tmp_path / "twice", heads=0.5, neurons=0.5)
    layers = layers_of(load(tmp_path / "once").torch_network)
    expected = [(layer.heads - layer.heads // 2, layer.neurons - layer.neurons // 2) for layer in layers]
    assert [(layer.heads, layer.neurons) for layer in layers_of(load(tmp_path / "twice").torch_network)] == expected


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"layers": 4}, "prune_structure keeps 4 layers, but the model has 3; ask for at most that many"),
        ({"heads": 0.99, "scope": "global"}, "heads: 0.99 leaves 1 for 3 layers"),
    ],
)
def test_what_cannot_be_is_refused(dials: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prune(saved("bert", tmp_path / "source"), tmp_path / "target", **dials)
    assert not (tmp_path / "target").exists()


def test_layers_of_different_widths_are_not_dropped(tmp_path: Path) -> None:
    prune(saved("bert", tmp_path / "source"), tmp_path / "odd", neurons=0.45, scope="global")
    assert load(tmp_path / "odd").info.neurons
    with pytest.raises(InputError, match="drop layers first"):
        prune(tmp_path / "odd", tmp_path / "target", layers=2)


@pytest.mark.parametrize("dials", [{"heads": 1.0}, {"neurons": -0.1}, {"layers": 0}, {"importance": "luck"}, {"neuron": 0.5}])
def test_settings_out_of_range_are_refused_by_type(dials: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneStructure(**dials)


@given(st.integers(1, 24), st.data())
def test_chosen_layers_are_in_order_and_as_many_as_asked(there: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, there))
    influences = torch.tensor(data.draw(st.lists(st.floats(0, 2), min_size=there, max_size=there)))
    for keep in ("influence", "first", "last", "spread"):
        stay = chosen_layers(PruneStructure(layers=count, keep_layers=keep), influences)
        assert stay == sorted(set(stay))
        assert len(stay) == count
        assert 0 <= stay[0] <= stay[-1] < there


def test_where_the_layers_that_stay_stand() -> None:
    nothing = torch.zeros(6)
    assert chosen_layers(PruneStructure(layers=3, keep_layers="spread"), nothing) == [0, 2, 4]
    assert chosen_layers(PruneStructure(layers=2, keep_layers="first"), nothing) == [0, 1]
    assert chosen_layers(PruneStructure(layers=2, keep_layers="last"), nothing) == [4, 5]
    assert chosen_layers(PruneStructure(layers=2), torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3])) == [1, 3]


@given(st.integers(0, 99), st.integers(1, 5000))
def test_shares_are_rounded_down_to_whole_parts_whatever_floats_say(percent: int, count: int) -> None:
    assert removed(percent / 100, count) == percent * count // 100
