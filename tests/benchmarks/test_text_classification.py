"""Text classification against scikit-learn, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import DataRefused
from tests.tiny import TOPICS, tiny_examples, tiny_tokenizer

BENCHMARK = get_benchmark("text-classification")
label = st.sampled_from(TOPICS)
answers = st.lists(st.tuples(label, label), min_size=1, max_size=30)


def counted(pairs: list[tuple[str, str]]) -> np.ndarray:
    return BENCHMARK.counts([(gold,) for gold, _ in pairs], [(predicted,) for _, predicted in pairs], TOPICS)


@given(answers)
@settings(deadline=None)
def test_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = zip(*pairs, strict=True)
    totals = counted(pairs).sum(axis=0)
    ours, by_label = BENCHMARK.metrics(totals, TOPICS), BENCHMARK.by_type(totals, TOPICS)
    assert ours["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert ours["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    theirs = precision_recall_fscore_support(gold, predicted, labels=list(TOPICS), zero_division=np.nan)
    for i, topic in enumerate(TOPICS):
        assert [by_label[topic][name] for name in ("precision", "recall", "f1", "support")] == pytest.approx([column[i] for column in theirs], nan_ok=True)


@given(answers, st.integers(0, 2**31))
def test_a_batch_of_draws_equals_one_draw_after_the_other(pairs: list[tuple[str, str]], seed: int) -> None:
    counts = counted(pairs)
    draws = np.random.default_rng(seed).multinomial(len(pairs), [1 / len(pairs)] * len(pairs), size=7)
    together = BENCHMARK.metrics(draws @ counts, TOPICS)
    for i in range(7):
        alone = BENCHMARK.metrics(draws[i] @ counts, TOPICS)
        assert all(together[name][i] == alone[name] for name in alone)


def test_nothing_counted_is_nan() -> None:
    assert all(math.isnan(value) for value in BENCHMARK.metrics(np.zeros(9, np.int64), TOPICS).values())


def test_columns_are_named() -> None:
    [row] = counted([("food", "work")])
    assert {name for name, value in zip(BENCHMARK.count_names(TOPICS), row, strict=True) if value} == {"work.predicted", "food.gold"}


def test_encode_decide_and_split() -> None:
    [feature] = BENCHMARK.encode(tiny_tokenizer(), [Example(("kula leo",), ("food",))], TOPICS, 32)
    assert (feature["labels"], feature["units"], len(feature["input_ids"])) == ([0], [0], 4)
    [feature] = BENCHMARK.encode(tiny_tokenizer(), [Example(("kula " * 50,))], TOPICS, 8)
    assert (feature["labels"], len(feature["input_ids"])) == ([-100], 8)
    units = BENCHMARK.unit_logits(np.array([0.0, 2.0, 1.0], np.float32), feature)
    assert units.shape == (1, 3)
    assert BENCHMARK.decide(units, TOPICS) == ("sport",)
    assert BENCHMARK.split("kula  leo.") == ("kula  leo.",)


def test_refusals() -> None:
    with pytest.raises(DataRefused, match="'art' is not among"):
        BENCHMARK.encode(tiny_tokenizer(), [Example(("x",), ("art",))], TOPICS, 32)
    for gold, predicted in ((("art",), ("food",)), (("food",), ("art",)), ((), ("food",)), (("food",), ("food", "work"))):
        with pytest.raises(DataRefused, match="example 0"):
            BENCHMARK.counts([gold], [predicted], TOPICS)
    assert BENCHMARK.encode(tiny_tokenizer(), tiny_examples(0, "text-classification"), TOPICS, 32) == []
