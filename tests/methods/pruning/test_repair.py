"""Repair: the fit against numpy's least squares, every matrix against a network run by hand behind those before it, and what the proof catches."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from pydantic import ValidationError
from torch import Tensor

from recompress.errors import EffectMissing, IntegrityError
from recompress.integrity.digest import sha256_file
from recompress.methods.calibration import calibration_features
from recompress.methods.pruning import repair as repair_file
from recompress.methods.pruning import structure
from recompress.methods.pruning.cut import Cut, apply_cut
from recompress.methods.pruning.repair import repair, sums_of
from recompress.methods.pruning.structure import PruneStructure
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import load, save
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from recompress.runtimes.batches import pad_batch
from tests.six import HIDDEN, NEURONS, SIX, checkpoint_of, each, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
least_squares = jaxtyped(typechecker=beartype)(repair_file.least_squares)
CPU = torch.device("cpu")


def tokens_of(count: int, inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=draw, dtype=torch.float64) + 2
    return x, x @ torch.randn(inputs, outputs, generator=draw, dtype=torch.float64) + torch.randn(count, outputs, generator=draw, dtype=torch.float64) + 1


@settings(max_examples=30, deadline=None)
@given(inputs=st.integers(1, 6), outputs=st.integers(1, 4), damping=st.floats(1e-4, 1), biased=st.booleans(), seed=st.integers(0, 999))
def test_the_fit_is_numpys_least_squares(inputs: int, outputs: int, damping: float, biased: bool, seed: int) -> None:
    """Damping as rows of their own: sqrt(ridge) for each input, with nothing missing; a bias as an input that is always 1 and not damped."""
    x, miss = tokens_of(12, inputs, outputs, seed)
    change, shift = least_squares(sums_of((outputs, inputs), iter([(x[:5], miss[:5]), (x[5:], miss[5:])]), CPU), damping, biased=biased)
    spread = x - x.mean(0) if biased else x
    ridge = damping * float(spread.square().sum(0).mean())
    left = np.vstack([np.hstack([x.numpy(), np.ones((12, 1)) * biased]), np.hstack([ridge**0.5 * np.eye(inputs), np.zeros((inputs, 1))])])
    solution = np.linalg.lstsq(left, np.vstack([miss.numpy(), np.zeros((inputs, outputs))]), rcond=None)[0]
    np.testing.assert_allclose(change.numpy(), solution[:-1].T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(shift.numpy(), solution[-1], rtol=1e-7, atol=1e-9)


def test_inputs_that_never_vary_change_no_matrix_but_the_bias() -> None:
    x, miss = torch.ones(4, 3, dtype=torch.float64), torch.full((4, 2), 5.0, dtype=torch.float64)
    change, shift = least_squares(sums_of((2, 3), iter([(x, miss)]), CPU), 0.01, biased=True)
    assert not change.any()
    assert torch.equal(shift, miss[0])


def test_what_is_not_finite_is_refused() -> None:
    x, miss = tokens_of(4, 3, 2)
    x[1, 1] = torch.nan
    with pytest.raises(IntegrityError, match="not finite"):
        sums_of((2, 3), iter([(x, miss)]), CPU)


def deeper(family: str) -> dict[str, int]:
    return {{"distilbert": "n_layers", "gpt2": "n_layer"}.get(family, "num_hidden_layers"): 3}


def halves(family: str, layers: list[int], gone: list[int]) -> Cut:
    """Every second query head that can go, every second neuron, and these dimensions of the stream."""
    heads = [0, 1] if family == "llama" else [0, 2]
    neurons = [list(range(0, NEURONS, 2)), list(range(1, NEURONS, 2))]
    return Cut(layers, [heads, heads], neurons, [d for d in range(HIDDEN) if d not in gone])


def streams(network: Any, feature: dict[str, list[int]], part: str) -> list[tuple[Tensor, Tensor]]:
    """For each layer what its output matrix receives, and the residual stream that leaves it, from a run of the whole network."""
    seen: dict[int, dict[str, Tensor]] = {}
    hooks = []
    for i, layer in enumerate(layers_of(network)):
        here = seen.setdefault(i, {})
        hooks.append(layer.module.register_forward_pre_hook(lambda _, given, here=here: here.update(start=given[0])))
        hooks.append(layer.out.register_forward_hook(lambda _, given, came, here=here: here.update(out=given[0], attended=came)))
        hooks.append(layer.neurons_out.register_forward_hook(lambda _, given, came, here=here: here.update(neurons=given[0], fed=came)))
        hooks.append(layer.module.register_forward_hook(lambda _, __, came, here=here: here.update(end=came[0] if isinstance(came, tuple) else came)))
        hooks.append(layer.neurons_in[0].register_forward_pre_hook(lambda _, given, here=here: here.update(normed=given[0])))
    with torch.no_grad():
        network(**{name: torch.from_numpy(rows) for name, rows in pad_batch([feature], 0).items()})
    for hook in hooks:
        hook.remove()
    if part == "out":
        return [(here["out"][0], (here["start"] + here["attended"])[0]) for here in seen.values()]
    decoder = network.config.model_type in ("gpt2", "llama")
    return [(here["neurons"][0], (here["end"] if decoder else here["normed"] + here["fed"])[0]) for here in seen.values()]


def repaired_by_hand(network: Any, whole: Any, cut: Cut, features: list[dict[str, list[int]]], damping: float) -> None:
    """Sentence by sentence without padding, the whole network run again for each matrix, and numpy's least squares."""
    for i in range(len(layers_of(network))):
        for part in ("out", "neurons_out"):
            linear = getattr(layers_of(network)[i], part)
            pairs = [(streams(network, feature, part)[i], streams(whole, feature, part)[cut.layers[i]][1][:, cut.hidden]) for feature in features]
            x = torch.cat([mine for (mine, _), _ in pairs]).double()
            miss = torch.cat([wanted - mine for (_, mine), wanted in pairs]).double()
            biased = linear.bias is not None
            ridge = damping * float((x - x.mean(0) * biased).square().sum(0).mean())
            left = torch.cat([torch.cat([x, torch.full((len(x), 1), float(biased))], 1), torch.eye(x.shape[1] + 1)[:-1] * ridge**0.5])
            right = torch.cat([miss, torch.zeros(x.shape[1], miss.shape[1])])
            solution = torch.from_numpy(np.linalg.lstsq(left.numpy(), right.numpy(), rcond=None)[0]).float()
            weight_of(linear).add_(solution[:-1].T)
            if biased:
                linear.bias.data.add_(solution[-1])


@pytest.mark.parametrize(
    ("family", "layers", "gone"), [*((family, [0, 1], []) for family in SIX), *((family, [0, 2], [3, 17, 18]) for family in ("distilbert", "llama"))]
)
def test_each_matrix_is_fitted_behind_those_before_it(family: str, layers: list[int], gone: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_file, "BATCH_TOKENS", 64)  # several batches, and padding in them
    checkpoint = checkpoint_of(family, **(deeper(family) if gone else {}))
    features = features_of(checkpoint, family, 30)
    assert len({len(feature["input_ids"]) for feature in features}) > 1 or family in ("gpt2", "llama")
    whole = checkpoint.torch_network
    parts = halves(family, layers, gone)
    cut, by_hand = copy.deepcopy(whole), copy.deepcopy(whole)
    for network in (cut, by_hand):
        apply_cut(network, parts)
    before = copy.deepcopy(cut)
    repair(cut, whole, parts, features, 0.02, tmp_path, "repair")
    repaired_by_hand(by_hand, whole, parts, features, 0.02)
    for layer, expected, was in zip(layers_of(cut), layers_of(by_hand), layers_of(before), strict=True):
        for part in ("out", "neurons_out"):
            ours, theirs = getattr(layer, part), getattr(expected, part)
            assert not torch.equal(ours.weight, getattr(was, part).weight)
            torch.testing.assert_close(ours.weight, theirs.weight, rtol=2e-3, atol=2e-4)
            assert ours.bias is None or torch.allclose(ours.bias, theirs.bias, rtol=2e-3, atol=2e-4)
    assert not list(tmp_path.iterdir())


def prune(family: str, place: Path, name: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family, **(deeper(family) if "layers" in dials else {})), place / "source")
    config = PruneStructure(**{"calibration_examples": 32, "repair_examples": 32, **dials})
    return run_step("prune_structure", config, place / "source", place / name, inputs_of(family, place / f"{name}-work"))


@pytest.mark.parametrize("family", each())
def test_a_network_that_lost_nothing_is_not_changed(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family)
    network, whole = checkpoint.torch_network, copy.deepcopy(checkpoint.torch_network)
    layers = layers_of(network)
    width = network.get_input_embeddings().weight.shape[1]
    everything = Cut([*range(len(layers))], [[*range(layer.heads)] for layer in layers], [[*range(layer.neurons)] for layer in layers], [*range(width)])
    repair(network, whole, everything, features_of(checkpoint, family, 8), 0.01, tmp_path, "repair")
    assert all(tensor.equal(whole.state_dict()[name]) for name, tensor in network.state_dict().items())


def distance(family: str, place: Path, name: str) -> float:
    """Of the answers of two models, on text that was not calibrated on."""
    features = features_of(load(place / "source"), family, 40, seed=3)
    both = [runtime_of(load(place / one)).logits(features) for one in ("source", name)]
    return float(sum(np.square(a - b).sum() for a, b in zip(*both, strict=True)))


def test_the_step_fits_to_as_much_text_and_with_as_much_damping_as_asked(tmp_path: Path) -> None:
    """Scores and fit look at texts of their own."""
    config = PruneStructure(heads=0.5, neurons=0.5, calibration_examples=8, repair=True, repair_examples=20, damping=0.1)
    whole, inputs = checkpoint_of("bert"), inputs_of("bert", tmp_path, 30, seed=3)
    made = get_method("prune_structure").run(checkpoint_of("bert"), config, inputs).torch_network
    by_hand, parts = copy.deepcopy(whole.torch_network), structure._cut(whole, config, inputs)
    apply_cut(by_hand, parts)
    repair(by_hand, whole.torch_network, parts, calibration_features(whole, inputs, 20), 0.1, tmp_path, "repair")
    for name, tensor in made.state_dict().items():
        torch.testing.assert_close(tensor, by_hand.state_dict()[name], rtol=1e-5, atol=1e-6)


DIALS: dict[str, dict[str, Any]] = {
    "halves": {"heads": 0.5, "neurons": 0.5},
    "narrow": {"heads": 0.5, "neurons": 0.5, "hidden": 0.1},
    "flat": {"layers": 2, "keep_layers": "last"},
    "uneven": {"heads": 0.5, "neurons": 0.5, "scope": "global", "importance": "random"},
}


@pytest.mark.parametrize(("family", "cut"), [(family, cut) for cut in DIALS for family in (SIX if cut == "halves" else ("distilbert", "llama"))])
def test_answers_come_nearer_to_those_of_the_whole(family: str, cut: str, tmp_path: Path) -> None:
    plain = prune(family, tmp_path, "plain", **DIALS[cut])
    report = prune(family, tmp_path, "repaired", repair=True, **DIALS[cut])
    assert report.parameters == plain.parameters
    assert distance(family, tmp_path, "repaired") < distance(family, tmp_path, "plain")


def nothing(*_: Any) -> None:
    """Repairs nothing."""


def backwards(network: Any, whole: Any, cut: Cut, features: Any, damping: float, *rest: Any) -> None:
    """What is to be added is taken away."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    repair(network, whole, cut, features, damping, *rest)
    network.load_state_dict({name: 2 * before[name] - value for name, value in network.state_dict().items()})


def too_much(network: Any, *rest: Any) -> None:
    """One weight more is changed than those that repair may change."""
    repair(network, *rest)
    weight_of(layers_of(network)[0].query)[0, 0] += 1e-3


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (nothing, "matrices that bring the stream nearer to what it was: asked for 4, measured 0"),
        (backwards, "matrices that bring the stream nearer to what it was: asked for 4, measured 0"),
        (too_much, "other weights that repair changed: asked for 0, measured 1"),
    ],
)
def test_the_proof_catches(broken: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "repair", broken)
    with pytest.raises(EffectMissing, match=message):
        prune("bert", tmp_path, "target", repair=True, **DIALS["halves"])
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("damping", [0, 1.5])
def test_damping_out_of_range_is_refused(damping: float) -> None:
    with pytest.raises(ValidationError, match="damping"):
        PruneStructure(repair=True, damping=damping)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        prune("llama", tmp_path, name, repair=True, **DIALS["halves"])
    assert sha256_file(tmp_path / "a" / "model.safetensors") == sha256_file(tmp_path / "b" / "model.safetensors")
