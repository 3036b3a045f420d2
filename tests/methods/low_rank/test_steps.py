"""The methods as steps: on all six architectures, before and after others, saved, read back and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import EffectMissing, InputError
from recompress.methods.chain import check_chain
from recompress.methods.low_rank import split
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, parameters_in, run_step
from recompress.models.architecture import encoder_linears, layers_of
from recompress.models.checkpoint import load, save
from recompress.models.factored import FactoredLinear, is_factored
from recompress.models.surgery import weight_of
from recompress.training.run import weights_sha256
from tests.cut import factor_layers
from tests.layerwise.test_engine import Memory
from tests.six import checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
THREE = ("svd", "fisher_svd", "activation_svd")


def step(name: str, family: str, place: Path, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step(name, get_method(name).config(**dials), place / "source", place / name, inputs_of(family, place / f"work-{name}", 24))


def claim(report: StepReport, what: str) -> float:
    return next(float(one["measured"]) for one in report.claims if one["what"] == what)


@pytest.mark.parametrize("family", each())
@pytest.mark.parametrize("name", THREE)
def test_on_every_architecture(name: str, family: str, tmp_path: Path) -> None:
    """Every matrix of every layer is two, with half of its parameters at most."""
    report = step(name, family, tmp_path, parameters=0.5)
    old, new = (load(tmp_path / which) for which in ("source", name))
    for layer in layers_of(new.torch_network):
        for linear in (layer.query, layer.key, layer.value, layer.out, *layer.neurons_in, layer.neurons_out):
            assert isinstance(linear, FactoredLinear)
            rows, columns = linear.weight.shape
            assert linear.rank * (rows + columns) <= rows * columns / 2 < (linear.rank + 1) * (rows + columns)
    assert report.parameters == parameters_in(new) < parameters_in(old) == report.parameters_before
    assert claim(report, "matrices left whole, because factors would not be smaller") == 0


@pytest.mark.parametrize("name", THREE)
def test_energy_that_leaves_all_whole_is_refused_and_half_of_it_gives_factors(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="energy 1 leaves every matrix whole, because no factors would be smaller; ask for less"):
        step(name, "llama", tmp_path, energy=1.0)
    method = get_method(name)
    twice = [method.run(load(tmp_path / "source"), method.config(energy=0.5), inputs_of("llama", tmp_path / str(i), 24)).torch_network for i in range(2)]
    assert weights_sha256(twice[0]) == weights_sha256(twice[1])
    assert is_factored(twice[0])


@pytest.mark.parametrize("name", THREE)
def test_a_budget_of_bytes_is_kept(name: str, tmp_path: Path) -> None:
    save(checkpoint_of("gpt2"), tmp_path / "source")
    budget = 4 * parameters_in(load(tmp_path / "source")) * 4 // 5
    report = step(name, "gpt2", tmp_path, size_bytes=budget)
    assert claim(report, "bytes over the budget") == 0
    assert 0.95 * budget < claim(report, "bytes of all tensors") <= budget


def test_a_matrix_that_gains_nothing_stays_whole_and_that_is_said(tmp_path: Path) -> None:
    """Random matrices need nearly all of their rank; one that has rank 2 is told."""
    checkpoint = checkpoint_of("llama")
    weight_of(layers_of(checkpoint.torch_network)[1].query).copy_(torch.randn(32, 2) @ torch.randn(2, 32))
    save(checkpoint, tmp_path / "source")
    report = step("svd", "llama", tmp_path, energy=0.999)
    network = load(tmp_path / "svd").torch_network
    query: Any = layers_of(network)[1].query
    assert query.rank == 2
    assert sum(not name.endswith((".first", ".second")) for name, _ in encoder_linears(network)) == 13
    assert claim(report, "matrices left whole, because factors would not be smaller") == 13


def test_an_effect_that_is_missing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.methods.low_rank.split.place", lambda *_: None)
    with pytest.raises(EffectMissing, match="ranks together: asked for"):
        step("svd", "bert", tmp_path, parameters=0.5)
    monkeypatch.undo()
    real = split.cut
    monkeypatch.setattr(split, "cut", lambda whole, rank: (real(whole, rank)[0], real(whole, rank)[1].flip(0)))
    with pytest.raises(EffectMissing, match="departure from a projection"):
        step("activation_svd", "bert", tmp_path, parameters=0.5)
    assert not (tmp_path / "svd").exists()


def test_activation_svd_that_is_cut_off_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recompress.methods.low_rank import activation_svd

    step("activation_svd", "gpt2", tmp_path, parameters=0.4)
    real, calls = activation_svd.whitening, []

    def killed(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*given)

    config, source = get_method("activation_svd").config(parameters=0.4), tmp_path / "source"
    with monkeypatch.context() as patched:
        patched.setattr(activation_svd, "whitening", killed)
        with pytest.raises(KeyboardInterrupt):
            run_step("activation_svd", config, source, tmp_path / "resumed", inputs_of("gpt2", tmp_path / "work", 24))
        run_step("activation_svd", config, source, tmp_path / "resumed", inputs_of("gpt2", tmp_path / "work", 24))
    assert len(calls) == 6 + 4
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == (tmp_path / "activation_svd" / "model.safetensors").read_bytes()


def test_memory_of_activation_svd_is_one_and_a_half_layers_of_statistics_at_most(tmp_path: Path) -> None:
    method, checkpoint = get_method("activation_svd"), checkpoint_of("gpt2", n_embd=256, n_inner=1024, n_layer=2)
    statistics = 4 * (3 * 256**2 + 1024**2)
    inputs = inputs_of("gpt2", tmp_path)
    with Memory(checkpoint.torch_network) as memory:
        method.run(checkpoint, method.config(parameters=0.5), inputs)
    assert statistics < memory.peak <= 1.5 * statistics


@pytest.mark.parametrize("family", ["distilbert", "gpt2"])
def test_factors_learn_and_stay_factors(family: str, tmp_path: Path) -> None:
    step("svd", family, tmp_path, parameters=0.3)
    config = get_method("finetune").config(epochs=1, batch_size=8)
    report = run_step("finetune", config, tmp_path / "svd", tmp_path / "trained", inputs_of(family, tmp_path / "work", 24))
    assert is_factored(load(tmp_path / "trained").torch_network)
    assert report.parameters == report.parameters_before


def test_orders_that_make_no_sense_are_refused_before_anything_runs(tmp_path: Path) -> None:
    def chain(*steps: tuple[str, dict[str, Any]]) -> None:
        check_chain([(name, get_method(name).config(**dials)) for name, dials in steps], "token-classification", "bert")

    half = {"parameters": 0.5}
    chain(("svd", half), ("magnitude", {"sparsity": 0.5}), ("finetune", {}), ("gptq", {}))
    for steps, reason in [
        ((("svd", half), ("fisher_svd", half)), "fisher_svd cannot follow svd: the layers are factored already"),
        ((("wanda", {}), ("finetune", {}), ("activation_svd", half)), "activation_svd cannot follow wanda: zeros of a matrix are lost"),
        ((("svd", half), ("prune_structure", {"neurons": 0.5})), "prune_structure cannot follow svd: .*cut structure first"),
        ((("svd", {"parameters": None}),), "give exactly one of parameters, energy and size_bytes, got none"),
        ((("fisher_svd", {"parameters": 0.5, "energy": 0.5}),), "got parameters and energy"),
    ]:
        with pytest.raises(InputError, match=reason):
            chain(*steps)
    step("svd", "bert", tmp_path, **half)
    with pytest.raises(InputError, match="activation_svd cannot follow svd"):
        run_step("activation_svd", get_method("activation_svd").config(**half), tmp_path / "svd", tmp_path / "x", inputs_of("bert", tmp_path / "w"))


@pytest.mark.parametrize("name", THREE)
def test_a_network_that_came_factored_is_refused(name: str, tmp_path: Path) -> None:
    method = get_method(name)
    with pytest.raises(InputError, match="the layers are factored already; start from the whole model"):
        method.run(factor_layers(checkpoint_of("bert")), method.config(parameters=0.5), inputs_of("bert", tmp_path))
