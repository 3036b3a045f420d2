"""Wanda and SparseGPT against loops and against brain surgery with explicit inverses; on all six architectures; and what they refuse."""

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

from recompress.errors import InputError
from recompress.layerwise.second_order import inverse_root, permute
from recompress.methods.pruning import sparsegpt, wanda
from recompress.methods.pruning.rows import smallest_in_rows, zeros_in
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import load, save
from recompress.models.surgery import weight_of
from recompress.training.run import weights_sha256
from tests.layerwise.second_order_by_hand import by_hand, damped, inputs_and_weight, loss
from tests.six import checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
wanda_mask = jaxtyped(typechecker=beartype)(wanda.wanda_mask)
prune_matrix = jaxtyped(typechecker=beartype)(sparsegpt.prune_matrix)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 12), sparsity=st.floats(0, 0.99), seed=st.integers(0, 999))
def test_wanda_is_the_loop_of_the_paper(rows: int, columns: int, sparsity: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, inputs = torch.randn(rows, columns, generator=draw), torch.randn(20, columns, generator=draw)
    mask = wanda_mask(weight, inputs.double().square().sum(0), sparsity=sparsity)
    for o in range(rows):
        scores = [abs(float(weight[o, i])) * float(inputs[:, i].norm()) for i in range(columns)]
        smallest = sorted(range(columns), key=lambda i: scores[i])[: int(sparsity * columns + 1e-9)]
        assert {int(i) for i in mask[o].nonzero()} == set(smallest)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2)])
def test_a_pattern_leaves_n_of_m(n: int, m: int) -> None:
    scores = torch.rand(5, 3 * m, generator=torch.Generator().manual_seed(0))
    mask = smallest_in_rows(scores, 0.0, f"{n}:{m}").view(5, 3, m)
    assert (mask.sum(-1) == m - n).all()
    grouped = scores.view(5, 3, m)
    assert (grouped.masked_fill(mask, 9).amin(-1) >= grouped.masked_fill(~mask, 0).amax(-1)).all()


def test_wanda_with_equal_norms_is_magnitude_in_rows() -> None:
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(wanda_mask(weight, torch.ones(10, dtype=torch.float64), sparsity=0.4), smallest_in_rows(weight.abs(), 0.4, None))


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("damping", [0.01, 0.3])
def test_the_root_holds_every_inverse_that_is_needed(damping: float, dead: bool) -> None:
    hessian, _ = inputs_and_weight(1, 9, 0, dead=dead)
    expected = damped(hessian, damping)
    root = inverse_root(hessian.clone(), damping)
    assert torch.equal(root, root.triu())
    for j in range(9):
        inverse = torch.linalg.inv(expected[j:, j:])
        torch.testing.assert_close(root[j, j] * root[j, j:], inverse[0], rtol=1e-8, atol=1e-10)


def test_the_root_is_written_over_the_hessian() -> None:
    hessian, _ = inputs_and_weight(1, 40, 0)
    assert inverse_root(hessian, 0.01).data_ptr() == hessian.data_ptr()


def test_a_hessian_that_cannot_be_inverted_says_so() -> None:
    with pytest.raises(InputError, match=r"damping 1e-09 is too small; raise it"):
        inverse_root(-torch.eye(3), 1e-9)


@given(st.permutations(range(9)))
def test_permuting_in_place(order: list[int]) -> None:
    matrix = torch.arange(81.0).view(9, 9)
    expected = matrix[order][:, order].clone()
    permute(matrix, torch.tensor(order))
    assert torch.equal(matrix, expected)


def choose_by_hand(sparsity: float, pattern: str | None, block: int, start_zeros: Tensor) -> Any:
    """The masks of the paper: in a block the smallest of W^2 / [H^-1]_jj of all rows together, in a pattern the smallest of each m of a row."""
    zero = start_zeros.clone()

    def settle(j: int, now: Tensor, firsts: Tensor) -> Tensor:
        rows, columns = now.shape
        width = int(pattern.split(":")[1]) if pattern else block
        if j % width == 0:
            end = min(j + width, columns)
            scores = now[:, j:end] ** 2 / firsts[j:end]
            scores[zero[:, j:end]] = -1
            if pattern:
                keep = int(pattern.split(":")[0])
                for o in range(rows):
                    for i in scores[o].argsort(stable=True)[: width - keep]:
                        zero[o, j + i] = True
            else:
                count = int(sparsity * rows * end + 1e-9) - int(zero[:, :j].sum())
                for place in scores.flatten().argsort(stable=True)[: max(count, 0)].tolist():
                    zero[place // (end - j), j + place % (end - j)] = True
        return torch.where(zero[:, j], 0.0, now[:, j])

    return settle


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("sparsity", "pattern"), [(0.5, None), (0.25, None), (0.9, None), (0.0, None), (0.5, "2:4"), (0.5, "1:2"), (0.5, "4:8")])
@pytest.mark.parametrize("columns", [8, 16])
def test_sparsegpt_is_brain_surgery_with_explicit_inverses(columns: int, sparsity: float, pattern: str | None, seed: int, monkeypatch: Any) -> None:
    """In several blocks, so that errors are carried over their ends."""
    block = 8 if pattern else 6
    monkeypatch.setattr("recompress.methods.pruning.sparsegpt.block_of", lambda _: block)
    hessian, weight = inputs_and_weight(5, columns, seed)
    expected = by_hand(weight, damped(hessian, 0.05), choose_by_hand(sparsity, pattern, block, weight == 0))
    pruned = weight.clone()
    prune_matrix(pruned, inverse_root(hessian.clone(), 0.05), sparsity=sparsity, pattern=pattern)
    torch.testing.assert_close(pruned, expected, rtol=1e-7, atol=1e-9)
    assert torch.equal(pruned == 0, expected == 0)
    if sparsity == 0 and not pattern:
        assert torch.equal(pruned, weight)


@pytest.mark.parametrize("seed", range(5))
def test_sparsegpt_loses_less_than_its_own_mask_and_than_wanda(seed: int) -> None:
    hessian, weight = inputs_and_weight(16, 32, seed)
    pruned = weight.clone()
    prune_matrix(pruned, inverse_root(hessian.clone(), 0.01), sparsity=0.5)
    masked = weight.masked_fill(pruned == 0, 0)
    by_wanda = weight.masked_fill(wanda_mask(weight, hessian.diagonal(), sparsity=0.5), 0)
    by_size = weight.masked_fill(smallest_in_rows(weight.abs(), 0.5, None), 0)
    assert loss(hessian, weight, pruned) < min(loss(hessian, weight, other) for other in (masked, by_wanda, by_size))


def test_what_is_zero_stays_zero_and_counts() -> None:
    hessian, weight = inputs_and_weight(4, 8, 0)
    weight[:, ::2] = 0
    pruned = weight.clone()
    prune_matrix(pruned, inverse_root(hessian.clone(), 0.01), sparsity=0.5)
    assert torch.equal(pruned, weight)
    prune_matrix(pruned, inverse_root(hessian.clone(), 0.01), sparsity=0.75)
    assert int((pruned == 0).sum()) == 24
    assert (pruned[:, ::2] == 0).all()


def step(name: str, family: str, place: Path, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    target = place / f"{name}-{'-'.join(map(str, dials.values()))}".replace(":", "of")
    return run_step(name, get_method(name).config(**dials), place / "source", target, inputs_of(family, place / f"work-{target.name}", 24))


@pytest.mark.parametrize("family", each())
@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_on_every_architecture(name: str, family: str, tmp_path: Path) -> None:
    """Half of the weights are zero on disk, in the orientation that ``Conv1D`` has too; with a pattern, two of four in the direction of the sums."""
    report = step(name, family, tmp_path, sparsity=0.5)
    assert report.claims[0]["measured"] == 0.5
    for _, linear in encoder_linears(load(tmp_path / f"{name}-0.5").torch_network):
        zeros = weight_of(linear) == 0
        assert int(zeros.sum()) == zeros.numel() // 2
        assert name != "wanda" or (zeros.sum(1) == shape_of(linear)[1] // 2).all()
    step(name, family, tmp_path, pattern="2:4")
    for _, linear in encoder_linears(load(tmp_path / f"{name}-2of4").torch_network):
        assert ((weight_of(linear) == 0).unflatten(1, (-1, 4)).sum(-1) == 2).all()


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_sparsity_0_is_refused_and_the_same_seed_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sparsity 0 makes no zeros; ask for more than 0, or leave the step out"):
        step(name, "llama", tmp_path, sparsity=0.0)
    method = get_method(name)
    twice = [method.run(load(tmp_path / "source"), method.config(sparsity=0.3), inputs_of("llama", tmp_path / str(i), 24)) for i in range(2)]
    assert weights_sha256(twice[0].torch_network) == weights_sha256(twice[1].torch_network) != weights_sha256(load(tmp_path / "source").torch_network)


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contradicts pattern"):
        step(name, "bert", tmp_path, sparsity=0.3, pattern="2:4")
    with pytest.raises(InputError, match="n is less than m"):
        step(name, "bert", tmp_path, pattern="4:4")
    with pytest.raises(InputError, match=r"multiple of 5 weights; .* has 32"):
        step(name, "bert", tmp_path, pattern="2:5")
    step(name, "bert", tmp_path, sparsity=0.5)
    with pytest.raises(InputError, match=f"{name}: sparsity 0.25 is less than the 0.5"):
        run_step(name, get_method(name).config(sparsity=0.25), tmp_path / f"{name}-0.5", tmp_path / "x", inputs_of("bert", tmp_path / "w"))
    assert {path.name for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith("work")} <= {"source", f"{name}-0.5", "w"}


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_zeros_of_before_are_among_those_that_were_asked_for_however_much_others_make_up(pattern: str | None) -> None:
    """Inputs that are nearly alike: where one weight goes its neighbours take its place, those that are zero already as well, and these must not be counted as others."""
    hand = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 1, generator=hand) + 0.3 * torch.randn(400, 32, generator=hand)
    weight = torch.randn(24, 32, generator=hand)
    weight.view(24, 8, 4)[..., 1] = 0
    root = inverse_root(inputs.T @ inputs, 0.01, "here")
    was = weight == 0
    sparsegpt.prune_matrix(weight, root, sparsity=0.5, pattern=pattern)
    assert int((weight == 0).sum()) == weight.numel() // 2
    assert bool((weight[was] == 0).all())


def test_whole_weights_in_a_share() -> None:
    """0.29 * 100 is 28.999999999999996 in floats."""
    assert [zeros_in(share, count) for share, count in ((0.29, 100), (0.57, 100), (0.5, 7), (0.0, 9))] == [29, 57, 3, 0]
