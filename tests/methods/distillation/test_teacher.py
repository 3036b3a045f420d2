"""Teacher outputs: by unit, once, and only for the examples that they were made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import DataRefused, InputError, IntegrityError
from recompress.methods.distillation.teacher import teacher_outputs, unlabelled_examples
from recompress.models.checkpoint import save
from recompress.runtimes import runtime_of
from recompress.training.teacher_outputs import FILE, TeacherOutputs
from tests import six
from tests.tiny import TAGS, TOPICS, tiny_checkpoint, tiny_examples

TOKENS = get_benchmark("token-classification")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    save(tiny_checkpoint(), tmp_path / "model")
    return tmp_path / "model"


def test_outputs_are_what_the_teacher_says_of_each_word_and_survive_the_disk(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.training.precision.choose_precision", lambda wanted: "fp32")
    examples = [*tiny_examples(70), *unlabelled_examples(["Asha alikwenda nairobi leo."], TOKENS)]
    outputs = teacher_outputs(teacher, examples, tmp_path / "out")
    checkpoint = tiny_checkpoint()
    features = TOKENS.encode(checkpoint.tokenizer, examples, TAGS, 32)
    assert len(outputs) == 71
    for i, logits in enumerate(runtime_of(checkpoint).logits(features)):
        assert outputs[i].shape == (len(examples[i].words), len(TAGS))
        assert np.allclose(outputs[i], TOKENS.unit_logits(logits, features[i]), atol=1e-5)
    again = TeacherOutputs.load(tmp_path / "out")
    assert again.sha256 == outputs.sha256
    assert all(np.array_equal(again[i], outputs[i]) for i in range(71))
    assert again.labels == TAGS


def test_in_bf16_they_are_nearly_the_same(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = tiny_examples(20)
    logits = {}
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr("recompress.training.precision.choose_precision", lambda wanted, precision=precision: precision)
        logits[precision] = teacher_outputs(teacher, examples, tmp_path / precision).logits
    assert np.abs(logits["bf16"] - logits["fp32"]).max() < 0.05 * np.abs(logits["fp32"]).max()


def test_the_outputs_of_a_whole_text(tmp_path: Path) -> None:
    save(tiny_checkpoint("text-classification"), tmp_path / "model")
    examples = tiny_examples(5, "text-classification")
    outputs = teacher_outputs(tmp_path / "model", examples, tmp_path / "out")
    assert [outputs[i].shape for i in range(5)] == [(1, len(TOPICS))] * 5


def test_a_word_that_was_cut_off_has_a_row_of_zeros(teacher: Path, tmp_path: Path) -> None:
    outputs = teacher_outputs(teacher, [Example(("kula",) * 40)], tmp_path / "out")
    assert outputs[0].shape == (40, len(TAGS))
    assert outputs[0].any(axis=1).tolist() == [True] * 30 + [False] * 10


def test_they_are_made_once(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = teacher_outputs(teacher, tiny_examples(5), tmp_path / "out")
    monkeypatch.setattr("recompress.methods.distillation.teacher.unit_logits", None)
    assert teacher_outputs(teacher, tiny_examples(5), tmp_path / "out").sha256 == first.sha256
    with pytest.raises(TypeError):
        teacher_outputs(teacher, tiny_examples(6), tmp_path / "other")


def test_what_another_teacher_said_is_not_taken(teacher: Path, tmp_path: Path) -> None:
    outputs = teacher_outputs(teacher, tiny_examples(5), tmp_path / "out")
    other = tiny_checkpoint()
    other.torch_network.classifier.bias.data += 1
    save(other, tmp_path / "other")
    with pytest.raises(InputError, match="exists already"):
        teacher_outputs(tmp_path / "other", tiny_examples(5), tmp_path / "out")
    assert TeacherOutputs.load(tmp_path / "out").sha256 == outputs.sha256
    assert not np.allclose(teacher_outputs(tmp_path / "other", tiny_examples(5), tmp_path / "new").logits, outputs.logits)


def test_they_belong_to_their_examples_in_their_order(teacher: Path, tmp_path: Path) -> None:
    examples = tiny_examples(5)
    outputs = teacher_outputs(teacher, examples, tmp_path / "out")
    outputs.check_belongs_to([Example(example.words) for example in examples], TAGS)
    for others in (examples[::-1], examples[:4], [*examples, *examples[:1]]):
        with pytest.raises(IntegrityError, match="other examples"):
            outputs.check_belongs_to(others, TAGS)
    with pytest.raises(IntegrityError, match="the teacher knows the labels"):
        outputs.check_belongs_to(examples, TAGS[::-1])
    with pytest.raises(InputError, match="exists already"):
        teacher_outputs(teacher, examples[::-1], tmp_path / "out")


@pytest.mark.parametrize("harm", ["missing", "cut", "pickle", "offsets", "labels"])
def test_broken_files_are_refused(teacher: Path, tmp_path: Path, harm: str) -> None:
    from safetensors.torch import load_file, save_file

    teacher_outputs(teacher, tiny_examples(5), tmp_path / "out")
    path = tmp_path / "out" / FILE
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "pickle":
        torch.save({"logits": torch.zeros(2, 2)}, path)
    else:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        tensors["offsets"][2 if harm == "offsets" else -1] = 10_000
        save_file(tensors, path, metadata={"teacher": "x", "examples": "y", "labels": '["a"]' if harm == "labels" else '["O","B","C","D","E"]'})
    with pytest.raises(IntegrityError):
        TeacherOutputs.load(tmp_path / "out")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no text"):
        teacher_outputs(tmp_path, [], tmp_path / "out")
    checkpoint = tiny_checkpoint()
    checkpoint.torch_network.classifier.bias.data[0] = float("nan")
    save(checkpoint, tmp_path / "broken")
    with pytest.raises(IntegrityError, match="not finite"):
        teacher_outputs(tmp_path / "broken", tiny_examples(3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_answers_is_not_kept(tmp_path: Path) -> None:
    save(six.checkpoint_of("gpt2"), tmp_path / "model")
    with pytest.raises(InputError, match="let it be asked while the student learns"):
        teacher_outputs(tmp_path / "model", six.texts(3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unlabelled_text_is_split_as_the_benchmark_does() -> None:
    texts = ["Asha alikwenda.", "   ", "", "\u200b"]
    assert unlabelled_examples(texts, TOKENS) == [Example(("Asha", "alikwenda", "."))]
    assert unlabelled_examples(["  Asha alikwenda. "], get_benchmark("text-classification")) == [Example(("Asha alikwenda.",))]
