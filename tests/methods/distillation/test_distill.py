"""Distillation: the loss against brute force, and a student that comes closer to its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from recompress.benchmarks import get_benchmark
from recompress.errors import EffectMissing, InputError, IntegrityError
from recompress.methods.distillation import learn
from recompress.methods.distillation.distill import Distill, distill
from recompress.methods.distillation.teacher import teacher_outputs, unlabelled_examples
from recompress.methods.registry import Inputs, get_method
from recompress.models.checkpoint import Checkpoint, save
from recompress.training import train
from recompress.training.settings import TrainingSettings
from tests.tiny import TAGS, tiny_checkpoint, tiny_examples

choose = jaxtyped(typechecker=beartype)(learn.choose)


@given(st.integers(0, 20), st.integers(0, 20), st.one_of(st.none(), st.integers(0, 30)), st.integers(-5, 2**40))
def test_the_choice_of_unlabelled_text(labelled: int, unlabelled: int, at_most: int | None, seed: int) -> None:
    chosen = choose(labelled, unlabelled, at_most, seed).tolist()
    assert chosen == sorted(set(chosen)) == choose(labelled, unlabelled, at_most, seed).tolist()
    assert chosen[:labelled] == list(range(labelled))
    assert len(chosen) == labelled + min(unlabelled, unlabelled if at_most is None else at_most)
    assert all(i < labelled + unlabelled for i in chosen)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inputs]:
    """A teacher that was trained, and what it says of labelled and unlabelled text."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("taught")
    labelled, dev = tiny_examples(60), tiny_examples(30, seed=1)
    benchmark = get_benchmark("token-classification")
    unlabelled = unlabelled_examples([" ".join(example.words) for example in tiny_examples(200, seed=2)], benchmark)
    schedule = TrainingSettings(epochs=8, learning_rate=5e-3, batch_size=16, precision="fp32")
    save(train(tiny_checkpoint(), labelled, dev, schedule, 0, folder / "training"), folder / "teacher")
    outputs = teacher_outputs(folder / "teacher", [*labelled, *unlabelled], folder / "outputs")
    return folder / "teacher", Inputs(benchmark, labelled, dev, 0, folder, unlabelled, outputs)


def student() -> Checkpoint:
    return tiny_checkpoint(seed=7, layers=1)


QUICK = Distill(epochs=3, learning_rate=5e-3, batch_size=16, precision="fp32")


def test_the_student_learns_from_text_without_labels_and_proves_it(taught: tuple[Path, Inputs], tmp_path: Path) -> None:
    points: list[Mapping[str, float]] = []
    _, inputs = taught
    inputs = replace(inputs, workdir=tmp_path, curve=lambda _, point: points.append(point))
    trained = distill(student(), QUICK, inputs)
    assert [point["dev_f1"] for point in points if "dev_f1" in point][-1] > 0.9
    assert all(claim.kept for claim in get_method("distill").prove(student(), trained, QUICK, None))
    assert not all(claim.kept for claim in get_method("distill").prove(student(), student(), QUICK, None))


def test_less_unlabelled_text_is_another_training(taught: tuple[Path, Inputs], tmp_path: Path) -> None:
    from recompress.training.run import weights_sha256

    _, inputs = taught
    digests = [
        weights_sha256(distill(student(), QUICK.model_copy(update=change), replace(inputs, workdir=tmp_path)).torch_network)
        for change in (
            {"unlabelled": 40},
            {"unlabelled": 0},
            {"unlabelled": 40, "hard_labels": 0.5},
            {"unlabelled": 40, "temperature": 1.0},
            {"unlabelled": 40},
        )
    ]
    assert len(set(digests)) == 4
    assert digests[0] == digests[4]


def test_a_student_with_another_tokenizer_learns_from_the_same_outputs(taught: tuple[Path, Inputs], tmp_path: Path) -> None:
    from transformers import BertTokenizer

    _, inputs = taught
    pupil = student()
    words = sorted(pupil.tokenizer.get_vocab(), key=lambda word: (not word.startswith("["), word))  # other numbers for the same words
    pupil.tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(w for w in words if w != "mto")})
    before = [parameter.detach().clone() for parameter in pupil.torch_network.parameters()]
    trained = distill(pupil, QUICK, replace(inputs, workdir=tmp_path))
    assert any(not old.equal(new) for old, new in zip(before, trained.torch_network.parameters(), strict=True)), "it learned"


def test_a_student_that_comes_no_closer_fails(taught: tuple[Path, Inputs], tmp_path: Path) -> None:
    from recompress.models.checkpoint import load

    teacher, inputs = taught
    harmful = QUICK.model_copy(update={"learning_rate": 0.5, "epochs": 1, "warmup": 0.0})
    with pytest.raises(EffectMissing, match="came no closer"):
        distill(load(teacher), harmful, replace(inputs, workdir=tmp_path))


def test_refusals(taught: tuple[Path, Inputs], tmp_path: Path) -> None:
    _, inputs = taught
    inputs = replace(inputs, workdir=tmp_path)
    with pytest.raises(InputError, match="needs the outputs of a teacher"):
        distill(student(), QUICK, replace(inputs, teacher=None))
    with pytest.raises(IntegrityError, match="other examples"):
        distill(student(), QUICK, replace(inputs, train=inputs.train[::-1]))
    other = student()
    other.info = replace(other.info, labels=TAGS[::-1])
    with pytest.raises(IntegrityError, match="the teacher knows the labels"):
        distill(other, QUICK, inputs)
    for wrong in ({"temperature": 0.0}, {"hard_labels": 1.5}, {"unlabelled": -1}, {"epochs": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Distill(**wrong)


def test_the_registry_knows_it() -> None:
    method = get_method("distill")
    assert (method.family, method.needs, method.config) == ("distillation", ("training", "teacher"), Distill)
