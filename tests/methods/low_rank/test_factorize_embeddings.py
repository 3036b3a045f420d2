"""Embeddings as a small table and one matrix, with their tied output layer; packed, trained and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import EffectMissing, InputError
from recompress.methods.chain import check_chain
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, parameters_in, run_step
from recompress.models.checkpoint import load, save
from recompress.models.factored import FactoredEmbedding, FactoredOutput, token_table
from tests.six import DECODERS, HIDDEN, checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "factorize_embeddings"


def step(family: str, place: Path, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step(NAME, get_method(NAME).config(**dials), place / "source", place / NAME, inputs_of(family, place / "work", 24))


@pytest.mark.parametrize("family", each())
def test_on_every_architecture(family: str, tmp_path: Path) -> None:
    report = step(family, tmp_path, rank=6)
    network: Any = load(tmp_path / NAME).torch_network
    embedding = network.get_input_embeddings()
    vocabulary = len(load(tmp_path / "source").tokenizer)
    assert isinstance(embedding, FactoredEmbedding)
    assert (embedding.first.weight.shape, embedding.second.weight.shape) == ((vocabulary, 6), (HIDDEN, 6))
    assert report.parameters - report.parameters_before == 6 * (vocabulary + HIDDEN) - vocabulary * HIDDEN
    assert ("output layer tied to the embeddings", float(family in DECODERS)) in [(one["what"], one["measured"]) for one in report.claims]
    if family in DECODERS:
        assert isinstance(network.lm_head, FactoredOutput)
        assert network.lm_head.first is embedding.first


@pytest.mark.parametrize("dials", [{"parameters": 0.5}, {"energy": 0.6}, {"rank": 3, "by_frequency": False}])
def test_however_the_rank_is_given_the_nearest_is_found(dials: dict[str, Any], tmp_path: Path) -> None:
    step("gpt2", tmp_path, **dials)
    old: Any = load(tmp_path / "source").torch_network.get_input_embeddings()
    new: Any = load(tmp_path / NAME).torch_network.get_input_embeddings()
    if "by_frequency" in dials:
        best = torch.linalg.svdvals(old.weight.double())[3:].square().sum()
        torch.testing.assert_close((old.weight - new.weight).double().square().sum(), best)
    if "parameters" in dials:
        assert new.rank == int(0.5 * old.weight.numel() / sum(old.weight.shape))


def test_bytes_and_full_energy(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    save(checkpoint, tmp_path / "source")
    budget = 4 * parameters_in(checkpoint) - 2000
    report = step("bert", tmp_path, size_bytes=budget)
    assert budget - 4 * (27 + HIDDEN) < next(one["measured"] for one in report.claims if one["what"] == "bytes of all tensors") <= budget
    with pytest.raises(InputError, match="energy 1 leaves the embeddings whole, because no factors would be smaller; ask for less"):
        run_step(NAME, get_method(NAME).config(energy=1.0), tmp_path / "source", tmp_path / "whole", inputs_of("bert", tmp_path / "work"))


def test_an_output_layer_of_its_own_stays_whole(tmp_path: Path) -> None:
    save(checkpoint_of("llama", tie_word_embeddings=False), tmp_path / "source")
    report = step("llama", tmp_path, rank=4)
    old, new = (load(tmp_path / which).torch_network for which in ("source", NAME))
    assert torch.equal(old.lm_head.weight, new.lm_head.weight)
    assert ("output layer tied to the embeddings", 0.0) in [(one["what"], one["measured"]) for one in report.claims]


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_they_learn_are_packed_and_answer_the_same(family: str, tmp_path: Path) -> None:
    """Each step compares what it saved with what it read back; both uses of a tied table learn."""
    step(family, tmp_path, rank=6)
    inputs = inputs_of(family, tmp_path / "training", 24)
    run_step("finetune", get_method("finetune").config(epochs=1, batch_size=8), tmp_path / NAME, tmp_path / "trained", inputs)
    before, after = (token_table(load(tmp_path / which).torch_network).weight for which in (NAME, "trained"))
    assert not torch.equal(before, after)
    run_step("rtn", get_method("rtn").config(bits=8, embeddings=True), tmp_path / "trained", tmp_path / "packed", inputs_of(family, tmp_path / "w"))
    network: Any = load(tmp_path / "packed").torch_network
    assert hasattr(network.get_input_embeddings().first, "codes")
    if family == "llama":
        assert network.lm_head.first is network.get_input_embeddings().first


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="exactly one of rank, parameters, energy and size_bytes, got rank and energy"):
        step("bert", tmp_path, rank=3, energy=0.5)
    with pytest.raises(InputError, match=r"rank 31 makes factors that are no smaller than the .* embeddings; the largest that is smaller is \d+"):
        step("bert", tmp_path, rank=31)
    with pytest.raises(InputError, match="trim_vocabulary cannot follow factorize_embeddings: .*trim first"):
        check_chain([(NAME, get_method(NAME).config(rank=3)), ("trim_vocabulary", get_method("trim_vocabulary").config())], "token-classification", "bert")
    monkeypatch.setattr("recompress.methods.low_rank.factorize_embeddings.place", lambda *_: None)
    with pytest.raises(EffectMissing, match="rank of the embeddings, 0 for whole ones: asked for 3, measured 0"):
        step("bert", tmp_path, rank=3)
    assert not (tmp_path / NAME).exists()
