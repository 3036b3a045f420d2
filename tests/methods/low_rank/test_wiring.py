"""What the low-rank methods save is what their formulas make of the text; and factors that leave their measure out are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recompress.benchmarks import Example
from recompress.errors import EffectMissing, InputError
from recompress.layerwise import statistics
from recompress.methods.low_rank import activation_svd, factorize_embeddings, fisher_svd, split, svd
from recompress.methods.low_rank.split import Split, cut
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, Info, save
from recompress.models.heads import head_of
from tests.methods.by_hand import COUNT, ENCODER_AND_DECODER, drawn, inputs_for, layer_behind_layer, linears_of, matrix, saved_by
from tests.six import checkpoint_of, config_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
SAME_TEXT = {"calibration_examples": COUNT}


def product(parts: Split, rank: int) -> Tensor:
    second, first = cut(parts, rank)
    return (second @ first).float()


def names_of(network: Any, family: str) -> list[str]:
    return [name for layer in range(2) for name in linears_of(network, family, layer)]


def close(after: Checkpoint, expected: dict[str, Tensor]) -> None:
    for name, weight in expected.items():
        module: Any = after.torch_network.get_submodule(name)
        torch.testing.assert_close(module.weight, weight, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
@pytest.mark.parametrize("dials", [{"parameters": 0.4}, {"energy": 0.9, "damping": 0.1}], ids=str)
def test_activation_svd_is_whitened_by_what_flows_in_behind_factored_layers(dials: dict[str, Any], family: str, tmp_path: Path) -> None:
    before, after, inputs = saved_by("activation_svd", family, tmp_path, **SAME_TEXT, **dials)

    def change(weight: Tensor, rows: Tensor) -> None:
        second_moments = (rows.T @ rows).float()
        parts = activation_svd.split_matrix(weight, activation_svd.whitening(second_moments, dials.get("damping", 0.01)))
        rows_, columns = weight.shape
        rank = int(0.4 * rows_ * columns / (rows_ + columns))
        if "energy" in dials:
            kept = parts.singular.double().square().cumsum(0) / parts.singular.double().square().sum()
            rank = 1 + int((kept < 0.9).sum())
        if rank * (rows_ + columns) < rows_ * columns:
            weight.copy_(product(parts, rank))

    close(after, layer_behind_layer(before, family, drawn(before, family, inputs), change))


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_fisher_svd_is_weighted_by_the_squared_gradients_of_single_examples(family: str, tmp_path: Path) -> None:
    before, after, inputs = saved_by("fisher_svd", family, tmp_path, **SAME_TEXT, parameters=0.4)
    network: Any = before.torch_network.eval()
    importance: dict[str, Any] = dict.fromkeys(names_of(network, family), 0.0)
    for feature in drawn(before, family, inputs):
        network.zero_grad()
        logits = network(input_ids=torch.tensor([feature["input_ids"]])).logits[0]
        nn.functional.cross_entropy(logits, torch.tensor(feature["labels"])).backward()
        for name in importance:
            module: Any = network.get_submodule(name)
            gradient = module.weight.grad if isinstance(module, nn.Linear) else module.weight.grad.T
            importance[name] = importance[name] + gradient.double().square().sum(0)
    expected = {}
    for name, h in importance.items():
        weight = matrix(network.get_submodule(name))
        rank = int(0.4 * weight.numel() / sum(weight.shape))
        expected[name] = product(fisher_svd.split_matrix(weight, h), rank)
    close(after, expected)


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_embeddings_are_factored_by_how_often_all_of_the_text_uses_each_token(family: str, tmp_path: Path) -> None:
    before, after, inputs = saved_by("factorize_embeddings", family, tmp_path, rank=5)
    table = before.torch_network.get_input_embeddings().weight.detach()
    counts = torch.ones(len(table), dtype=torch.float64)
    for feature in drawn(before, family, inputs, 1000):
        for number in feature["input_ids"]:
            counts[number] += 1
    expected = product(factorize_embeddings.split_table(table, counts), 5)
    torch.testing.assert_close(after.torch_network.get_input_embeddings().weight, expected, rtol=1e-3, atol=1e-4)
    assert (expected - product(factorize_embeddings.split_table(table, torch.ones_like(counts)), 5)).abs().max() > 1e-2


MEASURE = {
    "activation_svd": "error of the layers' outputs, below that of svd",
    "fisher_svd": "error weighted by importance, below that of svd",
    "factorize_embeddings": "error of the tokens, by their counts",
}


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
@pytest.mark.parametrize("name", MEASURE)
def test_factors_that_leave_the_measure_out_are_refused(name: str, family: str, tmp_path: Path, monkeypatch: Any) -> None:
    """No whitening, importance of one for all, counts of one for all: svd under another name."""
    usual = statistics.Statistics.__getitem__
    monkeypatch.setattr(statistics.Statistics, "__getitem__", lambda given, kind: torch.eye(len(usual(given, kind))))
    monkeypatch.setattr(fisher_svd, "split_matrix", lambda weight, _: svd.split_matrix(weight))
    whole = factorize_embeddings.split_table
    calls: list[int] = []

    def uncounted(table: Tensor, counts: Tensor) -> Split:
        calls.append(1)
        return whole(table, torch.ones_like(counts) if len(calls) == 1 else counts)  # in the step, and not in the proof behind it

    monkeypatch.setattr(factorize_embeddings, "split_table", uncounted)
    with pytest.raises(EffectMissing, match=MEASURE[name]):
        saved_by(name, family, tmp_path)


@pytest.mark.parametrize("name", ["svd", *MEASURE])
def test_factors_of_zero_are_refused(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    def nothing(parts: Split, rank: int) -> tuple[Tensor, Tensor]:
        second, first = cut(parts, rank)
        return 0 * second, 0 * first

    monkeypatch.setattr(split, "cut", nothing)
    monkeypatch.setattr(factorize_embeddings, "cut", nothing)
    with pytest.raises(EffectMissing, match="error"):
        saved_by(name, "bert", tmp_path)


@pytest.mark.parametrize("name", ["activation_svd", "fisher_svd", "svd", "factorize_embeddings"])
@pytest.mark.parametrize("off", [-1, 1])
def test_ranks_that_the_energy_does_not_ask_for_are_refused(name: str, off: int, tmp_path: Path, monkeypatch: Any) -> None:
    from recompress.methods.low_rank import rank

    usual = rank.rank_by_energy
    calls: list[int] = []

    def other(singular: Tensor, energy: float) -> int:
        calls.append(1)
        wrong = len(calls) <= (1 if name == "factorize_embeddings" else 12)  # in the step, and not in the proof behind it
        return max(1, usual(singular, energy) + 4 * off * wrong)

    monkeypatch.setattr(rank, "rank_by_energy", other)
    with pytest.raises(EffectMissing, match=r"rank|energy"):
        saved_by(name, "bert", tmp_path, checkpoint_of("bert"), energy=0.9 if name == "activation_svd" else 0.6)


def test_one_label_has_no_loss_and_is_refused_in_one_line(tmp_path: Path) -> None:
    tokenizer = checkpoint_of("bert").tokenizer
    network = head_of("token-classification").auto_model().from_config(config_of("bert", len(tokenizer), 1)).eval()
    save(Checkpoint(network, tokenizer, Info(benchmark="token-classification", labels=("O",), max_length=16)), tmp_path / "source")
    inputs = inputs_of("bert", tmp_path / "work")
    rows = [Example(example.words, ("O",) * len(example.words)) for example in inputs.train]
    inputs = replace(inputs, train=rows, dev=rows[:8])
    with pytest.raises(InputError, match="with O as its only label a model is never wrong, and no input matters to its loss; use svd or activation_svd"):
        run_step("fisher_svd", get_method("fisher_svd").config(), tmp_path / "source", tmp_path / "target", inputs)


def test_the_text_is_of_unequal_lengths(tmp_path: Path) -> None:
    lengths = [len(feature["input_ids"]) for feature in drawn(checkpoint_of("bert"), "bert", inputs_for("bert", tmp_path))]
    assert max(lengths) >= 2 * min(lengths)
