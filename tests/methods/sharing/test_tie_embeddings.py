"""A decoder's output layer becomes its embedding: one tensor, also for plain transformers, that learns from both uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from recompress.errors import InputError
from recompress.methods.chain import check_chain
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.methods.sharing.tie_embeddings import TieEmbeddings, prove, tied_weight
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.runtimes import runtime_of
from tests.six import DECODERS, checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "tie_embeddings"


def step(family: str, place: Path, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family, tie_word_embeddings=False), place / "source")
    return run_step(NAME, TieEmbeddings(**dials), place / "source", place / NAME, inputs_of(family, place / "work", 24))


def test_the_mean_and_the_embedding() -> None:
    embedding, output = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -2.0]])
    assert tied_weight(embedding, output, "mean").tolist() == [[2.0, 0.0]]
    assert tied_weight(embedding, output, "embedding").tolist() == [[1.0, 2.0]]
    assert torch.equal(tied_weight(embedding, embedding, "mean"), embedding)


@pytest.mark.parametrize("weights", ["mean", "embedding"])
@pytest.mark.parametrize("family", DECODERS)
def test_it_is_one_tensor_also_for_plain_transformers(family: str, weights: str, tmp_path: Path) -> None:
    report = step(family, tmp_path, weights=weights)
    old: Any = load(tmp_path / "source").torch_network
    checkpoint = load(tmp_path / NAME)
    network: Any = checkpoint.torch_network
    assert network.lm_head.weight is network.get_input_embeddings().weight
    assert "lm_head.weight" not in load_file(tmp_path / NAME / "model.safetensors")
    assert report.parameters == report.parameters_before - old.lm_head.weight.numel()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / NAME).eval()
    assert plain.lm_head.weight is plain.get_input_embeddings().weight
    features = features_of(checkpoint, family)
    ours, theirs = (runtime_of(Checkpoint(one, checkpoint.tokenizer, checkpoint.info)).logits(features) for one in (network, plain))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_it_learns_from_both_uses_and_is_factored_and_packed_as_one(tmp_path: Path) -> None:
    step("llama", tmp_path)
    inputs = inputs_of("llama", tmp_path / "training", 24)
    run_step("finetune", get_method("finetune").config(epochs=1, batch_size=8), tmp_path / NAME, tmp_path / "trained", inputs)
    network: Any = load(tmp_path / "trained").torch_network
    assert network.lm_head.weight is network.get_input_embeddings().weight
    run_step("factorize_embeddings", get_method("factorize_embeddings").config(rank=4), tmp_path / "trained", tmp_path / "factored", inputs)
    run_step("rtn", get_method("rtn").config(embeddings=True), tmp_path / "factored", tmp_path / "packed", inputs)
    network = load(tmp_path / "packed").torch_network
    assert network.lm_head.first is network.get_input_embeddings().first


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="uses the token embeddings already; leave tie_embeddings out"):
        get_method(NAME).run(checkpoint_of("llama"), TieEmbeddings(), inputs_of("llama", tmp_path))
    with pytest.raises(InputError, match="tie_embeddings does not support the benchmark 'token-classification'"):
        check_chain([(NAME, TieEmbeddings())], "token-classification", "bert")
    with pytest.raises(InputError, match="tie_embeddings does not support the architecture 'bert'"):
        check_chain([(NAME, TieEmbeddings())], "language-modelling", "bert")
    with pytest.raises(InputError, match="tie_embeddings cannot follow factorize_embeddings: .*tie first"):
        check_chain([("factorize_embeddings", get_method("factorize_embeddings").config(rank=4)), (NAME, TieEmbeddings())], "language-modelling", "llama")


def test_an_effect_that_is_missing_is_noticed(tmp_path: Path) -> None:
    step("gpt2", tmp_path, weights="mean")
    before, after = load(tmp_path / "source"), load(tmp_path / NAME)
    assert [claim.kept for claim in prove(before, after, TieEmbeddings(weights="mean"), None)] == [True] * 4
    assert [claim.kept for claim in prove(before, after, TieEmbeddings(weights="embedding"), None)] == [True] * 3 + [False]
    other = load(tmp_path / NAME)
    with torch.no_grad():
        other.torch_network.get_input_embeddings().weight[3] += 0.01
    assert [claim.kept for claim in prove(before, other, TieEmbeddings(weights="mean"), None)] == [True] * 3 + [False]
    assert [claim.kept for claim in prove(before, before, TieEmbeddings(), None)] == [False] * 4
