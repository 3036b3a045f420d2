"""Masks against loops, and zeros counted on disk."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from pydantic import ValidationError

from recompress.errors import EffectMissing, InputError
from recompress.methods.pruning import magnitude, mask, scope
from recompress.methods.pruning.magnitude import Magnitude, stage
from recompress.methods.pruning.mask import sparsity
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import load, save
from recompress.models.surgery import weight_of
from recompress.training.settings import Schedule
from tests import six
from tests.families import FAMILIES, inputs_of, saved

pytestmark = pytest.mark.usefixtures("one_thread")
smallest_masks = jaxtyped(typechecker=beartype)(scope.smallest_masks)
out_of_order = jaxtyped(typechecker=beartype)(scope.out_of_order)
block_scores = jaxtyped(typechecker=beartype)(magnitude.block_scores)
masks_of = jaxtyped(typechecker=beartype)(magnitude.masks_of)
smallest = jaxtyped(typechecker=beartype)(mask.smallest)
numbers = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])


def prune(source: Path, target: Path, **dials: Any) -> StepReport:
    return run_step("magnitude", Magnitude(**dials), source, target, inputs_of(target.parent / "work"))


@given(st.lists(numbers, min_size=1, max_size=20), st.data())
def test_the_smallest_are_exactly_as_many_as_asked(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    marks = smallest(torch.tensor(values), count)
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert marks.nonzero().flatten().tolist() == sorted(order[:count])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0, 0.99), st.sampled_from(["global", "layer", "row"]), st.data())
def test_a_mask_equals_sorting_by_hand(rows: int, columns: int, share: float, where: str, data: st.DataObject) -> None:
    """Over two matrices of other shapes, with many equal values."""
    shapes = ((rows, columns), (columns, 2))
    matrices = [torch.tensor(data.draw(st.lists(st.lists(numbers, min_size=c, max_size=c), min_size=r, max_size=r))) for r, c in shapes]
    masks = smallest_masks([matrix.abs() for matrix in matrices], share, where)
    places = [(k, r, c) for k, (height, width) in enumerate(shapes) for r in range(height) for c in range(width)]
    key = {"global": lambda at: 0, "layer": lambda at: at[0], "row": lambda at: at[:2]}[where]
    expected = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
    for group in {key(at) for at in places}:
        members = [at for at in places if key(at) == group]
        for k, r, c in sorted(members, key=lambda at: (abs(float(matrices[at[0]][at[1:]])), at))[: int(share * len(members) + 1e-9)]:
            expected[k][r, c] = True
    assert all(torch.equal(a, b) for a, b in zip(masks, expected, strict=True))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["global", "layer", "row", "of 2"]), st.data())
def test_out_of_order_are_groups_that_keep_less_than_they_lose(rows: int, pairs: int, where: str, data: st.DataObject) -> None:
    """Counted with loops, over two matrices, with equal values and zeros of before."""
    columns = 2 * pairs
    values = [data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=rows * columns, max_size=rows * columns)) for _ in range(2)]
    gone = [data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)) for _ in range(2)]
    key = {"global": lambda k, i: 0, "layer": lambda k, i: k, "row": lambda k, i: (k, i // columns), "of 2": lambda k, i: (k, i // 2)}[where]
    lost: dict[Any, list[float]] = {}
    stay: dict[Any, list[float]] = {}
    for k in range(2):
        for i, (value, went) in enumerate(zip(values[k], gone[k], strict=True)):
            if went and value:
                lost.setdefault(key(k, i), []).append(value)
            if not went:
                stay.setdefault(key(k, i), []).append(value)
    expected = sum(max(lost[group]) > min(stay[group]) for group in lost if group in stay)
    scores = [torch.tensor(one).view(rows, columns) for one in values]
    now = [torch.tensor(one).view(rows, columns) for one in gone]
    how, group = ("layer", 2) if where == "of 2" else (where, 0)
    assert out_of_order(scores, [score == 0 for score in scores], now, how, group) == expected


@pytest.mark.parametrize("norm", ["l2", "mean"])
@pytest.mark.parametrize("block", [(1, 1), (2, 3), (4, 6), (1, 6)])
def test_blocks_are_scored_and_zeroed_as_by_a_loop(block: tuple[int, int], norm: str) -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    height, width = block
    blocks = {(i, j): weight[i : i + height, j : j + width] for i in range(0, 4, height) for j in range(0, 6, width)}
    worth = {place: float(part.norm() if norm == "l2" else part.abs().mean()) for place, part in blocks.items()}
    torch.testing.assert_close(block_scores(weight, block, norm).flatten(), torch.tensor([worth[place] for place in sorted(worth)]))
    expected = torch.zeros(4, 6, dtype=torch.bool)
    for i, j in sorted(worth, key=lambda place: worth[place])[: len(worth) // 2]:
        expected[i : i + height, j : j + width] = True
    assert torch.equal(masks_of([weight], Magnitude(sparsity=0.5, block=block, block_norm=norm))[0], expected)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2)])
def test_a_pattern_leaves_the_n_largest_of_each_m(n: int, m: int) -> None:
    weight = torch.randn(3, 2 * m)
    gone = masks_of([weight], Magnitude(pattern=f"{n}:{m}"))[0]
    for row, marks in zip(weight, gone, strict=True):
        for start in (0, m):
            group, mark = row[start : start + m].abs(), marks[start : start + m]
            assert int((~mark).sum()) == n
            assert group[~mark].min() >= group[mark].max()


@given(st.floats(0.01, 0.99), st.integers(1, 9))
def test_rounds_take_the_same_share_of_what_is_left(share: float, rounds: int) -> None:
    asked = [0.0, *(stage(Magnitude(sparsity=share, rounds=rounds), k).sparsity for k in range(1, rounds + 1))]
    taken = [1 - (1 - now) / (1 - was) for was, now in itertools.pairwise(asked)]
    assert taken == pytest.approx([taken[0]] * rounds, abs=1e-6)
    assert asked[-1] == share
    patterns = [stage(Magnitude(pattern="2:8", rounds=3), k).pattern for k in (1, 2, 3)]
    assert patterns == ["6:8", "4:8", "2:8"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_zeros_stand_on_disk_as_asked_and_only_in_the_encoder(scope: str, family: str, tmp_path: Path) -> None:
    source = saved(family, tmp_path / "source")
    report = prune(source, tmp_path / "target", sparsity=0.75, scope=scope)
    old, new = load(source).torch_network, load(tmp_path / "target").torch_network
    assert sparsity(new) == 0.75
    assert report.size_bytes == pytest.approx(report.size_bytes_before, abs=50)
    linears = {f"{name}.weight" for name, _ in encoder_linears(new)}
    for name, tensor in new.state_dict().items():
        was = old.state_dict()[name]
        assert torch.equal(tensor, was) if name not in linears else torch.equal(tensor[tensor != 0], was[tensor != 0])
    if scope == "row":
        assert all(((weight_of(linear) == 0).float().mean(1) == 0.75).all() for _, linear in encoder_linears(new))
    if scope == "global":
        weights = [(weight_of(a).abs(), weight_of(b)) for (_, a), (_, b) in zip(encoder_linears(old), encoder_linears(new), strict=True)]
        assert max(float(was[now == 0].max()) for was, now in weights) <= min(float(was[now != 0].min()) for was, now in weights)


@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_sparsity_zero_and_what_is_there_already_are_refused(scope: str, tmp_path: Path) -> None:
    source = saved("bert", tmp_path / "source")
    with pytest.raises(InputError, match="sparsity 0 makes no zeros; ask for more than 0"):
        prune(source, tmp_path / "target", sparsity=0.0, scope=scope)
    prune(source, tmp_path / "half", sparsity=0.5, scope=scope)
    with pytest.raises(InputError, match="magnitude has nothing to do: with these settings every weight stays what it is"):
        prune(tmp_path / "half", tmp_path / "target", sparsity=0.5, scope=scope)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("dials", [{"scope": "global"}, {"scope": "layer"}, {"scope": "row"}, {"pattern": "2:4"}, {"block": (4, 4)}], ids=str)
def test_zeros_that_are_not_the_smallest_are_refused(dials: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = magnitude.masks_of
    monkeypatch.setattr(magnitude, "masks_of", lambda weights, config: usual([1 / weight for weight in weights], config))
    with pytest.raises(EffectMissing, match="groups in which a smaller one stayed than one that went"):
        prune(saved("bert", tmp_path / "source"), tmp_path / "target", **dials)


def test_a_pattern_stands_on_disk(tmp_path: Path) -> None:
    report = prune(saved("bert", tmp_path / "source"), tmp_path / "target", pattern="2:4")
    assert [(claim["what"], claim["measured"]) for claim in report.claims][:2] == [("sparsity", 0.5), ("most weights left of 4", 2)]
    for _, linear in encoder_linears(load(tmp_path / "target").torch_network):
        assert ((weight_of(linear).reshape(-1, 4) != 0).sum(1) == 2).all()


def test_more_zeros_may_follow_and_fewer_are_refused(tmp_path: Path) -> None:
    prune(saved("bert", tmp_path / "source"), tmp_path / "half", sparsity=0.5, scope="global")
    prune(tmp_path / "half", tmp_path / "more", sparsity=0.75, scope="row")
    assert sparsity(load(tmp_path / "more").torch_network) >= 0.75
    with pytest.raises(InputError, match=r"sparsity 0.3 is less than the 0.5 that the model has already"):
        prune(tmp_path / "half", tmp_path / "fewer", sparsity=0.3)
    assert not (tmp_path / "fewer").exists()


def test_a_pattern_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pattern 2:5 needs rows of a multiple of 5 weights; .* has 32"):
        prune(saved("bert", tmp_path / "source"), tmp_path / "target", pattern="2:5")


@pytest.mark.parametrize(
    "dials",
    [
        {"sparsity": 1.5},
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"sparsity": float("nan")},
        {"pattern": "0:4"},
        {"pattern": "2of4"},
        {"block": (0, 4)},
        {"rounds": 0},
    ],
)
def test_settings_out_of_range_are_refused_by_type(dials: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Magnitude(**dials)


@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({"block": (2, 2), "pattern": "2:4"}, r"pattern 2:4 chooses single weights and block \[2, 2\] whole blocks"),
        ({"block_norm": "mean"}, "block_norm mean judges blocks, and there are none"),
        ({"retrain": Schedule(learning_rate=1e-2)}, "there is only 1; raise rounds"),
        ({"pattern": "2:4", "rounds": 3}, "in at most 2 rounds, got 3"),
        ({"block": (5, 1)}, r"block \[5, 1\] does not divide .*, which is 32 x 32"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_one_line(dials: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as refused:
        prune(saved("bert", tmp_path / "source"), tmp_path / "target", **dials)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("family", six.SIX)
@pytest.mark.parametrize("dials", [{"sparsity": 0.6, "scope": "row"}, {"sparsity": 0.6, "scope": "global", "block": (4, 8)}, {"pattern": "2:4"}], ids=str)
def test_on_every_architecture(dials: dict[str, Any], family: str, tmp_path: Path) -> None:
    """In the orientation that ``Conv1D`` has too."""
    save(six.checkpoint_of(family), tmp_path / "source")
    report = run_step("magnitude", Magnitude(**dials), tmp_path / "source", tmp_path / "target", six.inputs_of(family, tmp_path / "work", 12))
    assert report.claims[0]["measured"] > 0
    zeros = [weight_of(linear) == 0 for _, linear in encoder_linears(load(tmp_path / "target").torch_network)]
    if "block" in dials:
        grids = [mark.unflatten(0, (-1, 4)).unflatten(2, (-1, 8)).float().mean((1, 3)) for mark in zeros]
        assert {float(value) for grid in grids for value in grid.unique()} == {0.0, 1.0}
        assert sum(int(grid.sum()) for grid in grids) == int(0.6 * sum(grid.numel() for grid in grids))
    for mark in zeros:
        if dials.get("scope") == "row":
            assert (mark.sum(1) == int(0.6 * mark.shape[1])).all()
        if "pattern" in dials:
            assert (mark.unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_blocks_are_judged_by_the_norm_that_is_asked_for() -> None:
    """One large weight against four of middling size: the L2 norm prefers the first, the mean the others."""
    weight = torch.tensor([[3.0, 0.1, 1.4, 1.4], [0.1, 0.1, 1.4, 1.4]])
    masks = {norm: masks_of([weight], Magnitude(sparsity=0.5, block=(2, 2), block_norm=norm))[0] for norm in ("l2", "mean")}
    assert masks["l2"][0].tolist() == [False, False, True, True]
    assert masks["mean"][0].tolist() == [True, True, False, False]
