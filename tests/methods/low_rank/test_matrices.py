"""The mathematics of the three, against brute force: what is left out is the error, nothing of that rank is nearer, and all parts are the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped
from torch import Tensor

from recompress.errors import InputError
from recompress.methods.calibration import calibration_features
from recompress.methods.low_rank import activation_svd, fisher_svd, svd
from recompress.methods.low_rank.factorize_embeddings import split_table
from recompress.methods.low_rank.split import Split, cut, factors_for
from recompress.models.architecture import encoder_linears
from recompress.training.batches import collate
from recompress.training.trainer import label_loss
from tests.six import checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
checked = jaxtyped(typechecker=beartype)
by_svd, by_fisher, by_activation, by_table = (checked(f) for f in (svd.split_matrix, fisher_svd.split_matrix, activation_svd.split_matrix, split_table))
SHAPES = [(7, 12), (12, 7), (9, 9)]


def of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product(split: Split, rank: int) -> Tensor:
    second, first = cut(split, rank)
    assert second.shape[1] == first.shape[0] == rank
    torch.testing.assert_close(second.norm(dim=0), first.norm(dim=1))
    return second @ first


def descended(measure: Any, shape: tuple[int, int], rank: int) -> float:
    """The smallest error of a product of that rank that a few hundred Newton-like steps from anywhere find."""
    best = float("inf")
    for seed in range(2):
        second, first = of(shape[0], rank, seed=seed).requires_grad_(), of(rank, shape[1], seed=seed + 9).requires_grad_()
        steps = torch.optim.LBFGS([second, first], max_iter=400, line_search_fn="strong_wolfe")

        def closure(second: Tensor = second, first: Tensor = first, steps: Any = steps) -> Tensor:
            steps.zero_grad()
            error: Tensor = measure(second @ first)
            error.backward()
            return error

        steps.step(closure)
        best = min(best, float(measure(second @ first).detach()))
    return best


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3])
def test_svd_is_the_nearest_of_its_rank(shape: tuple[int, int], rank: int) -> None:
    weight = of(*shape)
    split = by_svd(weight)
    error = float((weight - product(split, rank)).square().sum())
    assert error == pytest.approx(float(split.singular[rank:].square().sum()))
    assert error <= descended(lambda approximation: (weight - approximation).square().sum(), shape, rank) + 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3])
def test_fisher_svd_is_the_nearest_where_inputs_count_by_their_gradients(shape: tuple[int, int], rank: int) -> None:
    weight, importance = of(*shape), of(shape[1], seed=1).square()

    def measure(approximation: Tensor) -> Tensor:
        return (importance * (weight - approximation).square()).sum()

    split = by_fisher(weight, importance)
    error = float(measure(product(split, rank)))
    assert error == pytest.approx(float(split.singular[rank:].square().sum()))
    assert error <= descended(measure, shape, rank) + 1e-6
    assert error < float(measure(product(by_svd(weight), rank)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3])
def test_activation_svd_changes_outputs_by_what_is_left_out_and_by_no_more_than_any(shape: tuple[int, int], rank: int) -> None:
    weight, inputs = of(*shape), of(50, shape[1], seed=1) @ of(shape[1], shape[1], seed=2)

    def measure(approximation: Tensor) -> Tensor:
        return (inputs @ (weight - approximation).T).square().sum()

    split = by_activation(weight, activation_svd.whitening(inputs.T @ inputs, 1e-12))
    error = float(measure(product(split, rank)))
    assert error == pytest.approx(float(split.singular[rank:].square().sum()), rel=1e-6)
    assert error <= descended(measure, shape, rank) * (1 + 1e-6)
    assert error < float(measure(product(by_svd(weight), rank)))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_form_of_the_paper(shape: tuple[int, int]) -> None:
    """With D and L inverted, as the papers write it."""
    weight, rows, inputs = of(*shape), of(shape[1], seed=1).square() + 0.1, of(50, shape[1], seed=2)
    left, singular, right = torch.linalg.svd(rows.sqrt()[:, None] * weight.T, full_matrices=False)  # the paper's W is [in, out]
    torch.testing.assert_close(product(by_fisher(weight, rows), 3).T, (left[:, :3] / rows.sqrt()[:, None] * singular[:3]) @ right[:3])
    root = torch.linalg.cholesky(inputs.T @ inputs)
    left, singular, right = torch.linalg.svd(weight @ root, full_matrices=False)
    expected = (left[:, :3] * singular[:3]) @ right[:3] @ torch.linalg.inv(root)
    torch.testing.assert_close(product(by_activation(weight, root), 3), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_parts_are_the_whole(shape: tuple[int, int]) -> None:
    weight, rank = of(*shape), min(shape)
    for split in (by_svd(weight), by_fisher(weight, of(shape[1], seed=1).square()), by_activation(weight, torch.eye(shape[1], dtype=torch.float64))):
        torch.testing.assert_close(product(split, rank), weight)
    torch.testing.assert_close(product(by_table(weight, torch.ones(shape[0], dtype=torch.float64)), shape[1]), weight)


def test_equal_importance_is_plain_svd() -> None:
    weight = of(7, 12)
    plain = product(by_svd(weight), 3)
    torch.testing.assert_close(product(by_fisher(weight, torch.full((12,), 3.0)), 3), plain)
    torch.testing.assert_close(product(by_fisher(weight, torch.zeros(12)), 3), plain)
    torch.testing.assert_close(product(by_activation(weight, 2 * torch.eye(12, dtype=torch.float64)), 3), plain)
    torch.testing.assert_close(product(by_table(weight, torch.ones(7, dtype=torch.float64)), 3), plain)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, importance = of(7, 12), of(12, seed=1).square()
    importance[2:5] = 0
    assert product(by_fisher(weight, importance), 3).isfinite().all()
    inputs = of(5, 12, seed=2)  # fewer than there are columns
    inputs[:, 3] = 0
    assert product(by_activation(weight, activation_svd.whitening(inputs.T @ inputs, 0.01)), 3).isfinite().all()
    assert product(by_svd(torch.zeros(7, 12)), 3).abs().max() == 0
    with pytest.raises(InputError, match="so that damping 1e-09 is too small; raise it"):
        activation_svd.whitening(-torch.eye(3), 1e-9)


def test_frequent_tokens_are_kept_best() -> None:
    table, counts = of(40, 8), torch.ones(40, dtype=torch.float64)
    counts[:4] = 1e6
    approximation = product(by_table(table, counts), 4)
    torch.testing.assert_close(approximation[:4], table[:4], atol=1e-2, rtol=1e-2)
    assert (approximation[4:] - table[4:]).square().sum() > (product(by_svd(table), 4)[4:] - table[4:]).square().sum()


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
def test_the_importance_of_inputs_is_the_sum_of_squared_gradients_of_single_examples(family: str, tmp_path: Any) -> None:
    checkpoint = checkpoint_of(family)
    network: Any = checkpoint.torch_network
    linears = dict(encoder_linears(network))
    features = calibration_features(checkpoint, inputs_of(family, tmp_path), 3)
    importance = fisher_svd.input_importance(checkpoint, linears, features, "x")
    expected: dict[str, Any] = dict.fromkeys(linears, 0.0)
    for feature in features:
        batch = collate([feature], 0)
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        gradients = torch.autograd.grad(label_loss(logits if logits.ndim == 3 else logits[:, None], batch), [one.weight for one in linears.values()])
        for (name, linear), gradient in zip(linears.items(), gradients, strict=True):
            rows = gradient if isinstance(linear, torch.nn.Linear) else gradient.T
            expected[name] = expected[name] + rows.double().square().sum(0)
    for name in linears:
        torch.testing.assert_close(importance[name], expected[name])
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_examples_without_labels_are_refused(tmp_path: Any) -> None:
    checkpoint = checkpoint_of("bert")
    features = [{**one, "labels": [-100] * len(one["labels"])} for one in calibration_features(checkpoint, inputs_of("bert", tmp_path), 2)]
    with pytest.raises(InputError, match="none of the training examples carries a label"):
        fisher_svd.input_importance(checkpoint, dict(encoder_linears(checkpoint.torch_network)), features, "x")


def test_factors_of_all_parts_answer_as_the_layer_did_bias_and_all() -> None:
    linear = torch.nn.Linear(24, 8)
    factors = factors_for(linear, svd.split_matrix(linear.weight.detach().double()), svd.Svd(parameters=0.5), 0.5)
    assert factors is not None
    given = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(factors(given), given @ factors.weight.T + linear.bias)
    assert float(linear.bias.detach().abs().min()) > 0
