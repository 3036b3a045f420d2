"""``import recompress``: models from folders and from memory, one method with its proof, measures, the gate, and export; and what it costs to import."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import recompress
from recompress.benchmarks import Example
from recompress.errors import DataRefused, InputError
from recompress.library import Model, compress, judge, load, measure
from recompress.models.checkpoint import save
from tests.six import checkpoint_of
from tests.tiny import TOPICS, tiny_checkpoint, tiny_examples

POLICY: dict[str, Any] = {
    "metric": "accuracy", "baseline": {"margin": 0.05}, "champion": {"margin": 0.05}, "loss_budget": 0.1, "first_promotion": "allowed", "choose": "smallest",
    "min_examples": {"overall": 100},
}  # fmt: skip
ROWS = [(example.words[0], example.labels[0]) for example in tiny_examples(160, "text-classification", seed=5)]
TEXTS = [text for text, _ in ROWS[:16]]


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that somebody fine-tuned with transformers alone: its folder, as ``save_pretrained`` writes it."""
    checkpoint, place = tiny_checkpoint("text-classification"), tmp_path_factory.mktemp("library") / "topics"
    checkpoint.torch_network.save_pretrained(place)
    checkpoint.tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(topics: Path) -> Model:
    return load(topics)


def test_a_model_comes_from_a_folder_or_from_memory_with_its_own_labels(topics: Path, model: Model, tmp_path: Path) -> None:
    assert (model.info.benchmark, model.info.labels) == ("text-classification", TOPICS)
    checkpoint = tiny_checkpoint("text-classification")
    again = load(checkpoint.torch_network, checkpoint.tokenizer)
    assert again.predict(TEXTS) == model.predict(TEXTS)
    assert load(model) is model
    copy = model.save(tmp_path / "copy")
    assert copy.sha256 == model.sha256 == load(str(tmp_path / "copy")).sha256
    with pytest.raises(InputError, match="exists already"):
        model.save(tmp_path / "copy")
    for wrong, why in ((tmp_path / "nowhere", "there is no model folder"), (checkpoint.torch_network, "needs its tokenizer")):
        with pytest.raises(InputError, match=why):
            load(wrong)


def test_a_network_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("text-classification")
    checkpoint.torch_network.base_model.save_pretrained(tmp_path)
    checkpoint.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a BertModel; fine-tuned models are .*ForSequenceClassification"):
        load(tmp_path)


def test_one_method_is_run_proved_and_the_given_model_stays_what_it_was() -> None:
    checkpoint = tiny_checkpoint("text-classification")
    network = checkpoint.torch_network
    was = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small = compress(network, checkpoint.tokenizer, "wanda", sparsity=0.5, calibration=TEXTS)
    assert all(tensor.equal(was[name]) for name, tensor in network.state_dict().items())
    weights = [module.weight for name, module in small.network.named_modules() if isinstance(module, torch.nn.Linear) and "encoder" in name]
    assert {float((weight == 0).float().mean()) for weight in weights} == {0.5}
    assert small.report is not None
    assert small.report.method == "wanda"
    assert small.info.steps == ("wanda",)


def test_methods_that_train_take_rows_and_a_teacher(model: Model) -> None:
    student = compress(model, None, "distill", train=ROWS[:32], dev=ROWS[32:48], epochs=1, batch_size=16, precision="fp32")
    assert student.report is not None
    assert student.sha256 != model.sha256


@pytest.mark.parametrize(
    ("method", "given", "why"),
    [
        ("wander", {}, "unknown method 'wander'"),
        ("wanda", {"sparsity": 1.5, "calibration": TEXTS}, r"sparsity .* got 1.5 \(compress\(…, 'wanda'\)\)"),
        ("wanda", {"sparsty": 0.5, "calibration": TEXTS}, "did you mean 'sparsity'"),
        ("wanda", {"sparsity": torch.ones(1), "calibration": TEXTS}, "settings are numbers"),
        ("wanda", {"sparsity": 0.5}, r"wanda looks at text: give calibration=\[text"),
        ("finetune", {}, r"finetune looks at text: give train=\[\(text, label\)"),
        ("distill_base", {"train": ROWS[:8]}, "needs the base model"),
        ("wanda", {"calibration": [TEXTS[0], 7]}, "row 2 of calibration should be a text"),
        (
            "finetune",
            {"train": [*ROWS[:3], ("what", "weather")]},
            "row 4 of train has the label 'weather', which the model does not know; it knows food, sport, work",
        ),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(model: Model, method: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        compress(model, None, method, **given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_methods_without_data_need_none_and_other_families_work_too(family: str, tmp_path: Path) -> None:
    save(checkpoint_of(family), tmp_path / "model")
    sparse = compress(tmp_path / "model", None, "magnitude", sparsity=0.25)
    assert sparse.report is not None
    if family == "bert":  # words and tags
        twice = compress(sparse, None, "dynamic_int8")
        assert twice.info.steps == ("magnitude", "dynamic_int8")
        with pytest.raises(InputError, match="ONNX graph"):
            _ = twice.network
        rows = [{"words": list(example.words), "tags": list(example.labels)} for example in tiny_examples(6)]
        assert measure(sparse, rows).metrics["f1"] >= 0
        with pytest.raises(InputError, match="row 1 of the rows to measure on has 2 words and 1 tags"):
            measure(sparse, [(["na", "ya"], ["O"])])


def test_measures_and_verdict_are_those_of_a_recompression(model: Model) -> None:
    before = measure(model, ROWS)
    expected = sum(answer["label"] == label for answer, (_, label) in zip(model.predict([text for text, _ in ROWS]), ROWS, strict=True)) / len(ROWS)
    assert before.metrics["accuracy"] == pytest.approx(expected)
    same = judge(POLICY, before, before)
    assert same.passed, same.reasons
    broken = compress(model, None, "magnitude", sparsity=0.95)
    after = measure(broken, ROWS)
    swapped = [(text, next(other for other in TOPICS if other != label)) for text, label in ROWS]
    worse = judge(POLICY | {"baseline": {"margin": 0.001}}, after, before)
    assert not worse.passed
    assert {"loss-too-large", "sample-too-small-for-margin"} & set(worse.reasons)
    assert judge(POLICY, measure(model, swapped), before).reasons == ("different-dataset",)
    with pytest.raises(InputError, match="margn"):
        judge(POLICY | {"baseline": {"margn": 0.05}}, before, before)
    with pytest.raises(DataRefused):
        measure(model, [])


def test_importing_it_costs_nothing_until_something_is_asked_for(tmp_path: Path) -> None:
    code = "import sys, recompress; heavy = {'torch', 'transformers', 'numpy', 'pandas', 'pydantic', 'mlflow'} & set(sys.modules); print(sorted(heavy)); print(recompress.compress.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(recompress.__file__).parent.parent)},
    )
    assert done.stdout.split("\n")[:2] == ["[]", "compress"]
    with pytest.raises(AttributeError, match="no attribute 'decompress'"):
        _ = recompress.decompress


def test_measure_and_export_are_packages_and_functions(model: Model, tmp_path: Path) -> None:
    import recompress.export.answers
    import recompress.measure.speed

    assert recompress.measure.speed.ROUNDS > 0  # type: ignore[attr-defined]
    assert recompress.measure(model, ROWS[:4]).metrics["size_bytes"] > 0
    assert recompress.export(model, tmp_path / "out", to="transformers", texts=TEXTS).agreement.texts == len(TEXTS)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == dict(zip("012", TOPICS, strict=True))


def test_the_examples_in_the_docstrings_are_true(model: Model, topics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topics").symlink_to(topics)
    (tmp_path / "policy.yaml").write_text(json.dumps(POLICY | {"baseline": {"margin": 0.01}}))
    right = [(text, answer["label"]) for text, answer in zip([t for t, _ in ROWS], model.predict([t for t, _ in ROWS]), strict=True)]
    rows = [(text, label if i % 4 else next(other for other in TOPICS if other != label)) for i, (text, label) in enumerate(right)]
    small = compress(model, None, "magnitude", sparsity=0.9)
    after, before = measure(small, right), measure(model, right)
    names = {"recompress": recompress, "model": model, "texts": TEXTS[:8], "rows": rows, "small": small, "after": after, "before": before}
    for function in (recompress.load, recompress.compress, recompress.library.measure, recompress.judge, recompress.library.export):
        [test] = [found for found in doctest.DocTestFinder().find(function, function.__name__, globs=dict(names)) if found.examples]
        log: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=log.append)
        assert result.failed == 0, "".join(log)


def test_an_example_of_ones_own_is_taken_as_it_is(model: Model) -> None:
    assert measure(model, [Example((text,), (label,), "east") for text, label in ROWS[:4]]).slices.keys() == {"east"}
