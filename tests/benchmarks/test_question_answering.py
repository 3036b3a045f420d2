"""Windows, spans and scores of question answering: by brute force, at the edges, and with tokenizers of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.benchmarks import Example
from recompress.benchmarks.answers import NOTHING, Span, read, written
from recompress.benchmarks.pieces import NEVER
from recompress.benchmarks.question_answering import Answering, QuestionAnswering
from recompress.benchmarks.windows import best_span, windows_of
from recompress.data.questions import flattened, question_of
from recompress.errors import DataRefused, InputError
from tests.families import FAMILIES, tokenizer_of
from tests.six import byte_tokenizer
from tests.tiny import tiny_tokenizer

LONG = "Asha alikwenda Nairobi. " * 16 + "Juma alikula ugali ẹ̀kọ́ 😀 jana!"
QUESTION = "Juma alikula nini?"
TOKENIZERS = {**{family: lambda family=family: tokenizer_of(family) for family in FAMILIES}, "bytes": byte_tokenizer, "tiny": tiny_tokenizer}


def asked(answer: str = "ugali ẹ̀kọ́ 😀", text: str = LONG) -> Example:
    return Example((QUESTION, text), (written(Span(text.index(answer), answer)),))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_answers_are_found_at_their_characters_in_every_window_that_holds_them(kind: str) -> None:
    benchmark, example, tokenizer = QuestionAnswering(Answering(stride=12)), asked(), TOKENIZERS[kind]()
    features = benchmark.encode(tokenizer, [example], (), 40)
    assert len(features) > 1
    span = read(example.labels[0])
    assert span is not None
    seen = 0
    for feature in features:
        assert len(feature["input_ids"]) <= 40
        first, last = feature["labels"]
        inside = feature["begins"][0] <= span.start and span.end <= feature["ends"][-1]
        assert inside == ((first, last) != (0, 0))
        if inside:
            at = feature["context"][0]
            begin, end = feature["begins"][first - at], feature["ends"][last - at]
            assert begin <= span.start < feature["ends"][first - at]
            assert feature["begins"][last - at] < span.end <= end
            seen += 1
    assert seen


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_windows_cover_the_text_and_overlap_by_the_stride(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    [windows] = windows_of(tokenizer, [QUESTION], [LONG], 64, 10)
    whole = tokenizer.backend_tokenizer.encode(LONG, add_special_tokens=False)
    read_on: list[int] = []
    for number, window in enumerate(windows):
        ids = window["input_ids"][window["context"][0] : window["context"][0] + len(window["begins"])]
        if number:
            assert read_on[-10:] == ids[:10]
            ids = ids[10:]
        read_on += ids
    assert read_on == whole.ids
    assert all(not LONG[begin:end][:1].isspace() for window in windows for begin, end in zip(window["begins"], window["ends"], strict=True))


def test_segments_say_which_text_a_token_belongs_to() -> None:
    [[window]] = windows_of(tiny_tokenizer(), ["asha kula"], ["juma kazi leo"], 32, 4)
    assert window["token_type_ids"] == [0] * 4 + [1] * 4
    assert window["context"] == [4]


def test_a_long_question_leaves_room_for_the_text() -> None:
    [windows] = windows_of(tiny_tokenizer(), ["asha " * 200], ["juma kazi leo jana kula"], 16, 400)
    assert all(len(window["input_ids"]) <= 16 and window["begins"] for window in windows)
    assert {window["context"][0] for window in windows} == {1 + 6 + 1}
    assert windows[-1]["ends"][-1] == len("juma kazi leo jana kula")
    with pytest.raises(InputError, match="max_length is at least 5"):
        windows_of(tiny_tokenizer(), ["asha"], ["juma"], 4, 1)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=9), st.integers(1, 10))
def test_the_best_span_by_brute_force(logits: list[tuple[int, int]], longest: int) -> None:
    begin, end = (np.array([row[i] for row in logits], dtype=np.float64) for i in (0, 1))
    found = best_span(begin, end, longest)
    spans = [(begin[i] + end[j], i, j) for i in range(len(logits)) for j in range(i, min(i + longest, len(logits)))]
    if found is None:
        assert not spans
        return
    assert found.score == max(spans)[0]
    assert (found.score, found.first, found.last) in spans


def logits_for(features: list[dict[str, list[int]]], chosen: dict[int, tuple[int, int, float]], null: float) -> list[np.ndarray]:
    """Zeros, with a span of each chosen window and with the null answer raised."""
    rows = []
    for number, feature in enumerate(features):
        row = np.zeros((len(feature["units"]), 2))
        row[0] = null / 2
        if number in chosen:
            first, last, height = chosen[number]
            row[1 + first, 0] = row[1 + last, 1] = height / 2
        rows.append(row)
    return rows


def test_the_best_span_over_all_windows_wins_and_null_is_the_least() -> None:
    example, tokenizer = asked(), tiny_tokenizer()
    benchmark = QuestionAnswering(Answering(stride=8))
    features = benchmark.encode(tokenizer, [example], (), 40)
    units = logits_for(features, {0: (2, 2, 5.0), 2: (4, 5, 6.0)}, null=1.0)
    [answer] = benchmark.answers(units, features, [example])
    begin, end = features[2]["begins"][4], features[2]["ends"][5]
    assert answer == (written(Span(begin, LONG[begin:end])),)
    units[1][0] = 50  # one window says that nothing is there: it is not the least
    assert benchmark.answers(units, features, [example]) == [answer]
    for row in units:
        row[0] = 50
    assert benchmark.answers(units, features, [example]) == [(NOTHING,)]
    always = QuestionAnswering(Answering(stride=8, threshold=None))
    assert always.answers(units, features, [example]) == [answer]


@pytest.mark.parametrize("threshold, nothing", [(0.9, True), (1.0, False), (1.1, False)])
def test_the_threshold_says_how_much_likelier_nothing_must_be(threshold: float, nothing: bool) -> None:
    example, tokenizer = Example(("asha", "juma kazi leo")), tiny_tokenizer()
    benchmark = QuestionAnswering(Answering(threshold=threshold))
    features = benchmark.encode(tokenizer, [example], (), 32)
    [answer] = benchmark.answers(logits_for(features, {0: (1, 1, 2.0)}, null=3.0), features, [example])
    assert answer == ((NOTHING,) if nothing else ("5:kazi",))


def test_an_answer_is_no_longer_than_it_may_be() -> None:
    example = Example(("asha", "juma kazi leo jana kula cheza"))
    for longest, text in ((6, "juma kazi leo jana kula cheza"), (2, "juma")):
        benchmark = QuestionAnswering(Answering(longest_answer=longest, threshold=None))
        features = benchmark.encode(tiny_tokenizer(), [example], (), 32)
        [(answer,)] = benchmark.answers(logits_for(features, {0: (0, 5, 8.0)}, null=0.0), features, [example])
        assert answer == f"0:{text}"


def test_probabilities_are_those_of_the_window() -> None:
    example = Example(("asha", "juma kazi"))
    benchmark = QuestionAnswering(Answering(threshold=None))
    features = benchmark.encode(tiny_tokenizer(), [example], (), 32)
    units = [np.log(np.array([[0.1, 0.2], [0.6, 0.1], [0.3, 0.7]]))]
    [answer] = benchmark.best_answers(units, features, [example])
    assert answer.span == Span(0, "juma kazi")
    assert answer.probability == pytest.approx(0.6 * 0.7)


@pytest.mark.parametrize("student", ["bert", "roberta", "xlm-roberta", "bytes"])
def test_what_a_teacher_says_reaches_a_student_with_other_tokens(student: str) -> None:
    """What the teacher holds for the first and last word of the answer, the student's tokens for them get, in each window that has them."""
    example = asked("alikula ugali")
    benchmark = QuestionAnswering(Answering(stride=16))
    theirs = benchmark.encode(tokenizer_of("bert"), [example], (), 96)
    units = []
    for feature in theirs:
        row = np.full((len(feature["units"]), 2), -3.0, dtype=np.float32)
        first, last = feature["labels"]
        row[feature["units"].index(first) if first else 0, 0], row[feature["units"].index(last) if last else 0, 1] = 7, 8
        units.append(row)
    taught = benchmark.by_example(units, theirs, [example])
    mine = benchmark.encode(TOKENIZERS[student](), [example], (), 64)
    rows = benchmark.for_features(taught, mine, [example])
    found = 0
    for feature, row in zip(mine, rows, strict=True):
        assert row.shape == (len(feature["input_ids"]), 2)
        first, last = feature["labels"]
        if first:
            assert (int(row[:, 0].argmax()), int(row[:, 1].argmax())) == (first, last)
            assert (row[first, 0], row[last, 1]) == (7, 8)
            found += 1
        assert set(row[1:][row[1:] > NEVER].tolist()) <= {-3.0, 7.0, 8.0}
    assert found


def test_counts_and_metrics_by_hand() -> None:
    benchmark = QuestionAnswering()
    references = [("3:Denver Broncos", "10:Broncos"), ("0:one two",), (NOTHING,), (NOTHING,), ("4:lost",)]
    predictions = [("10:the Broncos",), ("0:one",), (NOTHING,), ("0:one",), (NOTHING,)]
    counts = benchmark.counts(references, predictions, ())
    assert counts.tolist() == [[1, 1, 10**6, 0, 0, 0], [1, 0, 666667, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1]]
    metrics = benchmark.metrics(counts.sum(axis=0), ())
    assert metrics["exact_match"] == pytest.approx(2 / 5)
    assert metrics["f1"] == pytest.approx((1 + 2 / 3 + 1) / 5, abs=1e-6)
    assert metrics["answer_f1"] == pytest.approx((1 + 2 / 3) / 3, abs=1e-6)
    assert metrics["no_answer_recall"] == pytest.approx(1 / 2)
    assert metrics["no_answer_f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert benchmark.by_type(counts.sum(axis=0), ())["without an answer"]["support"] == 2


def test_without_unanswerable_questions_nothing_is_said_of_them() -> None:
    benchmark = QuestionAnswering()
    metrics = benchmark.metrics(benchmark.counts([("0:a",)], [(NOTHING,)], ()).sum(axis=0), ())
    assert {name for name, value in metrics.items() if np.isnan(value)} == {"no_answer_f1", "no_answer_precision", "no_answer_recall"}
    assert benchmark.by_type(np.array([1, 0, 0, 0, 0, 1]), ()) == {}


def test_a_batch_of_draws_equals_one_draw_after_the_other() -> None:
    benchmark = QuestionAnswering()
    counts = benchmark.counts([("0:a b",), (NOTHING,), ("0:c",)], [("0:b",), (NOTHING,), ("0:c d",)], ())
    draws = np.random.default_rng(0).multinomial(3, [1 / 3] * 3, size=(2, 5)) @ counts
    together = benchmark.metrics(draws, ())
    for place in np.ndindex(2, 5):
        for name, value in benchmark.metrics(draws[place], ()).items():
            np.testing.assert_equal(together[name][place], value)


def test_what_is_no_question_or_no_answer_is_refused() -> None:
    benchmark = QuestionAnswering()
    with pytest.raises(DataRefused, match="needs a question and a text"):
        benchmark.encode(tiny_tokenizer(), [Example(("juma",))], (), 32)
    with pytest.raises(DataRefused, match="example 0 needs its right answers"):
        benchmark.counts([()], [(NOTHING,)], ())
    with pytest.raises(DataRefused, match="an answer is written as"):
        benchmark.counts([("Denver",)], [(NOTHING,)], ())


def test_real_questions_are_answered_by_whoever_knows_the_tokens(mirror: Path) -> None:
    """An oracle that points at the first and last token of each right answer reaches what tokens allow: all but answers that end inside of one."""
    articles = json.loads((mirror / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"][:6]
    rows = [question_of(record, record["question"], record["context"], record["answers"]) for _, record in flattened(articles)]
    examples = [Example(words, labels, "en", group) for words, labels, group in rows]
    benchmark = QuestionAnswering(Answering(stride=48, longest_answer=80))
    features = benchmark.encode(tokenizer_of("bert"), examples, (), 192)
    units = []
    for feature in features:
        row = np.full((len(feature["units"]), 2), -9.0)
        for column, position in enumerate(feature["labels"]):
            row[feature["units"].index(position), column] = 1.0 if position else -1.0
        units.append(row)
    counts = benchmark.counts([example.labels for example in examples], benchmark.answers(units, features, examples), ())
    assert benchmark.metrics(counts.sum(axis=0), ())["exact_match"] > 0.98
