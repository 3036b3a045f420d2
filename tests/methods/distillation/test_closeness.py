"""Whether a student is its teacher's own is asked of the teacher itself: who learned from other examples' answers is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.methods.distillation import learn as lessons
from recompress.methods.distillation.closeness import prove_closeness
from recompress.methods.distillation.dials import Imitation, Shape
from recompress.methods.distillation.distill import Distill, distill, prove
from recompress.methods.distillation.distill_base import DistillBase
from recompress.methods.distillation.distill_base import prove as prove_base
from recompress.methods.distillation.imitation import imitating
from recompress.methods.distillation.live import live_teacher
from recompress.methods.distillation.student import some_layers
from recompress.methods.distillation.teacher import teacher_outputs
from recompress.methods.registry import Claim, Inputs, get_method
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.training import train
from recompress.training.losses import losses_of
from recompress.training.settings import TrainingSettings
from tests.six import checkpoint_of, each, examples_of, inputs_of
from tests.tiny import tiny_checkpoint, tiny_examples

BENCHMARK = "text-classification"
QUICK: dict[str, Any] = {"epochs": 6, "learning_rate": 5e-3, "batch_size": 16, "precision": "fp32"}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A teacher that knows its topics, and what students of it get."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("taught")
    rows = tiny_examples(120, BENCHMARK)
    teacher = train(tiny_checkpoint(BENCHMARK), rows, rows[:30], TrainingSettings(**QUICK), 0, folder / "training")
    save(teacher, folder / "teacher")
    inputs = replace(inputs_of("distilbert", folder / "w"), train=rows, dev=rows[:30], teacher_model=folder / "teacher", base=folder / "teacher")
    return replace(inputs, teacher=teacher_outputs(folder / "teacher", rows, folder / "outputs"))


def broken(claims: Sequence[Claim]) -> set[str]:
    return {claim.what for claim in claims if not claim.kept}


BEFORE = "distance from the teacher, not above that before"
OTHERS = "distance from the teacher, below that from its answers to other examples"


@pytest.mark.parametrize("asked", [True, False])
def test_answers_to_the_neighbouring_example_are_found(asked: bool, taught: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student that was its teacher's first layer; the teacher is asked again, or what it said is looked up."""
    config = Distill(**QUICK)
    inputs = replace(taught, workdir=tmp_path / "right", teacher_model=taught.teacher_model if asked else None)

    def student() -> Checkpoint:
        assert taught.teacher_model is not None
        return some_layers(load(taught.teacher_model), 1)

    assert broken(prove(student(), distill(student(), config, inputs), config, inputs)) == set()
    usual = lessons.train

    def wrong(*args: Any, soft_labels: Any, **rest: Any) -> Checkpoint:
        return usual(*args, soft_labels=[*soft_labels[1:], soft_labels[0]], **rest)

    monkeypatch.setattr(lessons, "train", wrong)
    monkeypatch.setattr(lessons, "ALIKE", np.inf)
    done = distill(student(), config, replace(inputs, workdir=tmp_path / "wrong"))
    assert OTHERS in broken(prove(student(), done, config, inputs))


def test_a_new_student_is_not_further_from_its_own_teacher_than_from_others(taught: Inputs, tmp_path: Path) -> None:
    """One that says the contrary of it is."""
    config = Distill(**QUICK, student=Shape(layers=1, hidden=16, heads=2, neurons=16))
    inputs, source = replace(taught, workdir=tmp_path), tiny_checkpoint(BENCHMARK, seed=7)
    done = distill(tiny_checkpoint(BENCHMARK, seed=7), config, inputs)
    assert broken(prove(source, done, config, inputs)) == set()
    assert taught.teacher_model is not None
    contrary = load(taught.teacher_model)
    contrary.torch_network.classifier.weight.data.mul_(-1)
    assert OTHERS in broken(prove(source, contrary, config, inputs))


@pytest.mark.parametrize(("labels", "kept"), [("its own", True), ("others", False)])
def test_with_hard_labels_teacher_and_labels_are_asked_together(labels: str, kept: bool, taught: Inputs) -> None:
    """A student that answers as its teacher does, and then more surely: farther from the teacher's answers, and nearer to the labels or farther from them too."""
    assert taught.teacher_model is not None
    assert taught.teacher is not None
    probe = list(taught.train[:16])
    start, surer = load(taught.teacher_model), load(taught.teacher_model)
    surer.torch_network.classifier.weight.data.mul_(3)
    surer.torch_network.classifier.bias.data.mul_(3)
    answers = [taught.teacher[i] for i in range(len(probe))]
    names = start.info.labels
    shift = 0 if labels == "its own" else 1
    probe = [replace(example, labels=(names[(int(row[0].argmax()) + shift) % len(names)],)) for example, row in zip(probe, answers, strict=True)]
    soft = prove_closeness(start, surer, Imitation(), probe, None, answers)
    assert BEFORE in broken(soft)
    both = prove_closeness(start, surer, Imitation(hard_labels=0.9), probe, None, answers)
    assert ("distance from teacher and labels, not above that before" not in broken(both)) is kept
    features = lessons._sample(start, probe, answers, "sample")
    with imitating(start.torch_network, None, Imitation(hard_labels=0.9), seed=0, use_bf16=False, losses=losses_of(start.info)) as objective:
        far, near = (lessons._distance(student, features, objective, 8) for student in (start, surer))
    assert (near < far) is kept


@pytest.mark.parametrize("family", each())
def test_a_teacher_is_nearest_to_itself_in_every_part(family: str, tmp_path: Path) -> None:
    teacher, stranger = checkpoint_of(family), checkpoint_of(family, seed=1)
    probe, live = examples_of(family, 20), live_teacher(checkpoint_of(family), stranger)
    for part in ("hidden", "embeddings", "attention"):
        config = Imitation(**{"answers": 0.0, part: 1.0})
        assert broken(prove_closeness(stranger, teacher, config, probe, live, None)) == set()
        assert BEFORE in broken(prove_closeness(teacher, stranger, config, probe, live, None))
        before, others = prove_closeness(stranger, teacher, config, probe, live, None)
        assert before.measured == others.measured == pytest.approx(0, abs=1e-5)
        assert others.asked > 1e-3


def test_what_only_a_projection_compares_is_not_claimed(tmp_path: Path) -> None:
    teacher, student = checkpoint_of("bert"), checkpoint_of("bert", hidden_size=16)
    live = live_teacher(teacher, student)
    assert prove_closeness(student, student, Imitation(answers=0.0, hidden=1.0), examples_of("bert", 8), live, None) == []
    assert len(prove_closeness(student, student, Imitation(answers=0.0, hidden=1.0, attention=1.0), examples_of("bert", 8), live, None)) == 2
    assert len(prove_closeness(student, student, Imitation(answers=0.0, attention=1.0), examples_of("bert", 1), live, None)) == 1
    assert prove_closeness(student, student, Imitation(hard_labels=1.0), examples_of("bert", 8), None, None) == []


def test_a_base_that_learned_nothing_of_its_own_is_found(taught: Inputs, tmp_path: Path) -> None:
    config = DistillBase(**QUICK | {"epochs": 3}, layers=1)
    inputs, source = replace(taught, workdir=tmp_path), tiny_checkpoint(BENCHMARK, seed=7)
    done = get_method("distill_base").run(tiny_checkpoint(BENCHMARK, seed=7), config, inputs)
    assert broken(prove_base(source, done, config, inputs)) == set()
    stranger = tiny_checkpoint(BENCHMARK, seed=9, layers=1)
    assert BEFORE in broken(prove_base(source, stranger, config, inputs))


def test_hard_labels_alone_need_no_teacher(taught: Inputs, tmp_path: Path) -> None:
    inputs = replace(taught, workdir=tmp_path, teacher=None, teacher_model=None)
    config = Distill(**QUICK | {"epochs": 1}, hard_labels=1.0)
    done = distill(tiny_checkpoint(BENCHMARK, seed=7), config, inputs)
    assert broken(prove(tiny_checkpoint(BENCHMARK, seed=7), done, config, inputs)) == set()
