"""What Wanda and SparseGPT save is what their formulas make of the text, layer behind layer; and a step that leaves its statistics out is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recompress.errors import EffectMissing
from recompress.layerwise import second_order, statistics
from recompress.layerwise.second_order import inverse_root
from recompress.methods.pruning import sparsegpt, wanda
from recompress.methods.pruning.sparsegpt import prune_matrix
from recompress.methods.pruning.wanda import wanda_mask
from tests.methods.by_hand import COUNT, ENCODER_AND_DECODER, drawn, layer_behind_layer, linears_of, matrix, saved_by

pytestmark = pytest.mark.usefixtures("one_thread")
SAME_TEXT = {"calibration_examples": COUNT}


def matrices_of(network: Any, family: str) -> dict[str, Tensor]:
    return {name: matrix(module) for layer in range(2) for name, module in linears_of(network, family, layer).items()}


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
@pytest.mark.parametrize("dials", [{"sparsity": 0.4}, {"pattern": "2:4"}], ids=str)
def test_wanda_zeroes_by_size_and_norm_of_what_flows_in(dials: dict[str, Any], family: str, tmp_path: Path) -> None:
    before, after, inputs = saved_by("wanda", family, tmp_path, **SAME_TEXT, **dials)

    def change(weight: Tensor, rows: Tensor) -> None:
        weight.masked_fill_(wanda_mask(weight, rows.square().sum(0), **{"sparsity": 0.5, **dials}), 0)

    expected = layer_behind_layer(before, family, drawn(before, family, inputs), change)
    saved = matrices_of(after.torch_network, family)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
@pytest.mark.parametrize("dials", [{"sparsity": 0.4, "damping": 0.05}, {"pattern": "2:4"}], ids=str)
def test_sparsegpt_makes_up_by_the_second_moments_of_what_flows_in(dials: dict[str, Any], family: str, tmp_path: Path) -> None:
    before, after, inputs = saved_by("sparsegpt", family, tmp_path, **SAME_TEXT, **dials)

    def change(weight: Tensor, rows: Tensor) -> None:
        root = inverse_root(rows.T @ rows, dials.get("damping", 0.01)).float()
        prune_matrix(weight, root, sparsity=dials.get("sparsity", 0.5), pattern=dials.get("pattern"))

    expected = layer_behind_layer(before, family, drawn(before, family, inputs), change)
    for name, weight in matrices_of(after.torch_network, family).items():
        assert torch.equal(weight == 0, expected[name] == 0), name
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-3)


def no_squares(given: Any, kind: str) -> Any:
    return torch.ones_like(USUAL(given, kind)) if kind == "squares" else torch.eye(len(USUAL(given, kind)))


USUAL = statistics.Statistics.__getitem__


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_without_statistics_the_outputs_are_no_better_than_by_size_and_that_is_refused(name: str, family: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(statistics.Statistics, "__getitem__", no_squares)
    with pytest.raises(EffectMissing, match="error of the layers' outputs, below that of magnitude"):
        saved_by(name, family, tmp_path)


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_wrong_masks_are_refused(family: str, tmp_path: Path, monkeypatch: Any) -> None:
    """The reciprocal of the norms, and chance."""
    usual = wanda.wanda_mask
    for i, broken in enumerate(
        (
            lambda weight, squares, **dials: usual(weight, 1 / squares, **dials),
            lambda weight, _, **dials: usual(torch.rand(weight.shape), torch.ones(weight.shape[1]), **dials),
        )
    ):
        monkeypatch.setattr(wanda, "wanda_mask", broken)
        with pytest.raises(EffectMissing, match="below that of magnitude"):
            saved_by("wanda", family, tmp_path / str(i))


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_a_damping_that_hides_the_hessian_is_refused(family: str, tmp_path: Path, monkeypatch: Any) -> None:
    usual = second_order.inverse_root
    monkeypatch.setattr(sparsegpt, "inverse_root", lambda hessian, _, name: usual(hessian, 1000.0, name))
    with pytest.raises(EffectMissing, match="below that of magnitude"):
        saved_by("sparsegpt", family, tmp_path)


def test_every_matrix_that_lost_weights_makes_up_for_them(tmp_path: Path, monkeypatch: Any) -> None:
    usual, seen = sparsegpt.prune_matrix, list[int]()

    def only_mask_the_last(weight: Tensor, root: Tensor, **dials: Any) -> None:
        seen.append(1)
        was = weight.clone()
        usual(weight, root, **dials)
        if len(seen) == 12:
            weight.copy_(was.masked_fill(weight == 0, 0))

    monkeypatch.setattr(sparsegpt, "prune_matrix", only_mask_the_last)
    with pytest.raises(EffectMissing, match="matrices whose other weights make up for the zeros: asked for 12, measured 11"):
        saved_by("sparsegpt", "bert", tmp_path)
