"""OWL's levels: shares of outliers and counts against loops, sums that are exact, what is saved against a walk by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from torch import Tensor

from recompress.errors import EffectMissing, InputError
from recompress.layerwise.second_order import inverse_root
from recompress.methods.pruning import outliers, sparsegpt, wanda
from recompress.methods.pruning.rows import smallest_of_rows
from recompress.methods.pruning.sparsegpt import prune_matrix
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from tests.layerwise.second_order_by_hand import inputs_and_weight
from tests.methods.by_hand import COUNT, ENCODER_AND_DECODER, drawn, inputs_for, layer_behind_layer, linears_of, matrix, received, saved_by, uneven

pytestmark = pytest.mark.usefixtures("one_thread")
outlier_share = jaxtyped(typechecker=beartype)(outliers.outlier_share)
row_zeros = jaxtyped(typechecker=beartype)(outliers.row_zeros)
smallest = jaxtyped(typechecker=beartype)(smallest_of_rows)
DEEP = {"bert": {"num_hidden_layers": 3}, "gpt2": {"n_layer": 3}}
"""With two layers of a size one is always as far above the sparsity as the other below it, whatever an outlier is."""
OWL: dict[str, Any] = {"levels": "owl", "sparsity": 0.4, "outlier": 3.0, "spread": 0.15, "calibration_examples": COUNT}


@pytest.mark.parametrize("outlier", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_outliers_are_counted_over_all_matrices_of_a_layer(seed: int, outlier: float) -> None:
    """One mean for both matrices, of which one has far larger inputs than the other."""
    draw = torch.Generator().manual_seed(seed)
    shapes = ((5, 8), (6, 4))
    weights = [torch.randn(shape, generator=draw) ** 3 for shape in shapes]
    inputs = [(1 + 4 * i) * torch.randn(30, shape[1], generator=draw) for i, shape in enumerate(shapes)]
    every = [abs(float(w[o, i])) * float(x[:, i].norm()) for w, x in zip(weights, inputs, strict=True) for o in range(len(w)) for i in range(w.shape[1])]
    by_hand = sum(value > outlier * sum(every) / len(every) for value in every) / len(every)
    assert outlier_share([(w, x.double().square().sum(0)) for w, x in zip(weights, inputs, strict=True)], outlier) == pytest.approx(by_hand)
    assert by_hand < 0.5
    assert by_hand > 0 or outlier == 5


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 5000)), min_size=1, max_size=8), sparsity=st.floats(0.3, 0.7), spread=st.floats(0.01, 0.25))
def test_levels_keep_the_whole_stay_within_the_spread_and_spare_the_layers_with_most_outliers(
    rows: list[tuple[float, int]], sparsity: float, spread: float
) -> None:
    shares, sizes = [share for share, _ in rows], [size for _, size in rows]
    levels = outliers.levels_of(shares, sizes, sparsity, spread)
    assert sum(level * size for level, size in zip(levels, sizes, strict=True)) == pytest.approx(sparsity * sum(sizes), rel=1e-6)
    assert all(abs(level - sparsity) <= spread + 1e-9 for level in levels)
    if len(set(shares)) > 1:
        assert max(abs(level - sparsity) for level in levels) == pytest.approx(spread)
    for one in range(len(rows)):
        for other in range(len(rows)):
            assert shares[one] <= shares[other] or levels[one] <= levels[other]
    zeros = outliers.whole_zeros(sizes, levels, sparsity)
    assert sum(zeros) == int(sparsity * sum(sizes) + 1e-9)
    assert all(0 <= count - int(level * size + 1e-9) <= 1 for count, level, size in zip(zeros, levels, sizes, strict=True))


def test_three_layers_by_hand() -> None:
    """Mean share 0.02; the farthest, 0.05, gets the whole spread."""
    assert outliers.levels_of([0.01, 0.05, 0.0], [100, 100, 100], 0.5, 0.1) == pytest.approx([0.5 + 0.1 / 3, 0.4, 0.5 + 0.2 / 3])
    assert outliers.levels_of([0.0, 0.04], [300, 100], 0.5, 0.09) == pytest.approx([0.53, 0.41])
    assert outliers.levels_of([0.03, 0.03], [1, 2], 0.5, 0.1) == [0.5, 0.5]


@pytest.mark.parametrize(("zeros", "rows"), [(0, 3), (7, 3), (12, 4), (13, 4)])
def test_zeros_of_a_matrix_lie_as_evenly_in_its_rows_as_they_can(zeros: int, rows: int) -> None:
    counts = row_zeros(zeros, rows).tolist()
    assert sum(counts) == zeros
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)


def test_each_row_loses_as_many_as_it_is_told_the_smallest_and_of_equal_ones_the_first() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0], [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    gone = smallest(scores, torch.tensor([1, 2, 0, 4]))
    assert gone.int().tolist() == [[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("zeros", [0, 1, 77, 79, 127, 160])
def test_sparsegpt_zeroes_exactly_as_many_as_it_is_told(zeros: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(sparsegpt, "block_of", lambda _: 6)
    hessian, weight = inputs_and_weight(10, 16, 0)
    prune_matrix(weight, inverse_root(hessian, 0.01), zeros=zeros)
    assert int((weight == 0).sum()) == zeros


def zeros_by_hand(checkpoint: Any, family: str, features: list[dict[str, list[int]]]) -> dict[str, int]:
    """Outliers of the network as it comes, in loops; levels; whole numbers."""
    network = checkpoint.torch_network
    layers = [linears_of(network, family, layer) for layer in range(3)]
    shares, sizes = [], []
    for modules in layers:
        rows = received(network, modules, features)
        scores = torch.cat([(matrix(module).double().abs() * rows[name].norm(dim=0)).flatten() for name, module in modules.items()])
        shares.append(float((scores > OWL["outlier"] * scores.mean()).double().mean()))
        sizes.append(len(scores))
    mean = sum(shares) / 3  # all layers are equally large
    farthest = max(abs(share - mean) for share in shares)
    levels = [OWL["sparsity"] - OWL["spread"] * (share - mean) / farthest for share in shares]
    assert len({round(level, 3) for level in levels}) == 3
    counts = {name: int(level * matrix(module).numel() + 1e-9) for modules, level in zip(layers, levels, strict=True) for name, module in modules.items()}
    left = int(OWL["sparsity"] * sum(sizes) + 1e-9) - sum(counts.values())
    return {name: count + (i < left) for i, (name, count) in enumerate(counts.items())}


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_what_is_saved_has_the_levels_of_the_outliers_of_the_network_as_it_came(name: str, family: str, tmp_path: Path) -> None:
    """The levels are those of unpruned layers, the norms and Hessians those behind pruned ones."""
    before, after, inputs = saved_by(name, family, tmp_path, uneven(family, **DEEP[family]), **OWL)
    features = drawn(before, family, inputs)
    zeros = zeros_by_hand(before, family, features)
    left = list(zeros.values())

    def change(weight: Tensor, rows: Tensor) -> None:
        count = left.pop(0)
        if name == "wanda":
            counts = torch.full((len(weight),), count // len(weight))
            counts[: count % len(weight)] += 1
            weight.masked_fill_(wanda.wanda_mask(weight, rows.square().sum(0), counts=counts), 0)
        else:
            prune_matrix(weight, inverse_root(rows.T @ rows, 0.01).float(), zeros=count)

    expected = layer_behind_layer(before, family, features, change)
    network = after.torch_network
    saved = {path: matrix(module) for layer in range(3) for path, module in linears_of(network, family, layer).items()}
    assert {path: int((weight == 0).sum()) for path, weight in saved.items()} == zeros
    for path, weight in saved.items():
        assert torch.equal(weight == 0, expected[path] == 0), path
        torch.testing.assert_close(weight, expected[path], rtol=1e-3, atol=1e-3)
    total = sum(weight.numel() for weight in saved.values())
    assert sum(int((weight == 0).sum()) for weight in saved.values()) == int(OWL["sparsity"] * total + 1e-9)


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_levels_of_other_layers_are_refused(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """The step takes the levels of each layer for those of another, and its proof does not."""
    module, usual, calls = {"wanda": wanda, "sparsegpt": sparsegpt}[name], outliers.zeros_of, list[int]()

    def turned(*given: Any) -> Any:
        calls.append(1)
        right = usual(*given)
        assert right is not None
        return dict(zip(right, [*right.values()][len(right) // 2 :] + [*right.values()][: len(right) // 2], strict=True)) if len(calls) == 1 else right

    monkeypatch.setattr(module, "zeros_of", turned)
    with pytest.raises(EffectMissing, match="matrices with other numbers of zeros than the outliers of their layers give them: asked for 0, measured 12"):
        saved_by(name, "bert", tmp_path, **OWL)


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_what_is_zero_already_stays_and_is_among_those_asked_for(name: str, tmp_path: Path) -> None:
    before, _, _ = saved_by(name, "bert", tmp_path, **OWL)
    run_step(name, get_method(name).config(**OWL | {"sparsity": 0.6}), tmp_path / "target", tmp_path / "more", inputs_for("bert", tmp_path / "again"))
    first, second = (load(tmp_path / place).torch_network for place in ("target", "more"))
    gone = [
        (matrix(old) == 0, matrix(new) == 0) for i in range(2) for old, new in zip(*(linears_of(n, "bert", i).values() for n in (first, second)), strict=True)
    ]
    assert all(bool(now[was].all()) for was, now in gone)
    assert sum(int(now.sum()) for _, now in gone) == int(0.6 * sum(now.numel() for _, now in gone))
    assert before.torch_network is not first


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({"levels": "owl", "pattern": "2:4"}, "pattern 2:4 zeroes as much in each layer, and levels: owl does not; leave one of them out"),
        ({"spread": 0.2}, "spread 0.2 says how levels differ, and levels are uniform; say levels: owl, or leave it out"),
        ({"outlier": 7.0}, "outlier 7 says how levels differ, and levels are uniform"),
        ({"levels": "owl", "sparsity": 0.95}, "sparsity 0.95 with spread 0.08 asks a layer for less than 0 or for all; lower spread below 0.05"),
        ({"levels": "owl", "sparsity": 0.1, "spread": 0.2}, "lower spread below 0.1"),
        ({"levels": "owl", "sparsity": 0.0}, "sparsity 0 makes no zeros"),
    ],
    ids=str,
)
def test_what_is_refused(name: str, dials: dict[str, Any], words: str, tmp_path: Path) -> None:
    save(uneven("bert"), tmp_path / "source")
    with pytest.raises(InputError, match=words):
        run_step(name, get_method(name).config(**dials), tmp_path / "source", tmp_path / "target", inputs_for("bert", tmp_path / "work"))
    assert not (tmp_path / "target").exists()


def test_settings_of_before_are_written_as_they_were() -> None:
    """What an earlier version wrote keeps its digest."""
    assert wanda.Wanda(sparsity=0.5).model_dump(mode="json") == {"sparsity": 0.5, "pattern": None, "calibration_examples": 128}
    assert wanda.Wanda(levels="owl").model_dump(mode="json")["levels"] == "owl"
