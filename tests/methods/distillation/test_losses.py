"""The parts of the loss against loops over numbers, and what each must hold to."""

from __future__ import annotations

import math

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from torch import Tensor

from recompress.methods.distillation import losses as file

divergence = jaxtyped(typechecker=beartype)(file.divergence)
distillation_loss = jaxtyped(typechecker=beartype)(file.distillation_loss)
states_loss = jaxtyped(typechecker=beartype)(file.states_loss)
relation_loss = jaxtyped(typechecker=beartype)(file.relation_loss)
next_token_loss = jaxtyped(typechecker=beartype)(file.next_token_loss)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5))
seeds = st.integers(0, 2**31)
TEXT = torch.tensor([[True, True, True], [True, False, False]])


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(shapes, st.floats(0.5, 8), seeds)
@settings(deadline=None, max_examples=60)
def test_soft_labels_equal_a_loop(shape: tuple[int, int, int], temperature: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=draw) for _ in range(2))
    silent = torch.rand(shape[:2], generator=draw) < 0.4
    teacher[silent] = 0
    each = [
        kl(softmax(teacher[b, u].tolist(), temperature), softmax(student[b, u].tolist(), temperature))
        for b in range(shape[0])
        for u in range(shape[1])
        if not silent[b, u]
    ]
    expected = temperature**2 * sum(each) / max(1, len(each))
    assert distillation_loss(student, teacher, temperature=temperature).item() == pytest.approx(expected, abs=1e-4)


@given(seeds, st.floats(0.5, 8))
@settings(deadline=None, max_examples=30)
def test_the_divergence_is_never_negative_and_zero_for_equals_and_for_shifted_logits(seed: int, temperature: float) -> None:
    student, teacher = random(seed, 5, 4), random(seed + 1, 5, 4)
    assert (divergence(student, teacher, temperature=temperature) > -1e-6).all()
    assert divergence(teacher + 3, teacher, temperature=temperature).abs().max() < 1e-5


def test_the_gradient_keeps_its_size_when_the_temperature_changes() -> None:
    teacher = 0.01 * random(0, 4, 3, 5)
    sizes = []
    for temperature in (1.0, 4.0, 16.0):
        student = torch.zeros(4, 3, 5, requires_grad=True)
        distillation_loss(student, teacher, temperature=temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes == pytest.approx([sizes[0]] * 3, rel=0.02)


def test_a_batch_of_silence_teaches_nothing_and_is_no_nan() -> None:
    student = torch.randn(2, 3, 4, requires_grad=True)
    loss = distillation_loss(student, torch.zeros(2, 3, 4), temperature=2.0)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() == 0


@given(seeds, st.floats(0.5, 4))
@settings(deadline=None, max_examples=20)
def test_next_tokens_equal_a_loop_over_the_text(seed: int, temperature: float) -> None:
    student, teacher = random(seed, 2, 3, 6), random(seed + 1, 2, 3, 6)
    each = [kl(softmax(teacher[b, t].tolist(), temperature), softmax(student[b, t].tolist(), temperature)) for b, t in TEXT.nonzero().tolist()]
    assert next_token_loss(student, teacher, TEXT, temperature=temperature).item() == pytest.approx(temperature**2 * sum(each) / 4, abs=1e-4)


@given(seeds)
@settings(deadline=None, max_examples=20)
def test_states_equal_a_loop_over_the_text(seed: int) -> None:
    student, teacher = random(seed, 2, 3, 4), random(seed + 1, 2, 3, 4)
    squares, cosines = [], []
    for b, t in TEXT.nonzero().tolist():
        mine, its = student[b, t].tolist(), teacher[b, t].tolist()
        squares.append(sum((x - y) ** 2 for x, y in zip(mine, its, strict=True)) / 4)
        sizes = math.hypot(*mine) * math.hypot(*its)
        cosines.append(1 - sum(x * y for x, y in zip(mine, its, strict=True)) / sizes)
    assert states_loss(student, teacher, TEXT, kind="mse").item() == pytest.approx(sum(squares) / 4, abs=1e-5)
    assert states_loss(student, teacher, TEXT, kind="cosine").item() == pytest.approx(sum(cosines) / 4, abs=1e-5)


def relations_by_hand(states: Tensor, b: int, token: int, head: int, heads: int, causal: bool) -> list[float]:
    size = states.shape[-1] // heads
    rows = states[b, :, head * size : (head + 1) * size].tolist()
    seen = [row for i, (row, there) in enumerate(zip(rows, TEXT[b].tolist(), strict=True)) if there and (i <= token or not causal)]
    return softmax([sum(x * y for x, y in zip(rows[token], other, strict=True)) / math.sqrt(size) for other in seen])


@given(seeds, st.sampled_from([1, 2, 4]), st.booleans())
@settings(deadline=None, max_examples=20)
def test_relations_equal_a_loop_over_heads_and_tokens_whatever_the_widths(seed: int, heads: int, causal: bool) -> None:
    student, teacher = random(seed, 2, 3, 4), random(seed + 1, 2, 3, 8)
    each = [
        kl(relations_by_hand(teacher, b, token, head, heads, causal), relations_by_hand(student, b, token, head, heads, causal))
        for head in range(heads)
        for b, token in TEXT.nonzero().tolist()
    ]
    assert relation_loss(student, teacher, TEXT, heads=heads, causal=causal).item() == pytest.approx(sum(each) / (heads * 4), abs=1e-4)


@given(seeds)
@settings(deadline=None, max_examples=20)
def test_padding_changes_nothing_and_has_no_gradient(seed: int) -> None:
    student, teacher = random(seed, 2, 3, 4).requires_grad_(), random(seed + 1, 2, 3, 4)
    other = torch.where(TEXT[..., None], student.detach(), 100.0)
    for loss in (
        lambda mine: states_loss(mine, teacher, TEXT, kind="mse"),
        lambda mine: states_loss(mine, teacher, TEXT, kind="cosine"),
        lambda mine: relation_loss(mine, teacher, TEXT, heads=2, causal=False),
        lambda mine: next_token_loss(mine, teacher, TEXT, temperature=1.0),
    ):
        assert loss(other).item() == pytest.approx(loss(student).item(), abs=1e-6)
        [gradient] = torch.autograd.grad(loss(student), student)
        assert gradient.isfinite().all()
        assert gradient[~TEXT].abs().max() == 0
        assert gradient[TEXT].abs().max() > 0 or loss(student).item() < 1e-6


@given(seeds)
@settings(deadline=None, max_examples=20)
def test_a_student_like_its_teacher_loses_nothing(seed: int) -> None:
    same = random(seed, 2, 3, 4)
    losses = [
        states_loss(same, same, TEXT, kind="mse"),
        states_loss(same, 2 * same, TEXT, kind="cosine"),  # a cosine does not see the length
        relation_loss(same, same, TEXT, heads=2, causal=False),
        relation_loss(same, torch.cat([same[..., :2], 0 * same[..., :2], same[..., 2:], 0 * same[..., :2]], -1) * 2**0.25, TEXT, heads=2, causal=False),
        next_token_loss(same, same, TEXT, temperature=2.0),
    ]
    assert max(loss.item() for loss in losses) < 1e-6
