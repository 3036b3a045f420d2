"""A tiny model really learns to find answers; what it is asked with reaches it everywhere; and no padding is ever an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recompress.benchmarks import Example, benchmark_of
from recompress.benchmarks.answers import Span
from recompress.benchmarks.pieces import NEVER
from recompress.data.characters import has_hidden
from recompress.errors import InputError
from recompress.measure.quality import evaluate_quality
from recompress.methods.distillation.teacher import teacher_outputs, unit_logits
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, load, read_info, save
from recompress.models.finetuned import from_finetuned
from recompress.models.pretrained import from_base
from recompress.predict import Predictor, _place, as_prepared, rows_of, summary
from recompress.runtimes import open_runtime, runtime_of
from recompress.runtimes.asking import units_of
from recompress.training.batches import collate
from recompress.training.judge import taught
from recompress.training.losses import losses_of, mean_loss
from recompress.training.run import train
from recompress.training.settings import Schedule
from tests.six import checkpoint_of, inputs_of
from tests.tiny import tiny_checkpoint, tiny_examples

pytestmark = pytest.mark.usefixtures("one_thread")
ANSWERS = "question-answering"
SCHEDULE = Schedule(epochs=5, learning_rate=3e-3, batch_size=16, precision="fp32")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned who is asked for by one word and where by another, and when nobody is there."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reader")
    start = tiny_checkpoint(ANSWERS)
    start.info = replace(start.info, max_length=24, answering={"stride": 6, "threshold": 0.0})
    trained = train(start, tiny_examples(400, ANSWERS), tiny_examples(80, ANSWERS, seed=1), SCHEDULE, 0, folder / "work")
    save(trained, folder / "model")
    return folder / "model"


def test_it_learns(reader: Path, tmp_path: Path) -> None:
    quality = evaluate_quality(reader, tiny_examples(150, ANSWERS, seed=2), tmp_path / "predictions.parquet")
    assert quality.metrics["f1"] > 0.8
    assert quality.metrics["no_answer_recall"] > 0.7
    assert set(quality.slices) == {"swa", "yor"}
    assert quality.types["with an answer"]["support"] + quality.types["without an answer"]["support"] == 150


def test_it_answers_with_a_place_in_the_context_as_it_was_given(reader: Path) -> None:
    predictor = Predictor(reader)
    long = "leo jana nyumba kula " * 8 + "asha " + "kazi leo " * 8
    hidden = "leo\u200b jana \u00ad nyumba asha kula"
    answers = predictor([{"question": "kwa", "context": text} for text in ("leo asha kula", long, hidden, "leo kula cheza")])
    for answer, text in zip(answers[:3], ("leo asha kula", long, hidden), strict=True):
        assert answer["answer"] == "asha"
        assert text[answer["start"] : answer["end"]] == "asha"
        assert 0 < answer["score"] <= 1
    assert answers[3] | {"score": 0} == {"answer": None, "start": None, "end": None, "score": 0}
    assert [summary(answer).rpartition(" ")[0] for answer in answers] == ["asha"] * 3 + ["no"]
    [cut] = predictor([{"question": "kwa " * 30, "context": "leo asha"}])
    assert cut["truncated"]
    assert "half of what the model reads" in summary(cut)


@pytest.mark.parametrize("given", ["\u200bashá\u200b leo", "le\u0301o \u00ada\u200bsha\u0301 leo", "leo asha\u0301\u200b", "leo  ashá"], ids=ascii)
def test_a_place_is_counted_in_what_was_given(given: str) -> None:
    """Marks that preparation joins to their letters, and what it drops, stand in the characters that a person sent."""
    prepared = as_prepared(given, running=True)
    place = _place(Span(prepared.index("ashá"), "ashá"), given, prepared)
    found = given[place["start"] : place["end"]]
    assert as_prepared(found) == "ashá"
    assert not has_hidden(found[0] + found[-1]), "nothing hidden before it or behind it"


@pytest.mark.parametrize("row", ["leo", {"question": "kwa"}, {"text": "leo"}, {"question": "kwa", "context": 3}], ids=str)
def test_what_is_no_question_with_its_context_is_refused(row: Any, reader: Path) -> None:
    with pytest.raises(InputError, match=r"this model is asked with a question and the context .*\(question, context\)"):
        Predictor(reader)([row])


def test_lines_become_questions() -> None:
    columns = ("question", "context")
    assert rows_of(["who?"], columns, "asha") == [{"question": "who?", "context": "asha"}]
    assert rows_of(['{"question": "who?", "context": "asha"}'], columns, None) == [{"question": "who?", "context": "asha"}]
    assert rows_of(["asha"], ("text",), None) == ["asha"]
    with pytest.raises(InputError, match="line 1 is no question with its context"):
        rows_of(["who?"], columns, None)
    with pytest.raises(InputError, match="reads texts alone"):
        rows_of(["asha"], ("text",), "context")


@pytest.mark.parametrize("steps", [(), ("dynamic_int8",)], ids=str)
def test_segments_reach_the_network_on_every_runtime(steps: tuple[str, ...], tmp_path: Path) -> None:
    """The same tokens with other segments are answered otherwise; without any, as if all were the first."""
    save(checkpoint_of("bert-reader"), tmp_path / "model")
    directory = tmp_path / "model"
    for name in steps:
        run_step(name, get_method(name).config(), directory, tmp_path / name, inputs_of("bert-reader", tmp_path / "work"))
        directory = tmp_path / name
    checkpoint = load(directory)
    feature = benchmark_of(checkpoint.info).encode(checkpoint.tokenizer, tiny_examples(1, ANSWERS), (), 16)[0]
    assert {0, 1} == set(feature["token_type_ids"])
    other = feature | {"token_type_ids": [0] * len(feature["input_ids"])}
    bare = {name: feature[name] for name in ("input_ids", "attention_mask")}
    one, two, three = (runtime_of(checkpoint).logits([each], 1)[0] for each in (feature, other, bare))
    assert one.shape == (len(feature["input_ids"]), 2)
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(two, three)


def test_segments_reach_training_teachers_and_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch that the network is given while it learns, teaches and is calibrated names them."""
    from transformers import BertModel

    seen: list[bool] = []
    usual = BertModel.forward

    def look(network: Any, *given: Any, **named: Any) -> Any:
        segments = named.get("token_type_ids")
        seen.append(segments is not None and bool(segments.any()))
        return usual(network, *given, **named)

    monkeypatch.setattr(BertModel, "forward", look)
    checkpoint = checkpoint_of("bert-reader")
    save(checkpoint, tmp_path / "model")
    examples = tiny_examples(16, ANSWERS)
    train(checkpoint, examples, examples, Schedule(epochs=1, learning_rate=1e-3, batch_size=8, precision="fp32"), 0, tmp_path / "work")
    teacher_outputs(tmp_path / "model", examples, tmp_path / "outputs")
    for name in ("wanda", "fisher_svd"):
        method = get_method(name)
        dials = {"calibration_examples": 8} | ({"parameters": 0.5} if name == "fisher_svd" else {})
        run_step(name, method.config.model_validate(dials), tmp_path / "model", tmp_path / name, inputs_of("bert-reader", tmp_path / f"work-{name}"))
    assert seen
    assert all(seen)


def test_the_loss_does_not_depend_on_what_stands_beside_an_example() -> None:
    checkpoint = tiny_checkpoint(ANSWERS)
    network, benchmark = checkpoint.torch_network, benchmark_of(checkpoint.info)
    features = benchmark.encode(checkpoint.tokenizer, tiny_examples(12, ANSWERS), (), 32)
    features.sort(key=lambda feature: len(feature["input_ids"]))
    short, long = features[0], features[-1]
    assert len(short["input_ids"]) < len(long["input_ids"])
    with torch.no_grad():
        alone, beside = (units_of(network, collate(rows, 0)) for rows in ([short], [short, long]))
    width = len(short["input_ids"])
    torch.testing.assert_close(alone[0], beside[0, :, :width], atol=1e-5, rtol=1e-5)
    assert (beside[0, :, width:] == NEVER).all()
    labels = torch.tensor([short["labels"]])
    losses = losses_of(checkpoint.info)
    torch.testing.assert_close(mean_loss(losses, alone, labels), mean_loss(losses, beside[:1], labels))
    expected = -alone[0].double().log_softmax(-1)[[0, 1], short["labels"]].mean()
    torch.testing.assert_close(mean_loss(losses, alone, labels).double(), expected, atol=1e-5, rtol=1e-5)
    assert losses.guess([short]) == pytest.approx(np.log(width))


def test_a_student_is_told_what_its_teacher_says_about_each_token(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the teacher's own tokens, windows that hold the whole text are told the teacher's logits at the first and last tokens of words, and nothing else."""
    monkeypatch.setattr("recompress.training.precision.choose_precision", lambda wanted: "fp32")  # some processors would ask it in bf16
    checkpoint = load(reader)
    benchmark, example = benchmark_of(checkpoint.info), Example(("kwa", "leo asha kamau, kula."))
    [feature] = benchmark.encode(checkpoint.tokenizer, [example], (), 24)
    [logits] = runtime_of(checkpoint).logits([feature], 1)
    [told] = taught(benchmark, [feature], unit_logits(checkpoint, benchmark, [example]), [example])
    batch = collate([told], 0)
    places = [0, *range(feature["context"][0], len(feature["input_ids"]) - 1)]
    np.testing.assert_allclose(batch["teacher"][0, :, places], logits[places].T, rtol=1e-4, atol=1e-4)
    rest = sorted({*range(len(feature["input_ids"]))} - {*places})
    assert (batch["teacher"][0, :, rest] == NEVER).all()


def test_a_fine_tuned_reader_is_taken_as_it_is(reader: Path, tmp_path: Path) -> None:
    checkpoint = load(reader)
    checkpoint.torch_network.save_pretrained(tmp_path / "theirs")
    checkpoint.tokenizer.save_pretrained(tmp_path / "theirs")
    taken = from_finetuned(tmp_path / "theirs", ANSWERS, ("start", "end"), {"stride": 4, "threshold": None})
    assert (taken.info.labels, taken.info.answering) == (("start", "end"), {"stride": 4, "threshold": None})
    save(taken, tmp_path / "taken")
    assert read_info(tmp_path / "taken").answering["threshold"] is None
    feature = benchmark_of(checkpoint.info).encode(checkpoint.tokenizer, tiny_examples(1, ANSWERS), (), 24)
    np.testing.assert_allclose(open_runtime(tmp_path / "taken").logits(feature)[0], open_runtime(reader).logits(feature)[0], rtol=1e-5, atol=1e-5)


def test_a_base_gets_a_head_for_spans_and_a_decoder_is_refused(tmp_path: Path) -> None:
    save(tiny_checkpoint("text-classification"), tmp_path / "base")
    made = from_base(tmp_path / "base", ANSWERS, ("whatever",), 32, 0, {"stride": 8})
    assert type(made.torch_network).__name__ == "BertForQuestionAnswering"
    assert (made.info.labels, made.info.answering) == (("start", "end"), {"stride": 8})
    save(checkpoint_of("gpt2"), tmp_path / "decoder")
    with pytest.raises(InputError, match="question-answering needs an encoder, and .*decoder is a gpt2"):
        from_base(tmp_path / "decoder", ANSWERS, (), 16, 0)


def test_dials_that_a_model_names_are_those_that_it_is_asked_with(reader: Path) -> None:
    checkpoint = load(reader)
    never = Checkpoint(checkpoint.network, checkpoint.tokenizer, replace(checkpoint.info, answering={"threshold": None}))
    assert benchmark_of(checkpoint.info).dials.stride == 6  # type: ignore[attr-defined]
    assert benchmark_of(never.info).dials.threshold is None  # type: ignore[attr-defined]
