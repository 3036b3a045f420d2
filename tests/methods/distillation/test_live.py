"""A teacher that is asked along the way: the same tokens by other numbers, or a refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recompress.errors import InputError
from recompress.methods.distillation.live import check_comparable, live_teacher, numbers_of, open_teacher
from recompress.methods.runner import run_step
from recompress.methods.slimming.trim_vocabulary import TrimVocabulary
from recompress.models.checkpoint import INFO_FILE, save
from tests.families import checkpoint_of as family_checkpoint
from tests.families import examples, inputs_of
from tests.six import checkpoint_of, examples_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_trimmed_student_is_asked_about_in_the_teachers_numbers(tmp_path: Path) -> None:
    teacher = family_checkpoint("roberta")
    save(teacher, tmp_path / "teacher")
    run_step("trim_vocabulary", TrimVocabulary(), tmp_path / "teacher", tmp_path / "student", inputs_of(tmp_path / "work"))
    student = open_teacher(tmp_path / "student")
    check_comparable(teacher, student, examples(20))
    live = live_teacher(teacher, student)
    assert live.numbers is not None
    mine, its = (checkpoint.tokenizer([list(examples(1)[0].words)], is_split_into_words=True, return_tensors="pt") for checkpoint in (student, teacher))
    assert not torch.equal(mine["input_ids"], its["input_ids"])
    assert torch.equal(live.numbers[mine["input_ids"]], its["input_ids"])
    with torch.no_grad():
        expected = teacher.torch_network(input_ids=its["input_ids"], attention_mask=its["attention_mask"]).logits
    assert live.ask(dict(mine)).equal(expected)


def test_the_same_tokens_need_no_table() -> None:
    live = live_teacher(checkpoint_of("gpt2"), checkpoint_of("gpt2", seed=1))
    assert live.numbers is None
    assert not any(parameter.requires_grad for parameter in live.network.parameters())


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"the teacher's tokenizer is another: it lacks .* of the student's"):
        numbers_of(checkpoint_of("gpt2").tokenizer, checkpoint_of("bert").tokenizer)


def test_the_same_tokens_cut_otherwise_are_refused() -> None:
    from tokenizers import Tokenizer

    from recompress.models.tokenizer import with_backend

    student, teacher = checkpoint_of("gpt2"), checkpoint_of("gpt2")
    definition = Tokenizer.from_str(student.tokenizer.backend_tokenizer.to_str()).to_str().replace('"add_prefix_space":false', '"add_prefix_space":true', 1)
    student.tokenizer = with_backend(student.tokenizer, definition)
    assert student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    with pytest.raises(InputError, match="the teacher's tokenizer is another: it cuts a text into"):
        check_comparable(teacher, student, examples_of("gpt2", 5))


def test_other_labels_and_lengths_are_refused() -> None:
    student, teacher = checkpoint_of("bert"), checkpoint_of("bert")
    for info, reason in (
        (replace(teacher.info, labels=teacher.info.labels[::-1]), "they must be the same"),
        (replace(teacher.info, max_length=8), "the student reads 16 tokens, the teacher only 8"),
    ):
        teacher.info = info
        with pytest.raises(InputError, match=reason):
            check_comparable(teacher, student, examples_of("bert", 3))


@pytest.mark.parametrize("runtime", ["onnx", "packed"])
def test_a_teacher_on_another_runtime_is_refused(tmp_path: Path, runtime: str) -> None:
    save(checkpoint_of("bert"), tmp_path / "teacher")
    place = tmp_path / "teacher" / INFO_FILE
    place.write_text(json.dumps(json.loads(place.read_text()) | {"runtime": runtime}))
    with pytest.raises(InputError, match=f"runs on {runtime}, where nobody can look inside"):
        open_teacher(tmp_path / "teacher")
