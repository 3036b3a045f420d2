"""Models that find answers, through the five functions: from a folder of transformers, measured, compressed, judged and asked."""

from __future__ import annotations

from typing import Any

import pytest

from recompress.benchmarks.answers import read
from recompress.errors import InputError
from recompress.library import Model, compress, judge, load, measure
from tests.tiny import tiny_checkpoint, tiny_examples

POLICY: dict[str, Any] = {
    "metric": "f1", "baseline": {"margin": 0.3}, "champion": {"margin": 0.3}, "loss_budget": 0.3, "first_promotion": "allowed", "choose": "smallest",
    "min_examples": {"overall": 100},
}  # fmt: skip


def rows(count: int) -> list[dict[str, Any]]:
    """As people have them; the number makes each text a group of its own."""
    asked = []
    for i, example in enumerate(tiny_examples(count, "question-answering", seed=6)):
        span = read(example.labels[0])
        answers = [] if span is None else [{"text": span.text, "answer_start": span.start}]
        asked.append({"question": example.words[0], "context": f"{example.words[1]} {i}", "answers": answers})
    return asked


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """What somebody fine-tuned with transformers alone."""
    checkpoint, place = tiny_checkpoint("question-answering"), tmp_path_factory.mktemp("library") / "reader"
    checkpoint.torch_network.save_pretrained(place)
    checkpoint.tokenizer.save_pretrained(place)
    return load(place)


def test_it_is_measured_compressed_judged_and_asked(model: Model) -> None:
    assert (model.info.benchmark, model.info.labels) == ("question-answering", ("start", "end"))
    asked = rows(120)
    before = measure(model, asked)
    assert before.answers.groups is not None
    assert len(set(before.answers.groups)) == 120
    small = compress(model, None, "wanda", sparsity=0.5, calibration=[{"question": row["question"], "context": row["context"]} for row in asked[:16]])
    after = measure(small, asked)
    assert set(after.metrics) >= {"f1", "exact_match", "no_answer_recall"}
    verdict = judge(POLICY, after, before)
    assert verdict.metric == "f1"
    assert {finding.check for finding in verdict.findings} >= {"inputs"}
    [answer] = model.predict([{"question": "kwa", "context": "leo asha kula"}])
    assert answer.keys() == {"answer", "start", "end", "score"}


@pytest.mark.parametrize(
    "row", ["a text", {"question": "kwa"}, {"question": "kwa", "context": "leo asha", "answers": [{"text": "asha", "answer_start": 0}]}], ids=str
)
def test_rows_that_are_no_questions_are_named(model: Model, row: Any) -> None:
    with pytest.raises(InputError, match="row 1 of the rows to measure on"):
        measure(model, [row])
