"""Batches and the order of examples."""

from __future__ import annotations

import numpy as np
import pytest
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from recompress.training import batches
from recompress.training.batches import EpochOrder

collate = jaxtyped(typechecker=beartype)(batches.collate)
lengths = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@given(lengths, st.integers(1, 16), st.integers(0, 2**32 - 1), st.booleans())
@settings(deadline=None)
def test_each_epoch_visits_every_example_once_and_is_drawn_from_seed_and_epoch_alone(sizes: list[int], batch: int, seed: int, grouped: bool) -> None:
    order = EpochOrder(sizes, batch, seed, group_by_length=grouped)
    first = list(order)
    assert sorted(first) == list(range(len(sizes))) == sorted(range(len(order)))
    order.set_epoch(1)
    again = EpochOrder(sizes, batch, seed, group_by_length=grouped)
    again.set_epoch(1)
    assert list(order) == list(again)
    order.set_epoch(0)
    assert list(order) == first


def test_epochs_and_seeds_differ() -> None:
    order = EpochOrder([5] * 100, 4, 0, group_by_length=True)
    first = list(order)
    order.set_epoch(1)
    assert list(order) != first
    assert list(EpochOrder([5] * 100, 4, 1, group_by_length=True)) != first


@pytest.mark.parametrize("seed", range(5))
def test_grouping_leaves_little_padding(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(5, 100, size=2000).tolist()

    def padding(*, grouped: bool) -> float:
        order = list(EpochOrder(sizes, 16, seed, group_by_length=grouped))
        groups = [[sizes[i] for i in order[start : start + 16]] for start in range(0, len(order), 16)]
        return 1 - sum(sizes) / sum(max(group) * len(group) for group in groups)

    assert padding(grouped=True) < 0.05 < 0.3 < padding(grouped=False)


def test_collate_pads_and_puts_what_the_teacher_said_where_its_unit_is() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    features = [
        {"input_ids": [7, 8, 9, 10], "attention_mask": [1] * 4, "labels": [-100, 1, 0, -100], "units": [1, 2, -1], "teacher": rows},
        {"input_ids": [7, 8], "attention_mask": [1] * 2, "labels": [-100, 1], "units": [1], "teacher": rows[:1]},
    ]
    batch = collate(features, pad_token_id=3)
    assert batch["input_ids"].tolist() == [[7, 8, 9, 10], [7, 8, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 1, 0, -100], [-100, 1, -100, -100]]
    assert batch["teacher"][0].tolist() == [[0, 0], [1, 2], [3, 4], [0, 0]], "the word that was cut off (5, 6) teaches nothing"
    assert batch["teacher"][1].tolist() == [[0, 0], [1, 2], [0, 0], [0, 0]]


def test_collate_of_whole_texts() -> None:
    feature = {"input_ids": [7, 8], "attention_mask": [1, 1], "labels": [2], "units": [0], "teacher": np.array([[0.5, -0.5, 1.0]], np.float32)}
    batch = collate([feature, {**feature, "input_ids": [7], "attention_mask": [1]}], pad_token_id=0)
    assert batch["labels"].tolist() == [[2], [2]]
    assert batch["teacher"].tolist() == [[[0.5, -0.5, 1.0]]] * 2


def test_words_that_were_cut_off_before_the_text_teach_nothing_and_move_nothing() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    feature = {"input_ids": [7, 8, 9], "attention_mask": [1] * 3, "labels": [-100, 1, 0], "units": [-1, 1, 2], "teacher": rows}
    assert collate([feature], pad_token_id=3)["teacher"][0].tolist() == [[0, 0], [3, 4], [5, 6]]


@pytest.mark.parametrize("seed", range(3))
def test_batches_of_like_length_come_in_any_order(seed: int) -> None:
    lengths = list(range(200))
    order = list(EpochOrder(lengths, 4, seed, group_by_length=True))
    means = [sum(lengths[i] for i in order[start : start + 4]) for start in range(0, 200, 4)]
    assert means != sorted(means)
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5
