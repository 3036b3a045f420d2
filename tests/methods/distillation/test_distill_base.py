"""A smaller base model before fine-tuning: it begins with the base and not with the baseline, is a variant's first step, and can be trained on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import DataRefused, InputError
from recompress.methods.chain import check_chain
from recompress.methods.distillation.dials import Correction, Shape
from recompress.methods.distillation.distill import Distill
from recompress.methods.distillation.distill_base import DistillBase, distill_base
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.methods.training.finetune import Finetune
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import load, save
from recompress.training.run import weights_sha256
from tests.methods.distillation.lessons import QUICK, lesson_of
from tests.six import SIX, benchmark_of, checkpoint_of, each

pytestmark = pytest.mark.usefixtures("one_thread")
FAST: dict[str, Any] = QUICK | {"epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inputs]:
    """The base model is another than the baseline, which is the source of the step."""
    return {family: lesson_of(family, tmp_path_factory.mktemp(family)) for family in SIX}


def step(inputs: Inputs, family: str, folder: Path, *, seed: int = 1, **dials: Any) -> str:
    save(checkpoint_of(family, seed=seed), folder / "source")
    run_step("distill_base", DistillBase(**(FAST | dials)), folder / "source", folder / "target", replace(inputs, workdir=folder / "work"))
    return weights_sha256(load(folder / "target").torch_network)


@pytest.mark.parametrize("family", each())
def test_layers_of_the_base_and_new_networks(lessons: dict[str, Inputs], family: str, tmp_path: Path) -> None:
    digest = step(lessons[family], family, tmp_path / "layers", layers=1)
    assert len(layers_of(load(tmp_path / "layers" / "target").torch_network)) == 1
    assert step(lessons[family], family, tmp_path / "again", seed=2, layers=1) == digest, "the baseline's own weights do not count"
    assert step(lessons[family], family, tmp_path / "half") == digest, "half of two"
    step(lessons[family], family, tmp_path / "new", student=Shape(hidden=24, heads=2), hidden=1.0, embeddings=1.0, layer_map="uniform", unlabelled=10)
    assert load(tmp_path / "new" / "target").torch_network.config.hidden_size == 24


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_it_stays_near_the_base_it_came_from(lessons: dict[str, Inputs], family: str, tmp_path: Path) -> None:
    """With a learning rate of nearly nothing the student is the base model's first layer."""
    step(lessons[family], family, tmp_path, layers=1, learning_rate=1e-7)
    base, student = load(lessons[family].base).torch_network, load(tmp_path / "target").torch_network
    pairs = zip(layers_of(base)[0].module.parameters(), layers_of(student)[0].module.parameters(), strict=True)
    assert max(float((old - new).detach().abs().max()) for old, new in pairs) < 1e-5


@pytest.mark.parametrize("family", ["bert", pytest.param("llama", marks=pytest.mark.long)])
def test_fine_tuning_and_distilling_go_on_from_it(lessons: dict[str, Inputs], family: str, tmp_path: Path) -> None:
    inputs = lessons[family]
    step(inputs, family, tmp_path, layers=1)
    run_step("finetune", Finetune(**FAST), tmp_path / "target", tmp_path / "tuned", replace(inputs, workdir=tmp_path / "w1"))
    run_step("distill", Distill(**FAST, hidden=1.0), tmp_path / "tuned", tmp_path / "taught", replace(inputs, workdir=tmp_path / "w2"))
    assert load(tmp_path / "taught").info.steps == ("distill_base", "finetune", "distill")
    for info in (load(tmp_path / "source").info, load(tmp_path / "taught").info):
        assert (info.labels, info.benchmark, info.max_length) == (checkpoint_of(family).info.labels, benchmark_of(family), 16)


@pytest.mark.long
def test_answers_count_for_decoders_alone(lessons: dict[str, Inputs], tmp_path: Path) -> None:
    encoder = [step(lessons["bert"], "bert", tmp_path / f"bert{a}", layers=1, answers=a) for a in (0.0, 1.0)]
    decoder = [step(lessons["gpt2"], "gpt2", tmp_path / f"gpt2{a}", layers=1, answers=a) for a in (0.0, 1.0)]
    assert encoder[0] == encoder[1]
    assert decoder[0] != decoder[1]
    corrected = step(lessons["gpt2"], "gpt2", tmp_path / "corrected", layers=1, teacher_correction=Correction(learning_rate=1e-2, batch_size=8))
    assert corrected != decoder[1]


def test_the_head_is_new_and_untrained(lessons: dict[str, Inputs], tmp_path: Path) -> None:
    step(lessons["bert"], "bert", tmp_path, layers=1)
    old, new = load(tmp_path / "source").torch_network.classifier, load(tmp_path / "target").torch_network.classifier
    assert old.weight.shape == new.weight.shape
    assert not new.bias.any(), "as transformers begins it"


def test_it_is_the_first_step_or_refused() -> None:
    steps = [("distill_base", DistillBase(layers=1)), ("finetune", Finetune())]
    check_chain(steps, "token-classification", "bert")
    for before in (("finetune", Finetune()), steps[0]):
        with pytest.raises(InputError, match=f"distill_base begins anew, so that what {before[0]} did before it would be lost"):
            check_chain([before, *steps], "token-classification", "bert")
    assert get_method("distill_base").needs == ("training", "base")


@pytest.mark.parametrize(
    "dials, reason",
    [({"layers": 1, "student": Shape(layers=1)}, "give either layers or student"), ({"layers": 1, "answers": 0.0, "attention": 0.0}, "nothing to learn")],
)  # fmt: skip
def test_dials_that_contradict_each_other_are_refused_before_anything_runs(dials: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_chain([("distill_base", DistillBase(**dials))], "token-classification", "bert")


def test_refusals(lessons: dict[str, Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.methods.distillation.learn.train", None)
    inputs = replace(lessons["bert"], workdir=tmp_path)
    for changes, dials, kind, reason in (
        ({"base": None}, {"layers": 1}, InputError, "needs the base model"),
        ({}, {"layers": 2}, InputError, "layers is 2, but the model has 2"),
        ({}, {"layers": 1, "layer_map": (3,)}, InputError, "names layer 3 of the teacher"),
        ({}, {"layers": 1, "attention": 0.0}, InputError, "an encoder's base model has no answers to learn"),
        ({}, {"layers": 1, "teacher_correction": Correction()}, InputError, "no answers to correct"),
        ({}, {"layers": 1, "hard_labels": 0.5}, InputError, "no answers to correct or to mix"),
        ({"unlabelled": []}, {"layers": 1, "labelled": False}, DataRefused, "no text to learn from"),
        ({}, {"layers": 1, "relation_heads": 5}, InputError, "relation_heads is 5"),
    ):
        with pytest.raises(kind, match=reason):
            distill_base(checkpoint_of("bert"), DistillBase(**dials), replace(inputs, **changes))
