"""Masks against loops, and zeros counted on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from pydantic import ValidationError

from recompress.architecture import encoder_linears
from recompress.checkpoint import load
from recompress.compression import StepReport, run_step
from recompress.digest import sha256_file
from recompress.errors import InputError
from recompress.pruning import magnitude, mask
from recompress.pruning.magnitude import Magnitude
from recompress.pruning.mask import hold_zeros, sparsity
from recompress.surgery import weight_of
from tests.families import FAMILIES, checkpoint_of, features_of, inputs_of, saved

magnitude_mask = jaxtyped(typechecker=beartype)(magnitude.magnitude_mask)
pattern_mask = jaxtyped(typechecker=beartype)(magnitude.pattern_mask)
smallest = jaxtyped(typechecker=beartype)(mask.smallest)
numbers = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])


def prune(source: Path, target: Path, **dials: Any) -> StepReport:
    return run_step("magnitude", Magnitude(**dials), source, target, inputs_of(target.parent / "work"))


@given(st.lists(numbers, min_size=1, max_size=20), st.data())
def test_the_smallest_are_exactly_as_many_as_asked(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    found = smallest(torch.tensor(values), count)
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert found.nonzero().flatten().tolist() == sorted(order[:count])


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0, 0.99), st.booleans(), st.data())
def test_a_mask_equals_sorting_by_hand(rows: int, columns: int, share: float, by_row: bool, data: st.DataObject) -> None:
    weight = torch.tensor(data.draw(st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=rows, max_size=rows)))
    found = magnitude_mask(weight, sparsity=share, rows=by_row)
    groups = [[(r, c) for c in range(columns)] for r in range(rows)] if by_row else [[(r, c) for r in range(rows) for c in range(columns)]]
    expected = torch.zeros(rows, columns, dtype=torch.bool)
    for group in groups:
        for r, c in sorted(group, key=lambda at: (abs(float(weight[at])), at))[: int(share * len(group) + 1e-9)]:
            expected[r, c] = True
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2)])
def test_a_pattern_leaves_the_n_largest_of_each_m(n: int, m: int) -> None:
    weight = torch.randn(3, 2 * m)
    gone = pattern_mask(weight, n, m)
    for row, marks in zip(weight, gone, strict=True):
        for start in (0, m):
            group, mark = row[start : start + m].abs(), marks[start : start + m]
            assert int((~mark).sum()) == n
            assert group[~mark].min() >= group[mark].max()


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
def test_sparsity_zero_changes_nothing(scope: str, tmp_path: Path) -> None:
    source = saved("bert", tmp_path / "source")
    prune(source, tmp_path / "target", sparsity=0.0, scope=scope)
    assert sha256_file(source / "model.safetensors") == sha256_file(tmp_path / "target" / "model.safetensors")


def test_a_pattern_stands_on_disk(tmp_path: Path) -> None:
    report = prune(saved("bert", tmp_path / "source"), tmp_path / "target", pattern="2:4")
    assert [(claim["what"], claim["measured"]) for claim in report.claims] == [("sparsity", 0.5), ("most weights left of 4", 2)]
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
    "dials", [{"sparsity": 1.5}, {"sparsity": 1.0}, {"sparsity": -0.1}, {"sparsity": float("nan")}, {"pattern": "0:4"}, {"pattern": "2of4"}]
)
def test_settings_out_of_range_are_refused_by_type(dials: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Magnitude(**dials)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_zeros_are_held_while_training_and_free_afterwards(optimizer: Any) -> None:
    checkpoint = checkpoint_of("bert")
    network: Any = checkpoint.torch_network
    marks = {}
    for name, linear in encoder_linears(network):
        gone = magnitude_mask(weight_of(linear), sparsity=0.5, rows=False)
        weight_of(linear).masked_fill_(gone, 0)
        marks[name] = gone
    steps = optimizer(network.parameters(), lr=0.05)
    ids = torch.tensor([features_of(checkpoint, 1)[0]["input_ids"]])

    def step() -> None:
        steps.zero_grad()
        network(input_ids=ids, labels=torch.zeros_like(ids)).loss.backward()
        steps.step()

    with hold_zeros(network):
        before = {name: weight_of(linear).clone() for name, linear in encoder_linears(network)}
        step()
        step()
        for name, linear in encoder_linears(network):
            assert torch.equal(weight_of(linear) == 0, marks[name])
        assert any(not torch.equal(weight_of(linear), before[name]) for name, linear in encoder_linears(network))
    step()
    assert sparsity(network) < 0.5


def test_holding_a_dense_network_holds_nothing() -> None:
    from torch.optim.optimizer import _global_optimizer_post_hooks

    network = checkpoint_of("bert").torch_network
    with hold_zeros(network):
        assert not _global_optimizer_post_hooks
