"""Shapes keep to the budget by counting, the ranking follows from dev and the seed, and a killed search goes on where it was."""

from __future__ import annotations

import copy
import errno
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recompress.errors import EffectMissing, InputError, StorageError, TrainingDiverged
from recompress.integrity.digest import sha256_file
from recompress.methods.chain import check_chain
from recompress.methods.pruning.cut import apply_cut
from recompress.methods.pruning.importance import by_chance
from recompress.methods.pruning.structure import PruneStructure
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import StepReport, run_step
from recompress.methods.slimming.score import Score
from recompress.methods.slimming.search import Search, candidates, cut_to
from recompress.methods.slimming.shapes import Shape, shape_now, shapes_within, sizes_of
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.surgery import parameters_of
from tests.killed import Killed, killed_at
from tests.six import HEADS, HIDDEN, LAYERS, LENGTH, NEURONS, SIX, benchmark_of, checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
FEW: dict[str, Any] = {
    "candidates": 3,
    "trial_examples": 16,
    "epochs": 2,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "calibration_examples": 8,
    "precision": "fp32",
}


def size_of(checkpoint: Checkpoint) -> int:
    return parameters_of(checkpoint.torch_network.state_dict().values())


def run(family: str, place: Path, target: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step("search", Search(**{**FEW, **dials}), place / "source", place / target, inputs_of(family, place / f"work-{target}", 24))


def rankings(place: Path, target: str) -> list[dict[str, Any]]:
    [path] = (place / f"work-{target}").glob("search-*/ranking.json")
    ranking: list[dict[str, Any]] = json.loads(path.read_text())
    return ranking


@pytest.mark.parametrize("family", SIX)
def test_parameters_are_what_a_cut_network_has(family: str) -> None:
    """Every kind of tensor is met: fused and grouped attention, gates, poolers, tied and untied output layers, biases and none."""
    variants: list[dict[str, Any]] = [{}] if family != "llama" else [{}, {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}]
    for changes in variants:
        whole = checkpoint_of(family, **changes)
        now = shape_now(whole.torch_network)
        assert now == Shape(LAYERS, 2 if family == "llama" else HEADS, 2 if family == "llama" else 1, NEURONS, HIDDEN)
        assert sizes_of(whole.torch_network).of(now) == size_of(whole)
        for shape in (Shape(1, 2, 1, 11, 13), Shape(2, 1, now.heads_of_each, 64, 8), now._replace(hidden=5)):
            cut = copy.deepcopy(whole)
            layers = layers_of(cut.torch_network)
            apply_cut(cut.torch_network, cut_to(shape, layers, by_chance(layers, 0), by_chance(layers, 1).neurons[0][: len(layers)]))
            assert size_of(cut) == sizes_of(whole.torch_network).of(shape)
            assert shape_now(cut.torch_network) == shape


@cache
def llama() -> Any:
    return checkpoint_of("llama").torch_network


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.2, 0.9), smallest=st.floats(0, 0.7), vary=st.sets(st.sampled_from(["layers", "heads", "neurons", "hidden"]), min_size=1))
def test_every_shape_keeps_to_the_budget_and_to_what_may_vary(share: float, smallest: float, vary: set[str]) -> None:
    network = llama()
    now, sizes = shape_now(network), sizes_of(network)
    try:
        shapes = shapes_within(network, share, 0.05, smallest, sorted(vary))
    except InputError:
        shapes = []
    assert shapes == sorted(set(shapes))
    for shape in shapes:
        assert abs(sizes.of(shape) - share * sizes.of(now)) <= 0.05 * share * sizes.of(now)
        for name, axis in zip(Shape._fields, ("layers", "heads", "heads", "neurons", "hidden"), strict=True):
            here, there = getattr(shape, name), getattr(now, name)
            assert here == there if axis not in vary else smallest * there <= here <= there


def never(shape: Shape) -> float:
    raise AssertionError("no time is measured for a budget of parameters")


def test_candidates_follow_the_seed_and_are_no_more_than_asked() -> None:
    checkpoint = checkpoint_of("bert")
    first, again, other = (candidates(checkpoint, Search(candidates=5), seed, never) for seed in (0, 0, 1))
    assert len(set(first)) == 5
    assert first == again != other
    every = shapes_within(checkpoint.torch_network, 0.8, 0.05, 0.25, ("neurons",))
    assert 0 < len(every) < 8
    assert candidates(checkpoint, Search(parameters=0.8, layers=False, heads=False, hidden=False), 0, never) == every


@pytest.mark.parametrize("family", each())
def test_on_every_architecture_the_result_is_within_the_budget(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report = run(family, tmp_path, "target", candidates=2, epochs=1)
    assert abs(report.parameters / report.parameters_before - 0.5) <= 0.05 * 0.5
    ranking = rankings(tmp_path, "target")
    assert [Score(*one["score"]) for one in ranking] == sorted((Score(*one["score"]) for one in ranking), reverse=True)
    assert len(ranking) == 2
    assert shape_now(load(tmp_path / "target").torch_network)._asdict() == ranking[0]["shape"]
    assert report.parameters == ranking[0]["parameters"]
    assert f"search: 1. {ranking[0]['shape']}" in caplog.text
    assert not list((tmp_path / "work-target").glob("search-*/trial-*"))


def test_the_winner_is_trained_from_the_cut_as_any_training_would(tmp_path: Path) -> None:
    """The same shape, cut by hand and fine-tuned with the same dials, gives the same weights."""
    run("bert", tmp_path, "target")
    shape = Shape(**rankings(tmp_path, "target")[0]["shape"])
    shares = {"heads": 1 - shape.groups / HEADS, "neurons": 1 - shape.neurons / NEURONS, "hidden": 1 - shape.hidden / HIDDEN, "layers": shape.layers}
    inputs = inputs_of("bert", tmp_path / "w", 24)
    run_step("prune_structure", PruneStructure(calibration_examples=8, **shares), tmp_path / "source", tmp_path / "cut", inputs)
    dials = {name: FEW[name] for name in ("epochs", "learning_rate", "batch_size", "precision")}
    run_step("finetune", get_method("finetune").config(**dials), tmp_path / "cut", tmp_path / "tuned", inputs)
    assert sha256_file(tmp_path / "tuned" / "model.safetensors") == sha256_file(tmp_path / "target" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search that nobody disturbed."""
    place = tmp_path_factory.mktemp("whole")
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    run("distilbert", place, "whole")
    torch.set_num_threads(usual)
    return place


@pytest.mark.parametrize("at", [3, pytest.param(9, marks=pytest.mark.long)])
def test_a_search_that_was_killed_goes_on_and_ends_with_the_same_bytes(at: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps for each of three shapes, then six for the winner: killed in the second shape's training, and in the winner's."""
    shutil.copytree(whole / "source", tmp_path / "source")
    with monkeypatch.context() as now:
        killed_at(now, at)
        with pytest.raises(Killed):
            run("distilbert", tmp_path, "killed")
    assert not (tmp_path / "killed").exists()
    scores = sorted((tmp_path / "work-killed").glob("search-*/candidate-*.json"))
    known = len(scores)
    assert known == min(at // 2, 3)
    if at > 6:
        scores[-1].write_text('{"shape"')  # half a file is none
        known -= 1
    tried: list[str] = []
    with monkeypatch.context() as now:
        from recompress.methods.slimming import trials

        usual = trials.train
        now.setattr(trials, "train", lambda *given, **named: (tried.append(named["label"]), usual(*given, **named))[1])
        run("distilbert", tmp_path, "killed")
    assert len(tried) == 3 - known
    assert rankings(tmp_path, "killed") == rankings(whole, "whole")
    assert sha256_file(tmp_path / "killed" / "model.safetensors") == sha256_file(whole / "whole" / "model.safetensors")


def test_another_search_in_the_same_folder_starts_anew(tmp_path: Path) -> None:
    run("bert", tmp_path, "target", candidates=1, epochs=1)
    shutil.rmtree(tmp_path / "target")
    run("bert", tmp_path, "target", candidates=1, epochs=1, trial_examples=8)
    assert len(list((tmp_path / "work-target").glob("search-*"))) == 2


def test_a_full_disk_says_so_and_leaves_no_half_of_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recompress.methods.slimming import trials

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    time_is(monkeypatch, lambda whole, cut: 0.5)
    monkeypatch.setattr(trials, "os", SimpleNamespace(fsync=full))
    with pytest.raises(StorageError, match="no space left while writing"):
        run("bert", tmp_path, "target", latency=0.5, candidates=1)
    assert not list((tmp_path / "work-target").glob("search-*/*.json"))
    assert not (tmp_path / "target").exists()


def test_a_shape_that_diverges_ranks_last_and_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recompress.methods.slimming import trials

    usual, count = trials.train, [0]

    def diverge(checkpoint: Checkpoint, *given: Any, **named: Any) -> Checkpoint:
        count[0] += 1
        if count[0] in (1, 4, 5, 6):
            raise TrainingDiverged("the loss became nan")
        return usual(checkpoint, *given, **named)

    monkeypatch.setattr(trials, "train", diverge)
    run("bert", tmp_path, "target")
    assert [one["score"] is None for one in rankings(tmp_path, "target")] == [False, False, True]
    with pytest.raises(TrainingDiverged, match="no shape could be trained"):
        run("bert", tmp_path, "other")


def time_is(monkeypatch: pytest.MonkeyPatch, time_share: Callable[[Checkpoint, Checkpoint], float]) -> None:
    from recompress.methods.slimming import search, trials

    for module in (search, trials):
        monkeypatch.setattr(module, "time_share", time_share)


def as_large(whole: Checkpoint, cut: Checkpoint) -> float:
    """In the place of time: parameters of the layers, and something that is always there."""
    now, here = shape_now(whole.torch_network), shape_now(cut.torch_network)
    sizes = sizes_of(whole.torch_network)
    return 0.1 + 0.9 * sizes.of_layers(here) / sizes.of_layers(now)


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_a_budget_of_time_is_kept_by_what_is_measured(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Shape] = []
    time_is(monkeypatch, lambda whole, cut: (asked.append(shape_now(cut.torch_network)), as_large(whole, cut))[1])
    report = run(family, tmp_path, "target", latency=0.5, candidates=2, epochs=1)
    [claim] = [claim for claim in report.claims if claim["what"] == "share of the time"]
    assert abs(claim["measured"] - 0.5) <= 0.05 * 0.5
    assert 3 <= len(asked) <= 2 * 6 + 1  # some shapes, and the result once more
    [times] = (tmp_path / "work-target").glob("search-*/times.json")
    assert len(json.loads(times.read_text())) == len(asked) - 1
    shutil.rmtree(tmp_path / "target")
    asked.clear()
    again = run(family, tmp_path, "target", latency=0.5, candidates=2, epochs=1)
    assert len(asked) == 1
    assert again.claims == report.claims


def test_a_result_that_takes_longer_than_it_should_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([0.5, 0.7])
    time_is(monkeypatch, lambda whole, cut: next(steps))
    with pytest.raises(EffectMissing, match=r"share of the time: asked for 0.5, measured 0.7"):
        run("bert", tmp_path, "target", latency=0.5, candidates=1, epochs=1)
    time_is(monkeypatch, lambda whole, cut: 0.9)
    with pytest.raises(InputError, match=r"no shape within 5% of 0.3 of the time \(the 6 that were timed take from 0.90 to 1.00\)"):
        run("bert", tmp_path, "target", latency=0.3, candidates=1)


def test_time_is_a_share_of_the_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from recompress.methods.slimming import time_share

    seconds = np.array([[[2.0, 8.0, 2.0]] * 3, [[1.0, 1.0, 9.0]] * 3])
    asked: list[Any] = []
    monkeypatch.setattr(time_share, "interleave", lambda runtimes, questions, **_: (asked.append(questions), seconds)[1])
    assert time_share.time_share(checkpoint_of("bert"), checkpoint_of("bert")) == 0.5
    assert {len(question[0]["input_ids"]) for model in asked[0] for question in model} == {LENGTH}
    monkeypatch.undo()
    assert np.isfinite(time_share.time_share(checkpoint_of("bert"), checkpoint_of("bert")))


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_other_importances(importance: str, tmp_path: Path) -> None:
    reports = {name: run("gpt2", tmp_path, name, importance=name, candidates=1, epochs=1) for name in ("activation", importance)}
    assert reports[importance].parameters == reports["activation"].parameters, "the shape is drawn, whatever is important"
    assert sha256_file(tmp_path / importance / "model.safetensors") != sha256_file(tmp_path / "activation" / "model.safetensors")


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    nothing = Search(layers=False, heads=False, neurons=False, hidden=False)
    with pytest.raises(InputError, match="search may vary nothing"):
        check_chain([("search", nothing)], benchmark_of("bert"), "bert")
    with pytest.raises(InputError, match="one budget, got parameters 0.5 and latency 0.4"):
        check_chain([("search", Search(parameters=0.5, latency=0.4))], benchmark_of("bert"), "bert")
    with pytest.raises(InputError, match=r"no shape within 5% of .* change parameters, lower smallest, or let more vary"):
        run("bert", tmp_path, "target", parameters=0.1, hidden=False)
    assert not (tmp_path / "target").exists()
    for dials in ({"parameters": 1.0}, {"parameters": 0.0}, {"candidates": 0}, {"trial_epochs": 0}):
        with pytest.raises(ValidationError):
            Search(**dials)
    inputs: Inputs = replace(inputs_of("bert", tmp_path / "w"), seed=0)
    run_step("prune_structure", PruneStructure(neurons=0.4, scope="global", calibration_examples=4), tmp_path / "source", tmp_path / "odd", inputs)
    with pytest.raises(InputError, match="all equally wide"):
        run_step("search", Search(**FEW), tmp_path / "odd", tmp_path / "target", inputs)
