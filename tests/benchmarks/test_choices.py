"""How likely a model finds each of several endings, against whole texts read at once; on torch, on llama.cpp, and on a runtime that keeps nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.benchmarks.choices import Question, calibrated, likelihoods, normalised, question_of, shared, shares
from recompress.errors import DataRefused, InputError, IntegrityError
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import save
from recompress.runtimes import open_runtime, runtime_of
from recompress.runtimes.rereading import Rereading, as_continuing
from tests.six import DECODERS, checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
SHOTS = "asha: nyumba\nleo: kazi\n"
TEXTS = ("kula na cheza:", "soma:", "asha: nyumba:")
ENDINGS = (" nyumba", " k", " kazi ya leo")
ROOM = 60


def by_hand(runtime: Any, question: Question) -> list[float]:
    """Each text with its ending read whole."""
    sums = []
    for ending in question.endings:
        tokens = [*question.beginning, *ending]
        [logits] = runtime.logits([{"input_ids": tokens, "attention_mask": [1] * len(tokens)}], 1)
        log_shares = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
        first = len(question.beginning)
        sums.append(sum(log_shares[first + i - 1, token] for i, token in enumerate(ending)))
    return sums


def asked(family: str) -> tuple[Any, list[int], list[Question]]:
    checkpoint = checkpoint_of(family)

    def tokens(text: str) -> list[int]:
        return checkpoint.tokenizer(text, verbose=False)["input_ids"]

    return checkpoint, tokens(SHOTS), [question_of(tokens(SHOTS + text), [tokens(SHOTS + text + ending) for ending in ENDINGS]) for text in TEXTS]


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("runtime", ["torch", "rereading"])
def test_likelihoods_are_those_of_whole_texts(family: str, runtime: str) -> None:
    checkpoint, prefix, questions = asked(family)
    served = runtime_of(checkpoint)
    model: Any = served if runtime == "torch" else Rereading(served, 64)
    found = list(likelihoods(model, prefix, questions, ROOM))
    for sums, question in zip(found, questions, strict=True):
        assert sums.tolist() == pytest.approx(by_hand(served, question), rel=1e-4)
    assert any(len(ending) > 1 for question in questions for ending in question.endings), "endings of one token try little"
    assert [row.tolist() for row in likelihoods(model, [], questions, ROOM)] == [pytest.approx(row.tolist(), rel=1e-4) for row in found]


def test_llama_cpp_finds_the_same_as_torch(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    checkpoint, prefix, questions = asked("llama")
    save(checkpoint, tmp_path / "source")
    run_step("gguf", get_method("gguf").config(weights="f32"), tmp_path / "source", tmp_path / "made", inputs_of("llama", tmp_path / "work"))
    model: Any = open_runtime(tmp_path / "made")
    for sums, question in zip(likelihoods(model, prefix, questions, ROOM), questions, strict=True):
        assert sums.tolist() == pytest.approx(by_hand(runtime_of(checkpoint), question), rel=2e-3)
    with pytest.raises(InputError, match=r"999 tokens cannot be gone back to"):
        model.rewind(999)


@pytest.mark.parametrize("family", DECODERS)
def test_no_answer_depends_on_the_questions_before_it(family: str) -> None:
    """To the last bit, also where a question shares only a part of what all begin with."""
    checkpoint, prefix, questions = asked(family)
    model: Any = runtime_of(checkpoint)
    questions = [*questions, Question([*prefix[:4], 5, 6], [[7], [8, 9]])]
    together = [row.tolist() for row in likelihoods(model, prefix, questions, ROOM)]
    assert [[*likelihoods(model, prefix, [question], ROOM)][0].tolist() for question in questions] == together
    assert [row.tolist() for row in likelihoods(model, prefix, questions[::-1], ROOM)][::-1] == together


class Counting:
    """How many tokens a runtime read."""

    def __init__(self, runtime: Any) -> None:
        self.runtime, self.lock, self.positions, self.tokens = runtime, runtime.lock, runtime.positions, 0

    def prefill(self, tokens: list[int], room: int) -> Any:
        self.tokens += len(tokens)
        return self.runtime.prefill(tokens, room)

    def read_on(self, tokens: list[int]) -> Any:
        self.tokens += len(tokens)
        return self.runtime.read_on(tokens)

    def decode(self, token: int) -> Any:
        return self.read_on([token])[-1]

    def rewind(self, length: int) -> None:
        self.runtime.rewind(length)


def test_what_all_questions_begin_with_is_read_once() -> None:
    checkpoint, prefix, questions = asked("llama")
    model = Counting(runtime_of(checkpoint))
    list(likelihoods(model, prefix, questions, ROOM))
    of_endings = sum(len(ending) - 1 for question in questions for ending in question.endings)
    assert model.tokens == len(prefix) + sum(len(question.beginning) - len(prefix) for question in questions) + of_endings


def test_a_token_over_the_border_belongs_to_all_endings() -> None:
    """Here the tokenizer joins the last token of the text with the second ending."""
    assert question_of([1, 2, 3], [[1, 2, 3, 4], [1, 2, 9, 9]]) == Question([1, 2], [[3, 4], [9, 9]])
    assert question_of([1, 2, 3], [[1, 2, 3], [1, 2, 3, 4]]) == Question([1, 2], [[3], [3, 4]])
    with pytest.raises(DataRefused, match="no token before its choices"):
        question_of([1], [[2], [1, 3]])
    assert shared([1, 2, 3], [1, 2]) == 2
    assert shared([], [1]) == 0


class Broken:
    positions = 64

    def logits(self, features: Any, batch_size: int = 1) -> Any:
        return [np.full((len(feature["input_ids"]), 9), np.nan, dtype=np.float32) for feature in features]


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(IntegrityError, match="not finite"):
        list(likelihoods(as_continuing(Broken(), 64), [], [Question([1], [[2]])], ROOM))  # type: ignore[arg-type]


numbers = st.lists(st.floats(-30, 0), min_size=2, max_size=5)


@given(numbers, st.lists(numbers, max_size=3))
def test_calibration_divides_by_the_shares_behind_nothing(scores: list[float], silent: list[list[float]]) -> None:
    """Against equation of section 5: the shares, each divided by what it is without content, and these made to add up to 1 again."""
    without = [np.array((row + scores)[: len(scores)]) for row in silent]
    found = shares(calibrated(np.array(scores), without))
    prior = np.mean([np.exp(row) / np.exp(row).sum() for row in without], axis=0) if without else 1.0
    expected = np.exp(np.array(scores)) / prior
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-7)


def test_long_endings_are_made_equal_by_token_or_by_byte() -> None:
    sums = np.array([-6.0, -4.0])
    assert normalised(sums, [3, 1], [12, 16], "sum").tolist() == [-6.0, -4.0]
    assert normalised(sums, [3, 1], [12, 16], "per_token").tolist() == [-2.0, -4.0]
    assert normalised(sums, [3, 1], [12, 16], "per_byte").tolist() == [-0.5, -0.25]
