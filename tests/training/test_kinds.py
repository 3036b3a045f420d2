"""Pairs of texts, several labels, numbers: tiny models really learn them, are taught and asked them, and answer in the data's unit wherever they run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recompress
from recompress.benchmarks import Example, benchmark_of
from recompress.errors import DataRefused, InputError
from recompress.export import export
from recompress.measure.quality import evaluate_quality
from recompress.methods.distillation.teacher import teacher_outputs
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, load, read_info, save
from recompress.models.finetuned import from_finetuned
from recompress.models.number_head import output_layer, put_in, standardised, take_out
from recompress.models.pretrained import from_base
from recompress.models.tokenizer import SEGMENTS
from recompress.predict import Predictor, rows_of, summary
from recompress.runtimes import runtime_of
from recompress.training.run import train
from recompress.training.settings import Schedule
from tests.six import KINDS, checkpoint_of, features_of, inputs_of
from tests.tiny import TOPICS, tiny_checkpoint, tiny_examples

pytestmark = pytest.mark.usefixtures("one_thread")
PAIRS, SEVERAL, NUMBERS = KINDS.values()
SCHEDULE = Schedule(epochs=8, learning_rate=3e-3, batch_size=16, precision="fp32")
SHORT = Schedule(epochs=1, learning_rate=1e-3, batch_size=16, precision="fp32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    save(tiny_checkpoint("text-classification"), folder)
    return folder


@pytest.fixture(scope="module")
def learned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind that has learned from 300 texts."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("learned")
    for kind in KINDS.values():
        start = from_base(base, kind, ("value",) if kind == NUMBERS else TOPICS, 32, 0)
        trained = train(start, tiny_examples(300, kind), tiny_examples(60, kind, seed=1), SCHEDULE, 0, place / f"{kind}-work")
        save(trained, place / kind)
    return {kind: place / kind for kind in KINDS.values()}


@pytest.mark.parametrize("kind, metric, least", [(PAIRS, "accuracy", 0.9), (SEVERAL, "micro_f1", 0.85), (NUMBERS, "pearson", 0.9)])
def test_it_learns(kind: str, metric: str, least: float, learned: dict[str, Path], tmp_path: Path) -> None:
    """In a pair the answer stands in the second text and a wrong one in the first: who does not know which is which is right half of the time."""
    quality = evaluate_quality(learned[kind], tiny_examples(120, kind, seed=2), tmp_path / "predictions.parquet")
    assert quality.metrics[metric] > least
    assert set(quality.slices) == {"swa", "yor"}


def test_what_a_network_says_of_itself(learned: dict[str, Path]) -> None:
    problems = {kind: json.loads((folder / "config.json").read_text()).get("problem_type") for kind, folder in learned.items()}
    assert problems == {PAIRS: None, SEVERAL: "multi_label_classification", NUMBERS: "regression"}
    numbers = [float(example.labels[0]) for example in tiny_examples(300, NUMBERS)]
    assert read_info(learned[NUMBERS]).standard == pytest.approx((np.mean(numbers), np.std(numbers)))
    assert "standard" not in json.loads((learned[PAIRS] / "recompress.json").read_text())


def test_answers_for_people(learned: dict[str, Path]) -> None:
    [pair] = Predictor(learned[PAIRS])([("asha kula", "juma cheza")])
    assert pair["label"] == "sport"
    assert Predictor(learned[PAIRS])([{"text": "asha kula", "text_pair": "juma  cheza"}]) == [pair], "spaces are those of preparation"
    [both, none] = Predictor(learned[SEVERAL])(["asha kula kazi juma", "asha juma nairobi"])
    assert (both["labels"], none["labels"]) == (["food", "work"], [])
    assert set(both["scores"]) == set(TOPICS)
    assert all((both["scores"][topic] >= 0.5) == (topic in both["labels"]) for topic in TOPICS)
    [low, high] = Predictor(learned[NUMBERS])(["cheza cheza leo", "kula kula leo"])
    assert 88 < low["value"] < 100 < 106 < high["value"] < 125
    assert [summary(answer) for answer in (none, {"value": 1.25})] == ["no label", "1.25"]
    assert summary(both).startswith("food 0.") or summary(both).startswith("food 1.")


@pytest.mark.parametrize(
    "kind, row", [(PAIRS, "asha"), (PAIRS, ("asha",)), (PAIRS, {"text": "asha"}), (SEVERAL, ("asha", "juma")), (NUMBERS, {"text_pair": "a"})]
)
def test_another_number_of_texts_is_refused(kind: str, row: Any, learned: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="row 1 has .*; this model is asked with"):
        Predictor(learned[kind])([row])


def test_lines_become_pairs() -> None:
    columns = ("text", "text_pair")
    assert rows_of(["one\ttwo", '{"text": "a", "text_pair": "b"}'], columns, None) == [{"text": "one", "text_pair": "two"}, {"text": "a", "text_pair": "b"}]
    with pytest.raises(InputError, match="line 1 is no pair of texts; put a tab between the two"):
        rows_of(["one two"], columns, None)
    with pytest.raises(InputError, match="reads pairs of texts; leave --context out"):
        rows_of(["one"], columns, "context")


@pytest.mark.parametrize("name", [None, "onnx_fp32", "dynamic_int8", "static_int8"])
def test_segments_reach_the_network_on_every_runtime(name: str | None, tmp_path: Path) -> None:
    """The same tokens with other segments are answered otherwise; without any, as if all were the first."""
    save(checkpoint_of("bert-pairs"), tmp_path / "model")
    directory = tmp_path / "model"
    if name is not None:
        run_step(name, get_method(name).config(), directory, tmp_path / name, inputs_of("bert-pairs", tmp_path / "work"))
        directory = tmp_path / name
    checkpoint = load(directory)
    feature = features_of(checkpoint, "bert-pairs", 1)[0]
    assert set(feature[SEGMENTS]) == {0, 1}
    other, bare = feature | {SEGMENTS: [0] * len(feature[SEGMENTS])}, {name: feature[name] for name in ("input_ids", "attention_mask")}
    one, two, three = (runtime_of(checkpoint).logits([each], 1)[0] for each in (feature, other, bare))
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(two, three)


def test_segments_reach_training_teachers_and_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertModel

    seen: list[bool] = []
    usual = BertModel.forward

    def look(network: Any, *given: Any, **named: Any) -> Any:
        segments = named.get(SEGMENTS)
        seen.append(segments is not None and bool(segments.any()))
        return usual(network, *given, **named)

    monkeypatch.setattr(BertModel, "forward", look)
    save(checkpoint_of("bert-pairs"), tmp_path / "model")
    examples = tiny_examples(16, PAIRS)
    train(checkpoint_of("bert-pairs"), examples, examples, SHORT, 0, tmp_path / "work")
    teacher_outputs(tmp_path / "model", examples, tmp_path / "outputs")
    for name, dials in {
        "wanda": {},
        "fisher_svd": {"parameters": 0.5},
        "prune_structure": {"heads": 0.5, "importance": "taylor"},
        "mixed_precision": {},
    }.items():
        config = get_method(name).config.model_validate({"calibration_examples": 8, **dials})
        run_step(name, config, tmp_path / "model", tmp_path / name, inputs_of("bert-pairs", tmp_path / f"work-{name}"))
    assert len(seen) > 20
    assert all(seen)


@pytest.mark.parametrize("family", ["bert-pairs", *(pytest.param(family, marks=pytest.mark.long) for family in ("roberta-labels", "distilbert-number"))])
@pytest.mark.parametrize("to", ["onnx", "transformers", "openvino"])
def test_exported_folders_answer_as_before(family: str, to: str, tmp_path: Path) -> None:
    if to == "openvino":
        pytest.importorskip("openvino")
    save(checkpoint_of(family), tmp_path / "model")
    done = export(tmp_path / "model", tmp_path / "out", to, examples=tiny_examples(5, KINDS[family]))
    assert done.agreement.texts == 5
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.get("problem_type") == {"roberta-labels": "multi_label_classification", "distilbert-number": "regression"}.get(family)


def test_an_export_that_drops_segments_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recompress.errors import IntegrityError
    from recompress.export import format as file

    save(checkpoint_of("bert-pairs"), tmp_path / "model")
    monkeypatch.setattr(file, "inputs_of", lambda feature: {name: feature[name] for name in ("input_ids", "attention_mask") if name in feature})
    with pytest.raises(IntegrityError, match=r"answers text 1 otherwise"):
        export(tmp_path / "model", tmp_path / "out", "onnx", examples=tiny_examples(5, PAIRS))
    assert not (tmp_path / "out").exists()


def test_the_datas_unit_stands_in_the_weights_and_is_taken_out_and_put_in(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("distilbert-number")
    features = features_of(checkpoint, "distilbert-number", 3)
    before = np.stack(runtime_of(checkpoint).logits(features))
    take_out(checkpoint.torch_network, (100.0, 9.0))
    np.testing.assert_allclose(np.stack(runtime_of(checkpoint).logits(features)), (before - 100) / 9, atol=1e-4)
    put_in(checkpoint.torch_network, (100.0, 9.0))
    np.testing.assert_allclose(np.stack(runtime_of(checkpoint).logits(features)), before, rtol=1e-5)


def test_what_no_step_moves_is_bit_for_bit_what_it_was() -> None:
    network = checkpoint_of("distilbert-number").torch_network
    layer = output_layer(network)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    with standardised(network, (101.3, 6.7), fresh=False):
        assert not layer.weight.equal(before[0])
        layer.weight.data[0, 3] += 1
    changed = layer.weight != before[0]
    assert changed.nonzero().tolist() == [[0, 3]]
    assert layer.weight[0, 3].item() == pytest.approx(before[0][0, 3].item() + 6.7, rel=1e-5)
    assert layer.bias.equal(before[1])


def test_learning_does_not_depend_on_the_unit(base: Path, tmp_path: Path) -> None:
    """The same texts with numbers a million times as large, around another middle: the same network but for the unit."""

    def other(example: Example) -> Example:
        return replace(example, labels=(f"{1e6 * float(example.labels[0]) - 4e7:.0f}",))

    rows, dev = tiny_examples(64, NUMBERS), tiny_examples(20, NUMBERS, seed=1)
    answers = []
    for name, change in (("plain", lambda example: example), ("large", other)):
        made = train(from_base(base, NUMBERS, ("value",), 32, 0), [*map(change, rows)], [*map(change, dev)], SHORT, 0, tmp_path / name)
        features = benchmark_of(made.info).encode(made.tokenizer, dev, ("value",), 32)
        answers.append(np.stack(runtime_of(made).logits(features)))
    np.testing.assert_allclose(answers[1], 1e6 * answers[0] - 4e7, rtol=1e-3)


def test_a_training_that_is_begun_again_ends_with_the_same_bytes(base: Path, tmp_path: Path) -> None:
    rows = tiny_examples(32, NUMBERS)
    made = [train(from_base(base, NUMBERS, ("value",), 32, 0), rows, rows, SHORT, 0, tmp_path / "work") for _ in range(2)]
    for one, again in zip(*(checkpoint.torch_network.state_dict().values() for checkpoint in made), strict=True):
        assert one.equal(again)


def test_numbers_that_teach_nothing_are_refused(base: Path, tmp_path: Path) -> None:
    same = [Example((f"kula {word}",), ("3",)) for word in ("asha", "juma", "leo")]
    with pytest.raises(DataRefused, match="all 3 numbers of the training examples are 3; there is nothing to learn"):
        train(from_base(base, NUMBERS, ("value",), 32, 0), same, same, SHORT, 0, tmp_path / "work")


@pytest.mark.long
def test_a_decoder_that_answers_with_a_number_has_a_place_for_the_mean(tmp_path: Path) -> None:
    save(checkpoint_of("llama-classifier"), tmp_path / "base")
    start = from_base(tmp_path / "base", NUMBERS, ("value",), 48, 0)
    rows = tiny_examples(48, NUMBERS)
    save(train(start, rows, rows, SHORT, 0, tmp_path / "work"), tmp_path / "model")
    answers = [one["value"] for one in Predictor(tmp_path / "model")([example.words[0] for example in rows])]
    numbers = [float(example.labels[0]) for example in rows]
    assert abs(np.mean(answers) - np.mean(numbers)) < 3 * np.std(numbers)
    export(tmp_path / "model", tmp_path / "onnx", "onnx", examples=rows[:3])
    with pytest.raises(InputError, match=r"score.bias has no place"):
        export(tmp_path / "model", tmp_path / "plain", "transformers", examples=rows[:3])


@pytest.mark.parametrize("kind", [SEVERAL, NUMBERS])
def test_a_fine_tuned_model_of_transformers_is_taken_as_it_is(kind: str, learned: dict[str, Path], tmp_path: Path) -> None:
    from transformers import pipeline

    checkpoint = load(learned[kind])
    checkpoint.torch_network.save_pretrained(tmp_path / "theirs")
    checkpoint.tokenizer.save_pretrained(tmp_path / "theirs")
    taken = from_finetuned(tmp_path / "theirs", kind, checkpoint.info.labels)
    assert (taken.info.benchmark, taken.info.labels) == (kind, checkpoint.info.labels)
    assert recompress.load(tmp_path / "theirs").info.benchmark == kind
    [theirs] = pipeline("text-classification", model=str(tmp_path / "theirs"), top_k=None)(["asha kula kazi"])
    [ours] = Predictor(learned[kind])(["asha kula kazi"])
    if kind == NUMBERS:
        assert theirs[0]["score"] == pytest.approx(ours["value"], rel=1e-5)
    else:
        assert {one["label"]: one["score"] for one in theirs} == pytest.approx(ours["scores"], abs=1e-5)
    with pytest.raises(InputError, match="problem_type in its config.json"):
        from_finetuned(tmp_path / "theirs", "text-classification", checkpoint.info.labels)


def test_a_model_keeps_the_threshold_that_it_was_made_with(learned: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = load(learned[SEVERAL])
    save(Checkpoint(checkpoint.network, checkpoint.tokenizer, replace(checkpoint.info, answering={"threshold": 0.999999})), tmp_path / "strict")
    assert Predictor(tmp_path / "strict")(["asha kula kazi"])[0]["labels"] == []
    examples = tiny_examples(40, SEVERAL, seed=2)
    usual, strict = (evaluate_quality(folder, examples, tmp_path / "p.parquet").metrics for folder in (learned[SEVERAL], tmp_path / "strict"))
    assert strict["micro_recall"] < usual["micro_recall"]


def test_rows_of_the_library(learned: dict[str, Path]) -> None:
    pairs = [(("asha kula", "juma kazi"), "work"), {"text": "kazi", "text_pair": "asha cheza", "label": "sport"}]
    assert recompress.measure(learned[PAIRS], pairs).metrics["accuracy"] == 1
    several = [("asha kula kazi", ["work", "food"]), ("asha juma", []), {"text": "cheza", "labels": ["sport"]}]
    assert recompress.measure(learned[SEVERAL], several).metrics["subset_accuracy"] == 1
    numbers = [("kula kula leo", 114), ("cheza leo", "97.0"), {"text": "kula cheza", "label": 104.0}]
    assert recompress.measure(learned[NUMBERS], numbers).metrics["pearson"] > 0.9
    for kind, row, message in (
        (PAIRS, "asha", "should be a pair of texts"),
        (SEVERAL, ("asha", "food"), "should have a list of labels"),
        (SEVERAL, ("asha", ["rain"]), "has the label 'rain', which the model does not know"),
        (NUMBERS, ("asha", "many"), "should have a number"),
    ):
        with pytest.raises(InputError, match=message):
            recompress.measure(learned[kind], [row])
    small = recompress.compress(learned[SEVERAL], None, "wanda", sparsity=0.5, calibration=[row[0] for row in several[:2]])  # type: ignore[index]
    assert small.info.benchmark == SEVERAL
