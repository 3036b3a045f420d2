"""Labels named by a model of language: the prompt as it is written, the examples as they are drawn, answers by hand, and the model that keeps both."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from recompress.benchmarks import Example, benchmark_of, get_benchmark, learned_as, reads_of
from recompress.benchmarks.few_shot_classification import FewShotClassification
from recompress.benchmarks.few_shot_prompt import Prompting, drawn
from recompress.errors import DataRefused, InputError
from recompress.measure.quality import evaluate_quality
from recompress.models.checkpoint import Checkpoint, Info, load, save
from recompress.predict import Predictor, summary
from recompress.runtimes import runtime_of
from tests.six import checkpoint_of
from tests.tiny import TOPICS, tiny_examples

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 256
TRAIN = tiny_examples(60, "text-classification", seed=3)


def few(**dials: Any) -> FewShotClassification:
    return FewShotClassification(dials_of({"shots": 3} | dials)).completed(TRAIN, TOPICS)


def dials_of(values: dict[str, Any]) -> Prompting:
    """As a recipe says them."""
    return Prompting.model_validate_json(json.dumps(values))


def model_of(benchmark: FewShotClassification, family: str = "llama") -> Checkpoint:
    """Positions for a prompt; and logits that say something."""
    checkpoint = checkpoint_of(family, max_position_embeddings=LENGTH, tie_word_embeddings=False)
    checkpoint.torch_network.get_output_embeddings().weight.data.mul_(8)
    checkpoint.info = Info(benchmark=benchmark.name, labels=tuple(TOPICS), max_length=LENGTH, answering=benchmark.answering)
    return checkpoint


def test_the_prompt_is_what_the_dials_say() -> None:
    shown = [{"words": ["kula {label}"], "label": "b"}, {"words": ["soma"], "label": "a"}]
    dials = {"instruction": "Name it.", "template": "<{text}> is {label}", "between": " | ", "examples": shown, "choices": {"a": "one", "b": "two"}}
    prompt = FewShotClassification(dials_of(dials)).prompt
    assert prompt.upto(("leo",)) == "Name it. | <kula {label}> is two | <soma> is one | <leo> is"
    assert FewShotClassification().prompt.upto(("leo",)) == "leo\nLabel:"
    assert FewShotClassification().prompt.upto(("leo", "kazi")) == "leo\nkazi\nLabel:"


def test_examples_are_drawn_label_by_label_and_once() -> None:
    for shots in (1, 3, 7):
        chosen = drawn(TRAIN, TOPICS, Prompting(shots=shots))
        assert len({shown.words for shown in chosen}) == shots
        assert all(Example(shown.words, (shown.label,)).labels == next(row.labels for row in TRAIN if row.words == shown.words) for shown in chosen)
        counts = Counter(shown.label for shown in chosen)
        assert max(counts.values()) - min(counts[topic] for topic in TOPICS) <= 1
    assert drawn(TRAIN, TOPICS, Prompting(shots=4)) == drawn(TRAIN, TOPICS, Prompting(shots=4))
    assert drawn(TRAIN, TOPICS, Prompting(shots=4)) != drawn(TRAIN, TOPICS, Prompting(shots=4, seed=1))
    long = [Example(("neno " * 9,), (TOPICS[0],)), Example(("neno",), (TOPICS[0],))]
    assert [shown.words for shown in drawn(long, TOPICS, Prompting(shots=1, longest_shot=8))] == [("neno",)]
    with pytest.raises(DataRefused, match="has 1 examples of at most 8 words, 2 shots are asked for"):
        drawn(long, TOPICS, Prompting(shots=2, longest_shot=8))


@pytest.mark.parametrize(
    "template", ["{text}", "{label} {text}", "{text} {text} {label}", "{label}", "{text} {topic} {label}", "{text} {label} {label}", "{text_pair} {label}"]
)
def test_a_template_without_its_places_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match="should have {text} once"):
        Prompting(template=template)


def test_labels_that_nobody_has_or_tells_apart_are_refused() -> None:
    with pytest.raises(InputError, match="'weather' is none of the labels of the data"):
        few(choices={"weather": "rain"})
    with pytest.raises(InputError, match="'weather' is none of the labels of the data"):
        few(examples=[{"words": ["a"], "label": "weather"}])
    with pytest.raises(InputError, match="written alike"):
        few(choices={TOPICS[0]: " same", TOPICS[1]: "same"})
    with pytest.raises(InputError, match="names no labels to choose from"):
        FewShotClassification().read(runtime_of(checkpoint_of("llama")), checkpoint_of("llama").tokenizer, TRAIN[:1], LENGTH, "")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dials", [{}, {"scored": "per_byte"}, {"scored": "per_token", "without_content": ["N/A", ""]}], ids=["sum", "byte", "calibrated"])
def test_answers_are_those_of_whole_texts(family: str, dials: dict[str, Any]) -> None:
    benchmark = few(**dials)
    checkpoint, asked = model_of(benchmark, family), tiny_examples(12, "text-classification", seed=5)
    runtime = runtime_of(checkpoint)

    def likelihood(text: str, topic: str) -> tuple[float, int]:
        begin, whole = (checkpoint.tokenizer(part, verbose=False)["input_ids"] for part in (text, f"{text} {topic}"))
        assert whole[: len(begin)] == begin
        [logits] = runtime.logits([{"input_ids": whole, "attention_mask": [1] * len(whole)}], 1)
        table = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
        return sum(table[i - 1, whole[i]] for i in range(len(begin), len(whole))), len(whole) - len(begin)

    def scores(words: tuple[str, ...], by: str) -> np.ndarray:
        found = [likelihood(benchmark.prompt.upto(words), topic) for topic in TOPICS]
        return np.array(
            [value / {"sum": 1, "per_token": tokens, "per_byte": len(f" {topic}")}[by] for (value, tokens), topic in zip(found, TOPICS, strict=True)]
        )

    answers = benchmark.read(runtime, checkpoint.tokenizer, asked, LENGTH, "reading")
    by = benchmark.dials.scored
    prior = [np.exp(row) / np.exp(row).sum() for row in (scores((text,), by) for text in benchmark.dials.without_content)]
    given = benchmark.scores(runtime, checkpoint.tokenizer, asked, LENGTH, "reading")
    for example, answer, (worth, _) in zip(asked, answers, given, strict=True):
        adjusted = scores(example.words, by) - (np.log(np.mean(prior, axis=0)) if prior else 0)
        assert answer == tuple(TOPICS[int(row.argmax())] for row in (adjusted, *(scores(example.words, each) for each in ("sum", "per_token", "per_byte"))))
        np.testing.assert_allclose(worth, adjusted, rtol=1e-3)
    assert np.std([worth for worth, _ in given], axis=0).min() > 0.01, "texts that change nothing show nothing"


def test_counts_are_those_of_text_classification_and_of_each_likelihood() -> None:
    benchmark = few()
    labels = tuple(TOPICS)
    a, b, c = labels[:3]
    counts = benchmark.counts([(a,), (b,), (c,), (a,)], [(a, a, b, b), (a, b, b, a), (c, c, c, a), (b, b, b, a)], labels)
    metrics = benchmark.metrics(counts.sum(axis=0), labels)
    assert metrics["accuracy"] == 0.5
    assert [float(metrics[f"accuracy_{by}"]) for by in ("sum", "per_token", "per_byte")] == [0.75, 0.5, 0.25]
    plain = get_benchmark("text-classification")
    of_answers = plain.metrics(plain.counts([(a,), (b,), (c,), (a,)], [(a,), (a,), (c,), (b,)], labels).sum(axis=0), labels)
    assert metrics["macro_f1"] == of_answers["macro_f1"]
    assert len(benchmark.count_names(labels)) == counts.shape[1]
    with pytest.raises(DataRefused, match="four labels"):
        benchmark.counts([(a,)], [(a, a, a)], labels)
    with pytest.raises(DataRefused):
        benchmark.counts([(a,)], [("weather", a, a, a)], labels)


def test_a_long_text_is_cut_and_the_examples_are_not() -> None:
    benchmark = few()
    checkpoint = model_of(benchmark)
    long = Example(("neno refu " * 200 + "mwisho",), (TOPICS[0],))
    words, beginning = benchmark.prompt.fitted(checkpoint.tokenizer, long.words, LENGTH)
    assert long.words[0].startswith(words[0])
    assert benchmark.prompt.upto(words).startswith(benchmark.prompt.shown())
    longest = max(len(checkpoint.tokenizer(benchmark.prompt.upto(words) + f" {topic}", verbose=False)["input_ids"]) for topic in TOPICS)
    assert LENGTH - 3 <= longest <= LENGTH
    assert checkpoint.tokenizer(benchmark.prompt.upto(words), verbose=False)["input_ids"] == beginning
    with pytest.raises(DataRefused, match="a prompt of 3 examples has .* tokens without any text, and there is room for 20"):
        benchmark.prompt.fitted(checkpoint.tokenizer, long.words, 20)


def test_a_model_is_served_with_the_prompt_that_it_was_judged_with(tmp_path: Path) -> None:
    benchmark = few(without_content=["N/A"])
    save(model_of(benchmark), tmp_path / "model")
    back = load(tmp_path / "model")
    assert benchmark_of(back.info).answering == benchmark.answering  # type: ignore[attr-defined]
    asked = tiny_examples(8, "text-classification", seed=5)
    quality = evaluate_quality(tmp_path / "model", asked, tmp_path / "predictions.parquet")
    predictor = Predictor(tmp_path / "model")
    answers = predictor([example.words[0] for example in asked])
    assert [answer["label"] for answer in answers] == [row[0] for row in benchmark.read(runtime_of(back), back.tokenizer, asked, LENGTH, "")]
    assert quality.metrics["accuracy"] == np.mean([answer["label"] == example.labels[0] for answer, example in zip(answers, asked, strict=True)])
    assert [predictor([example.words[0]])[0] for example in asked] == answers
    assert predictor.columns == ("text",)
    assert all(1 / len(TOPICS) <= answer["score"] <= 1 and summary(answer).startswith(answer["label"]) for answer in answers)
    assert predictor(["neno " * 400])[0]["truncated"]


def test_pairs_are_asked_as_pairs() -> None:
    train = [Example((f"a{i}", f"b{i}"), (TOPICS[i % 2],)) for i in range(6)]
    benchmark = FewShotClassification(Prompting(shots=2)).completed(train, TOPICS[:2])
    assert benchmark.columns == ("text", "text_pair")
    assert benchmark.prompt.upto(("x", "y")).endswith("\n\nx\ny\nLabel:")
    checkpoint = model_of(benchmark)
    checkpoint.info = replace(checkpoint.info, labels=tuple(TOPICS[:2]))
    assert len(benchmark.read(runtime_of(checkpoint), checkpoint.tokenizer, train, LENGTH, "")) == 6


def test_what_is_learned_is_text_with_its_label() -> None:
    benchmark = few(choices={TOPICS[0]: "first"})
    assert benchmark.as_learned(Example(("kula",), (TOPICS[0],), "swa")) == Example(("kula\nLabel: first",), (), "swa")
    assert benchmark.as_learned(Example(("kula",))) == Example(("kula",))
    assert learned_as(benchmark).name == "language-modelling"
    assert learned_as(get_benchmark("text-classification")).name == "text-classification"
    assert reads_of(benchmark) == ("few-shot-classification", "text-classification", "pair-classification")
    checkpoint = model_of(benchmark)
    [feature] = benchmark.encode(checkpoint.tokenizer, TRAIN[:1], TOPICS, LENGTH)
    assert feature["input_ids"] == checkpoint.tokenizer(benchmark.prompt.upto(TRAIN[0].words), verbose=False)["input_ids"]
