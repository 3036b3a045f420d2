"""Token classification against seqeval, by brute force, and at its edges."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from recompress.benchmarks import Example, get_benchmark
from recompress.benchmarks.token_classification import entities, entity_types
from recompress.errors import DataRefused, InputError
from tests.tiny import TAGS, tiny_examples, tiny_tokenizer

LABELS = ("O", "B-DATE", "I-DATE", "B-LOC", "I-LOC", "B-PER", "I-PER")
BENCHMARK = get_benchmark("token-classification")
tagging = st.lists(st.sampled_from(LABELS), min_size=1, max_size=12)
pairs = st.lists(tagging.flatmap(lambda gold: st.tuples(st.just(gold), st.lists(st.sampled_from(LABELS), min_size=len(gold), max_size=len(gold)))), max_size=6)


@given(pairs.filter(lambda answers: any(tag.startswith("B-") for _, prediction in answers for tag in prediction)))
@settings(max_examples=300, deadline=None)
def test_equals_seqeval(answers: list[tuple[list[str], list[str]]]) -> None:
    gold, predicted = [list(tags) for tags in zip(*answers, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns of empty denominators, where we say NaN
        report = classification_report(gold, predicted, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    totals = BENCHMARK.counts(gold, predicted, LABELS).sum(axis=0)
    ours, by_type = BENCHMARK.metrics(totals, LABELS), BENCHMARK.by_type(totals, LABELS)
    for name, theirs in (("f1", "f1-score"), ("precision", "precision"), ("recall", "recall")):
        assert np.nan_to_num(ours[name]) == pytest.approx(report["micro avg"][theirs])
        for kind in entity_types(LABELS):
            if kind in report:
                assert np.nan_to_num(by_type[kind][name]) == pytest.approx(report[kind][theirs])
                assert by_type[kind]["support"] == report[kind]["support"]


@given(tagging)
def test_entities_by_brute_force(tags: list[str]) -> None:
    spans = {
        (tags[start][2:], start, end)
        for start in range(len(tags))
        for end in range(start + 1, len(tags) + 1)
        if tags[start].startswith("B-")
        and all(tag == f"I-{tags[start][2:]}" for tag in tags[start + 1 : end])
        and (end == len(tags) or tags[end] != f"I-{tags[start][2:]}")
    }
    assert entities(tags) == spans


@given(pairs.filter(bool), st.integers(0, 2**31))
def test_a_batch_of_draws_equals_one_draw_after_the_other(answers: list[tuple[list[str], list[str]]], seed: int) -> None:
    gold, predicted = zip(*answers, strict=True)
    counts = BENCHMARK.counts(gold, predicted, LABELS)
    draws = np.random.default_rng(seed).multinomial(len(answers), [1 / len(answers)] * len(answers), size=(2, 5))
    together = BENCHMARK.metrics(draws @ counts, LABELS)
    assert together["f1"].shape == (2, 5)
    for index in np.ndindex(2, 5):
        alone = BENCHMARK.metrics(draws[index] @ counts, LABELS)
        assert all(np.array_equal(together[name][index], alone[name], equal_nan=True) for name in alone)


def test_empty_denominators_are_nan() -> None:
    nothing = BENCHMARK.metrics(BENCHMARK.counts([["O"]], [["O"]], LABELS).sum(axis=0), LABELS)
    assert all(math.isnan(value) for value in nothing.values())
    missed = BENCHMARK.metrics(BENCHMARK.counts([["B-PER"]], [["O"]], LABELS).sum(axis=0), LABELS)
    assert (missed["f1"], missed["recall"]) == (0, 0)
    assert math.isnan(missed["precision"])


def test_columns_are_named_and_add_up_per_example() -> None:
    names = BENCHMARK.count_names(LABELS)
    [row] = BENCHMARK.counts([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "O", "B-LOC"]], LABELS)
    assert {name: value for name, value in zip(names, row, strict=True) if value} == {
        "LOC.correct": 1, "LOC.predicted": 1, "LOC.gold": 1, "PER.predicted": 1, "PER.gold": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "gold, predicted, reason",
    [(["O", "O"], ["O"], "2 tags and 1 predictions"), (["B-ORG"], ["O"], "'B-ORG'"), (["O"], ["X"], "'X'")],
)
def test_tags_that_cannot_be_judged_are_refused(gold: list[str], predicted: list[str], reason: str) -> None:
    with pytest.raises(DataRefused, match=reason):
        BENCHMARK.counts([gold], [predicted], LABELS)


def test_the_first_sub_token_carries_the_tag() -> None:
    [feature] = BENCHMARK.encode(tiny_tokenizer(), [Example(("nairobini", "na", "asha"), ("B-LOC", "O", "B-PER"))], TAGS, 32)
    assert feature["units"] == [1, 3, 4]  # [CLS] nairobi ##ni na asha [SEP]
    assert feature["labels"] == [-100, TAGS.index("B-LOC"), -100, 0, TAGS.index("B-PER"), -100]
    assert feature["attention_mask"] == [1] * 6


def test_words_cut_off_or_empty_are_predicted_outside() -> None:
    tokenizer = tiny_tokenizer()
    [feature] = BENCHMARK.encode(tokenizer, [Example(("nairobini", "\u200b", "asha"), ("B-LOC", "O", "B-PER"))], TAGS, 4)
    assert feature["units"] == [1, -1, -1]
    logits = np.full((4, len(TAGS)), -1.0, np.float32)
    logits[:, 1] = 1
    units = BENCHMARK.unit_logits(logits, feature)
    assert BENCHMARK.decide(units, TAGS) == ("B-LOC", "O", "O")
    assert BENCHMARK.decide(units, (*TAGS[1:], "O"))[1:] == ("O", "O"), "wherever O stands among the labels"


def test_unit_logits_ignore_padding_and_keep_the_models_output_as_it_is() -> None:
    feature = BENCHMARK.encode(tiny_tokenizer(), [Example(("asha", "na"))], TAGS, 32)[0]
    logits = np.random.default_rng(0).normal(size=(9, len(TAGS))).astype(np.float32)
    before = logits.copy()
    assert np.array_equal(BENCHMARK.unit_logits(logits, feature), before[[1, 2]])
    assert np.array_equal(logits, before)


def test_unlabelled_examples_carry_no_label_but_have_units() -> None:
    [feature] = BENCHMARK.encode(tiny_tokenizer(), [Example(("asha", "na"))], TAGS, 32)
    assert set(feature["labels"]) == {-100}
    assert feature["units"] == [1, 2]


def test_encode_refuses() -> None:
    with pytest.raises(DataRefused, match="'B-ORG' is not among"):
        BENCHMARK.encode(tiny_tokenizer(), [Example(("x",), ("B-ORG",))], TAGS, 32)
    with pytest.raises(InputError, match="needs the label 'O'"):
        BENCHMARK.encode(tiny_tokenizer(), tiny_examples(1), ("B-PER",), 32)
    assert BENCHMARK.encode(tiny_tokenizer(), [], TAGS, 32) == []


def test_an_unknown_benchmark_is_refused_with_the_nearest_word() -> None:
    with pytest.raises(InputError, match="did you mean 'token-classification'"):
        get_benchmark("token-clasification")
