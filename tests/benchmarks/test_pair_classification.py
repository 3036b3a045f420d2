"""Pairs of texts: both reach the sequence, the longer one is cut first, and segments are those of the tokenizer's own pair."""

from __future__ import annotations

import numpy as np
import pytest

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import DataRefused
from recompress.models.tokenizer import SEGMENTS, plain_tokenizer, with_segments
from tests.families import tokenizer_of
from tests.tiny import TOPICS, tiny_examples, tiny_tokenizer

BENCHMARK = get_benchmark("pair-classification")
LONG, SHORT = "leo kula jana nyumba kwa cheza leo kula", "asha juma"


def test_a_pair_is_what_the_tokenizer_makes_of_two_texts() -> None:
    tokenizer = tiny_tokenizer()
    [feature] = BENCHMARK.encode(tokenizer, [Example((LONG, SHORT), ("food",))], TOPICS, 32)
    whole = tokenizer(LONG, SHORT)
    assert (feature["input_ids"], feature[SEGMENTS]) == (whole["input_ids"], whole["token_type_ids"])
    assert feature[SEGMENTS] == [0] * 10 + [1] * 3
    assert (feature["labels"], feature["units"]) == ([0], [0])


def test_the_longer_text_is_cut_first() -> None:
    tokenizer = tiny_tokenizer()
    [feature] = BENCHMARK.encode(tokenizer, [Example((LONG, SHORT))], TOPICS, 9)
    assert tokenizer.convert_ids_to_tokens(feature["input_ids"]) == ["[CLS]", "leo", "kula", "jana", "nyumba", "[SEP]", "asha", "juma", "[SEP]"]
    assert feature["labels"] == [-100]


def test_one_text_alone_stands_among_pairs_and_the_order_is_that_of_the_examples() -> None:
    examples = [Example((SHORT,)), Example((LONG, SHORT), ("work",)), Example((LONG,))]
    features = BENCHMARK.encode(tiny_tokenizer(), examples, TOPICS, 32)
    assert [len(feature["input_ids"]) for feature in features] == [4, 13, 10]
    assert [max(feature[SEGMENTS]) for feature in features] == [0, 1, 0]
    assert BENCHMARK.encode(tiny_tokenizer(), [], TOPICS, 32) == []
    with pytest.raises(DataRefused, match="the label 'rain' is not among food, sport, work"):
        BENCHMARK.encode(tiny_tokenizer(), [Example((LONG, SHORT), ("rain",))], TOPICS, 32)


def test_segments_are_named_where_the_network_and_the_form_of_a_pair_know_them() -> None:
    bert, roberta = plain_tokenizer(tiny_tokenizer()), plain_tokenizer(tokenizer_of("roberta"))
    assert SEGMENTS in with_segments(bert, 2).model_input_names
    assert SEGMENTS not in with_segments(bert, 0).model_input_names, "a network without embeddings for them is not given any"
    assert SEGMENTS not in with_segments(roberta, 2).model_input_names, "its form of a pair has one segment"
    nameless = tokenizer_of("bert")  # of no class that names them
    assert SEGMENTS not in nameless.model_input_names
    assert SEGMENTS in with_segments(nameless, 2).model_input_names
    assert SEGMENTS not in BENCHMARK.encode(with_segments(bert, 1), [Example((LONG, SHORT))], TOPICS, 32)[0]


def test_it_counts_as_text_classification_does() -> None:
    other, examples = get_benchmark("text-classification"), tiny_examples(20, "pair-classification")
    gold, said = [example.labels for example in examples], [example.labels for example in examples[::-1]]
    np.testing.assert_array_equal(BENCHMARK.counts(gold, said, TOPICS), other.counts(gold, said, TOPICS))
