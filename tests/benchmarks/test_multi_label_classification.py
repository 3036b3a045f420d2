"""Several labels a text against scikit-learn, none and all of them included, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from recompress.benchmarks import Example, get_benchmark
from recompress.benchmarks.benchmark import NO_LABEL_HOLDS
from recompress.errors import DataRefused
from tests.tiny import TOPICS, tiny_tokenizer

BENCHMARK = get_benchmark("multi-label-classification")
NONE = (NO_LABEL_HOLDS,)
held = st.sets(st.sampled_from(TOPICS)).map(lambda labels: tuple(sorted(labels)) or NONE)
answers = st.lists(st.tuples(held, held), min_size=1, max_size=25)


def counted(pairs: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> np.ndarray:
    return BENCHMARK.counts([gold for gold, _ in pairs], [tuple(label for label in said if label) for _, said in pairs], TOPICS)


@given(answers)
@settings(deadline=None)
def test_equals_scikit_learn(pairs: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
    gold, said = (np.array([[label in row for label in TOPICS] for row in rows], dtype=int) for rows in zip(*pairs, strict=True))
    ours = BENCHMARK.metrics(counted(pairs).sum(axis=0), TOPICS)
    if gold.any() or said.any():
        assert ours["micro_f1"] == pytest.approx(f1_score(gold, said, average="micro"))
        there = [i for i in range(len(TOPICS)) if gold[:, i].any() or said[:, i].any()]
        assert ours["macro_f1"] == pytest.approx(
            f1_score(gold[:, there], said[:, there], average="macro") if len(there) > 1 else f1_score(gold[:, there[0]], said[:, there[0]])
        )
    else:
        assert math.isnan(ours["micro_f1"])
        assert math.isnan(ours["macro_f1"])
    if said.any():
        assert ours["micro_precision"] == pytest.approx(precision_score(gold, said, average="micro"))
    if gold.any():
        assert ours["micro_recall"] == pytest.approx(recall_score(gold, said, average="micro"))
    assert ours["subset_accuracy"] == pytest.approx(accuracy_score(gold, said))


@given(answers, st.integers(0, 2**31))
def test_a_batch_of_draws_equals_one_draw_after_the_other(pairs: list[tuple[tuple[str, ...], tuple[str, ...]]], seed: int) -> None:
    counts = counted(pairs)
    draws = np.random.default_rng(seed).multinomial(len(pairs), [1 / len(pairs)] * len(pairs), size=5)
    together = BENCHMARK.metrics(draws @ counts, TOPICS)
    for i in range(5):
        for name, value in BENCHMARK.metrics(draws[i] @ counts, TOPICS).items():
            np.testing.assert_equal(together[name][i], value)


def test_columns_are_named() -> None:
    [row] = counted([(("food",), ("food", "work"))])
    names = BENCHMARK.count_names(TOPICS)
    assert len(names) == len(row)
    assert {name for name, value in zip(names, row, strict=True) if value} == {"food.correct", "food.predicted", "food.gold", "work.predicted", "texts"}
    assert BENCHMARK.by_type(row, TOPICS)["food"] == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "support": 1.0}


def test_nothing_is_another_thing_than_nothing_said() -> None:
    texts = [Example(("kula",), NONE), Example(("kula",)), Example(("kula",), ("food", "work"))]
    none, unsaid, two = (feature["labels"][0] for feature in BENCHMARK.encode(tiny_tokenizer(), texts, TOPICS, 32))
    assert (none, two) == ([0, 0, 0], [1, 0, 1])
    assert all(map(math.isnan, unsaid))
    with pytest.raises(DataRefused, match="example 0 says nothing about its labels"):
        BENCHMARK.counts([()], [()], TOPICS)
    with pytest.raises(DataRefused, match="the label 'rain' is not among"):
        BENCHMARK.counts([NONE], [("rain",)], TOPICS)


def test_a_label_holds_from_the_threshold_on() -> None:
    logits = np.array([[0.0, -0.01, 2.0]])
    assert BENCHMARK.decide(logits, TOPICS) == ("food", "work")
    assert get_benchmark(BENCHMARK.name, {"threshold": 0.8}).decide(logits, TOPICS) == ("work",)
    assert get_benchmark(BENCHMARK.name, {"threshold": 0.4}).decide(logits, TOPICS) == TOPICS
    assert BENCHMARK.decide(logits - 9, TOPICS) == ()
    with pytest.raises(ValidationError):
        get_benchmark(BENCHMARK.name, {"threshold": 1.0})
