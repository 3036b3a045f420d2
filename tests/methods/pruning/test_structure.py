"""Heads, groups, neurons, dimensions and layers go as asked, the weakest first, and the choice follows from the data and the seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recompress.errors import InputError, IntegrityError
from recompress.integrity.digest import sha256_file
from recompress.methods.calibration import calibration_features
from recompress.methods.chain import check_chain
from recompress.methods.pruning.by_loss import without_each_layer
from recompress.methods.pruning.cut import strongest
from recompress.methods.pruning.how_many import removed
from recompress.methods.pruning.importance import by_chance, by_magnitude
from recompress.methods.pruning.structure import PruneStructure, chosen_layers
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import layers_of, shape_of
from recompress.models.checkpoint import Checkpoint, load, read_info, save
from recompress.models.heads import head_of
from recompress.models.pretrained import from_base
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from tests.six import DECODERS, ENCODERS, HEADS, HIDDEN, LANGUAGE, LAYERS, NEURONS, SIX, benchmark_of, checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
IMPORTANCES = ("activation", "magnitude", "taylor", "random")


def source_of(family: str, place: Path, **changes: Any) -> Path:
    save(checkpoint_of(family, **changes), place / "source")
    return place / "source"


def prune(family: str, source: Path, target: Path, **dials: Any) -> StepReport:
    config = PruneStructure(**{"calibration_examples": 12, **dials})
    return run_step("prune_structure", config, source, target, inputs_of(family, target.parent / "work"))


def deeper(family: str, layers: int) -> dict[str, int]:
    return {{"distilbert": "n_layers", "gpt2": "n_layer"}.get(family, "num_hidden_layers"): layers}


def same_outputs(family: str, left: Checkpoint, right: Checkpoint) -> None:
    features = features_of(left, family)
    for a, b in zip(runtime_of(left).logits(features), runtime_of(right).logits(features), strict=True):
        torch.testing.assert_close(torch.from_numpy(b), torch.from_numpy(a), rtol=1e-4, atol=1e-5)


def test_removing_nothing_is_refused(tmp_path: Path) -> None:
    source = source_of("bert", tmp_path)
    with pytest.raises(InputError, match="prune_structure keeps 2 layers, and the model has 2 already; ask for fewer, or leave the step out"):
        prune("bert", source, tmp_path / "target", layers=LAYERS)
    with pytest.raises(InputError, match="prune_structure is told to cut nothing; give heads, groups, neurons, hidden or layers"):
        check_chain([("prune_structure", PruneStructure())], "token-classification", "bert")


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama"])
def test_as_many_go_as_asked(family: str, scope: str, importance: str, tmp_path: Path) -> None:
    report = prune(family, source_of(family, tmp_path), tmp_path / "target", heads=0.5, neurons=0.3, hidden=0.25, importance=importance, scope=scope)
    network = load(tmp_path / "target").torch_network
    layers = layers_of(network)
    assert sum(layer.heads for layer in layers) == LAYERS * HEADS // 2
    total = LAYERS * (NEURONS - int(0.3 * NEURONS)) if scope == "layer" else LAYERS * NEURONS - int(0.3 * LAYERS * NEURONS)
    assert sum(layer.neurons for layer in layers) == total
    assert network.config.hidden_size == network.get_input_embeddings().weight.shape[1] == 24
    assert {layer.head_size for layer in layers} == {HIDDEN // HEADS}
    assert report.parameters < report.parameters_before
    assert report.size_bytes < report.size_bytes_before
    if scope == "layer":
        assert {layer.heads for layer in layers} == {2}


@pytest.mark.parametrize("family", SIX)
def test_the_weakest_go_by_magnitude(family: str, tmp_path: Path) -> None:
    changes = {"num_key_value_heads": HEADS} if family == "llama" else {}
    source = source_of(family, tmp_path, **changes)
    prune(family, source, tmp_path / "target", heads=0.25, neurons=0.5, hidden=0.5, importance="magnitude")
    whole = layers_of(load(source).torch_network)
    scores = by_magnitude(whole)
    rows = strongest(scores.hidden, HIDDEN // 2)
    for i, (old, new) in enumerate(zip(whole, layers_of(load(tmp_path / "target").torch_network), strict=True)):
        neurons = strongest(scores.neurons[i], NEURONS // 2)
        assert torch.equal(weight_of(new.neurons_in[0]), weight_of(old.neurons_in[0])[neurons][:, rows])
        channels = [head * 8 + c for head in strongest(scores.heads[i], 3) for c in range(8)]
        values = [2 * HIDDEN + channel for channel in channels] if family == "gpt2" else channels
        assert torch.equal(weight_of(new.value)[-24:], weight_of(old.value)[values][:, rows])
        assert torch.equal(weight_of(new.out), weight_of(old.out)[rows][:, channels])


@pytest.mark.parametrize("seed", [0, 7])
def test_by_chance_the_seed_decides(seed: int, tmp_path: Path) -> None:
    """What is left of two seeds is what each of them draws: others are compared with more than one draw."""
    save(checkpoint_of("bert"), tmp_path / "source")
    config = PruneStructure(heads=0.5, neurons=0.5, importance="random")
    run_step("prune_structure", config, tmp_path / "source", tmp_path / "target", inputs_of("bert", tmp_path / "work", seed=seed))
    whole = layers_of(load(tmp_path / "source").torch_network)
    scores, others = by_chance(whole, seed), by_chance(whole, seed + 1)
    for i, (old, new) in enumerate(zip(whole, layers_of(load(tmp_path / "target").torch_network), strict=True)):
        neurons = strongest(scores.neurons[i], NEURONS // 2)
        assert torch.equal(weight_of(new.neurons_in[0]), weight_of(old.neurons_in[0])[neurons])
        assert neurons != strongest(others.neurons[i], NEURONS // 2)


def silence(checkpoint: Checkpoint, family: str) -> None:
    """Half of the neurons and one head of each layer (Llama: one group) hand on nothing."""
    for layer in layers_of(checkpoint.torch_network):
        quiet = [layer.neurons_in[-1]]
        weight_of(quiet[0])[::2] = 0
        if quiet[0].bias is not None:
            quiet[0].bias.data[::2] = 0  # gelu(0) = 0, and a gate's product with 0 is 0
        start = 2 * HIDDEN if family == "gpt2" else 0
        weight_of(layer.value)[start + 8 : start + 16] = 0
        if layer.value.bias is not None:
            layer.value.bias.data[start + 8 : start + 16] = 0


@pytest.mark.parametrize("importance", ["activation", "taylor"])
@pytest.mark.parametrize("family", SIX)
def test_heads_and_neurons_that_never_speak_are_found_and_the_answers_stay(family: str, importance: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family)
    silence(checkpoint, family)
    save(checkpoint, tmp_path / "source")
    dials = {"groups": 0.5} if family == "llama" else {"heads": 0.25}
    prune(family, tmp_path / "source", tmp_path / "target", neurons=0.5, importance=importance, **dials)
    after = load(tmp_path / "target")
    same_outputs(family, checkpoint, after)
    if family == "llama":
        assert [(layer.heads, layer.groups) for layer in layers_of(after.torch_network)] == [(2, 1)] * LAYERS


@pytest.mark.parametrize("family", ["bert", *DECODERS])
def test_influence_drops_the_layer_that_does_nothing(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family, **deeper(family, 3))
    layers = layers_of(checkpoint.torch_network)
    idle: Any = layers[1].module
    with torch.no_grad():
        for linear in (layers[1].out, layers[1].neurons_out):
            linear.weight.zero_()
            if linear.bias is not None:
                linear.bias.zero_()
        # Where norms stand behind the sum, they pass on what is normed already.
        for norm in (idle.attention.output.LayerNorm, idle.output.LayerNorm, layers[0].module.output.LayerNorm) if family == "bert" else ():
            norm.weight.fill_(1)
            norm.bias.zero_()
    save(checkpoint, tmp_path / "source")
    prune(family, tmp_path / "source", tmp_path / "target", layers=2)
    features = features_of(checkpoint, family)
    for old, new in zip(runtime_of(checkpoint).logits(features), runtime_of(load(tmp_path / "target")).logits(features), strict=True):
        torch.testing.assert_close(torch.from_numpy(new), torch.from_numpy(old), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["distilbert", "llama"])
def test_loss_drops_the_layer_without_which_the_loss_is_lowest(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family, **deeper(family, 3))
    save(checkpoint, tmp_path / "source")
    prune(family, tmp_path / "source", tmp_path / "target", layers=2, keep_layers="loss")
    seen = calibration_features(checkpoint, inputs_of(family, tmp_path / "w"), 12)
    gone = int(without_each_layer(checkpoint.torch_network, 3, seen).argmin())
    matrices = [layer.out.weight for i, layer in enumerate(layers_of(checkpoint.torch_network)) if i != gone]
    assert all(torch.equal(new.out.weight, old) for new, old in zip(layers_of(load(tmp_path / "target").torch_network), matrices, strict=True))


def plain(family: str, directory: Path) -> Checkpoint:
    ours = load(directory)
    network = head_of(benchmark_of(family)).auto_model().from_pretrained(directory)
    return Checkpoint(network, ours.tokenizer, ours.info)


@pytest.mark.parametrize("family", SIX)
def test_shapes_that_a_config_can_say_load_with_plain_transformers(family: str, tmp_path: Path) -> None:
    """Layers and neurons always; heads with the width that they make together; Llama any heads that divide its width."""
    source = source_of(family, tmp_path)
    heads = {"heads": 0.5, "hidden": 0.5}
    for name, dials in {"some": {"layers": 1, "neurons": 0.5}, "all": {"layers": 1, "neurons": 0.5, **heads}}.items():
        prune(family, source, tmp_path / name, **dials)
        info = read_info(tmp_path / name)
        assert (info.heads, info.groups, info.neurons, info.head_size) == ((), (), (), None)
        same_outputs(family, load(tmp_path / name), plain(family, tmp_path / name))
    if family == "llama":
        prune(family, source, tmp_path / "groups", groups=0.5)
        assert plain(family, tmp_path / "groups").torch_network.config.num_key_value_heads == 1


@pytest.mark.parametrize("family", SIX)
def test_all_other_shapes_come_back_through_load_and_plain_transformers_refuses_them(family: str, tmp_path: Path) -> None:
    source = source_of(family, tmp_path, **({"num_key_value_heads": HEADS} if family == "llama" else {}))
    prune(family, source, tmp_path / "odd", heads=0.25, hidden=0.2)
    assert {(layer.heads, layer.head_size) for layer in layers_of(load(tmp_path / "odd").torch_network)} == {(3, 8)}
    with pytest.raises(Exception, match="mismatch"):
        plain(family, tmp_path / "odd")
    prune(family, tmp_path / "odd", tmp_path / "twice", neurons=0.5, hidden=0.5)
    assert load(tmp_path / "twice").torch_network.config.hidden_size == 13
    info = (tmp_path / "odd" / "recompress.json").read_text()
    (tmp_path / "odd" / "recompress.json").write_text(info.replace('"head_size": 8', '"head_size": 4'))
    if '"head_size": 8' in info:
        with pytest.raises(IntegrityError):
            load(tmp_path / "odd")


@pytest.mark.parametrize("family", ENCODERS)
def test_a_narrower_encoder_can_be_the_base_of_another_head(family: str, tmp_path: Path) -> None:
    prune(family, source_of(family, tmp_path), tmp_path / "narrow", hidden=0.25)
    other = "text-classification" if benchmark_of(family) == "token-classification" else "token-classification"
    checkpoint = from_base(tmp_path / "narrow", other, ("a", "b"), 16, 0)
    assert {(layer.heads, layer.head_size, shape_of(layer.query)) for layer in layers_of(checkpoint.torch_network)} == {(HEADS, 8, (HIDDEN, 24))}
    save(checkpoint, tmp_path / "again")
    assert load(tmp_path / "again").torch_network.config.hidden_size == 24


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_same_seed_gives_the_same_bytes(importance: str, tmp_path: Path) -> None:
    source = source_of("distilbert", tmp_path)
    for name in ("a", "b"):
        prune("distilbert", source, tmp_path / name, heads=0.5, neurons=0.5, hidden=0.5, layers=1, importance=importance, keep_layers="loss")
    assert sha256_file(tmp_path / "a" / "model.safetensors") == sha256_file(tmp_path / "b" / "model.safetensors")


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_pruning_twice_goes_on_from_where_it_stands(family: str, tmp_path: Path) -> None:
    source = source_of(family, tmp_path)
    prune(family, source, tmp_path / "once", heads=0.5, neurons=0.5, scope="global")
    prune(family, tmp_path / "once", tmp_path / "twice", heads=0.5, neurons=0.5)
    layers = layers_of(load(tmp_path / "once").torch_network)
    expected = [(layer.heads - layer.heads // 2, layer.neurons - layer.neurons // 2) for layer in layers]
    assert [(layer.heads, layer.neurons) for layer in layers_of(load(tmp_path / "twice").torch_network)] == expected


@pytest.mark.parametrize(
    ("family", "dials", "message"),
    [
        ("bert", {"layers": 4}, "prune_structure keeps 4 layers, but the model has 2; ask for at most that many"),
        ("bert", {"heads": 0.99, "scope": "global"}, "heads: 0.99 leaves 1 for 2 layers"),
        ("bert", {"heads": 0.1}, "heads: 0.1 of 4 is less than one"),
        ("llama", {"heads": 0.4}, "heads: 0.4 of 2 is less than one"),
        ("llama", {"groups": 0.99, "scope": "global"}, "groups: 0.99 leaves 1 for 2 layers"),
        ("gpt2", {"groups": 0.5}, "groups: 0.5 of a model whose query heads have keys and values of their own; ask for heads instead"),
        ("bert", {"hidden": 0.01}, "hidden: 0.01 of 32 is less than one"),
    ],
)
def test_what_cannot_be_is_refused(family: str, dials: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prune(family, source_of(family, tmp_path), tmp_path / "target", **dials)
    assert not (tmp_path / "target").exists()


def test_layers_of_different_widths_are_not_dropped(tmp_path: Path) -> None:
    prune("bert", source_of("bert", tmp_path), tmp_path / "odd", neurons=0.45, scope="global")
    assert load(tmp_path / "odd").info.neurons
    with pytest.raises(InputError, match="drop layers first"):
        prune("bert", tmp_path / "odd", tmp_path / "target", layers=1)


def test_layers_that_are_scaled_by_their_number_are_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scale_attn_by_inverse_layer_idx"):
        prune("gpt2", source_of("gpt2", tmp_path, scale_attn_by_inverse_layer_idx=True), tmp_path / "target", layers=1)


@pytest.mark.parametrize("family", SIX)
def test_every_architecture_and_benchmark_is_declared(family: str) -> None:
    check_chain([("prune_structure", PruneStructure(hidden=0.5))], benchmark_of(family), family)
    assert benchmark_of("gpt2") == LANGUAGE


@pytest.mark.parametrize("dials", [{"heads": 1.0}, {"neurons": -0.1}, {"hidden": 1.0}, {"layers": 0}, {"importance": "luck"}, {"neuron": 0.5}])
def test_settings_out_of_range_are_refused_by_type(dials: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneStructure(**dials)


@given(st.integers(1, 24), st.data())
def test_chosen_layers_are_in_order_and_as_many_as_asked(there: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, there))
    worth = torch.tensor(data.draw(st.lists(st.floats(0, 2), min_size=there, max_size=there)))
    for keep in ("influence", "loss", "first", "last", "spread"):
        stay = chosen_layers(PruneStructure(layers=count, keep_layers=keep), worth)
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
