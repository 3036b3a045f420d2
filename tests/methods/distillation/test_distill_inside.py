"""Distillation as a step of a recipe: every dial on an encoder and a decoder, all together on all six, killed and resumed, corrected teachers, refusals."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import DataRefused, EffectMissing, InputError
from recompress.methods.chain import check_chain
from recompress.methods.distillation import correction, learn
from recompress.methods.distillation.dials import Correction, Shape
from recompress.methods.distillation.distill import Distill, distill
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.methods.training.finetune import Finetune
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.settings.file import read_settings
from recompress.training.run import weights_sha256
from tests.methods.distillation.lessons import EVERYTHING, QUICK, lesson_of, lesson_run
from tests.six import SIX, checkpoint_of, each

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inputs]:
    return {family: lesson_of(family, tmp_path_factory.mktemp(family)) for family in SIX}


def step(inputs: Inputs, family: str, folder: Path, **dials: Any) -> str:
    """Run a step on a model that is not the teacher; the digest of what it left."""
    save(checkpoint_of(family, seed=1), folder / "source")
    run_step(
        "distill", Distill(**(QUICK | {"epochs": 1, "batch_size": 8} | dials)), folder / "source", folder / "target", replace(inputs, workdir=folder / "work")
    )
    return weights_sha256(load(folder / "target").torch_network)


@pytest.mark.parametrize("family", each())
def test_all_dials_together_on_a_small_student(lessons: dict[str, Inputs], family: str, tmp_path: Path) -> None:
    step(lessons[family], family, tmp_path, **EVERYTHING)
    checkpoint = load(tmp_path / "target")
    assert checkpoint.torch_network.config.hidden_size == 24
    assert checkpoint.info.steps == ("distill",)


DIALS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hidden": {"hidden": 1.0, "layer_map": "top"},
    "cosine": {"hidden": 1.0, "states_loss": "cosine"},
    "embeddings": {"embeddings": 1.0},
    "attention": {"attention": 1.0, "layer_map": "last", "relation_heads": 8},
    "inside alone": {"answers": 0.0, "hidden": 1.0, "layer_map": (0, 2)},
    "hard labels": {"hard_labels": 0.5},
    "plain text": {"labelled": False},
    "in bf16": {"hidden": 1.0, "embeddings": 1.0, "attention": 1.0, "precision": "bf16"},
    "small": {"student": Shape(layers=1)},
    "corrected": {"teacher_correction": Correction(epochs=1, learning_rate=1e-2, batch_size=8, precision="fp32")},
}


@pytest.mark.long
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_each_dial_gives_another_student(lessons: dict[str, Inputs], family: str, tmp_path: Path) -> None:
    digests = {name: step(lessons[family], family, tmp_path / name.replace(" ", "_"), **dials) for name, dials in DIALS.items()}
    assert len(set(digests.values())) == len(DIALS), digests


def test_a_new_student_does_not_throw_away_what_a_step_did() -> None:
    new, cut = ("distill", Distill(student=Shape(layers=1))), ("prune_structure", get_method("prune_structure").config(layers=1))
    trimmed = ("trim_vocabulary", get_method("trim_vocabulary").config())
    check_chain([trimmed, new], "token-classification", "bert")
    check_chain([trimmed, cut, ("distill", Distill(hidden=1.0))], "token-classification", "bert")
    with pytest.raises(InputError, match="distill begins anew, so that what prune_structure did before it would be lost"):
        check_chain([trimmed, cut, new], "token-classification", "bert")


FORMS: dict[str, dict[str, Any]] = {"svd": {"parameters": 0.5}, "share_layers": {"groups": 1}, "factorize_embeddings": {"parameters": 0.5}}


@pytest.mark.parametrize("before", FORMS)
def test_it_goes_on_from_other_forms(lessons: dict[str, Inputs], before: str, tmp_path: Path) -> None:
    inputs = replace(lessons["bert"], workdir=tmp_path / "work")
    save(checkpoint_of("bert", seed=1), tmp_path / "source")
    run_step(before, get_method(before).config(**FORMS[before]), tmp_path / "source", tmp_path / "changed", inputs)
    run_step("distill", Distill(**QUICK, hidden=1.0, embeddings=1.0, attention=1.0), tmp_path / "changed", tmp_path / "target", inputs)
    assert load(tmp_path / "target").info.steps == (before, "distill")


def test_a_recipe_says_it_in_yaml(tmp_path: Path) -> None:
    place = tmp_path / "step.yaml"
    place.write_text("hidden: 1\nlayer_map: [0, 2]\nstudent: {layers: 2, heads: 2}\nteacher_correction: {epochs: 2}\nattention: 0.5\nrelation_heads: 8\n")
    config = read_settings(place, Distill)
    assert (config.layer_map, config.student, config.teacher_correction) == ((0, 2), Shape(layers=2, heads=2), Correction(epochs=2))
    for wrong in ("layer_map: middle", "layer_map: [1, -1]", "student: {depth: 2}", "states_loss: l1", "hidden: -1", "relation_heads: 0"):
        place.write_text(wrong)
        with pytest.raises(InputError, match=wrong.split(":")[0] if "depth" not in wrong else "depth") as refused:
            read_settings(place, Distill)
        assert "\n" not in str(refused.value)
        assert str(refused.value).count("got") == ("depth" not in wrong), "one reason is enough"


def test_the_same_step_gives_the_same_bytes(lessons: dict[str, Inputs], tmp_path: Path) -> None:
    assert step(lessons["gpt2"], "gpt2", tmp_path / "a", **EVERYTHING) == step(lessons["gpt2"], "gpt2", tmp_path / "b", **EVERYTHING)
    assert step(replace(lessons["gpt2"], seed=3), "gpt2", tmp_path / "c", **EVERYTHING) != step(lessons["gpt2"], "gpt2", tmp_path / "d", **EVERYTHING)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """The digest of a student that nobody disturbed, and the steps of its teacher's correction."""
    import torch

    from recompress.training.trainer import SteadyTrainer

    torch.set_num_threads(1)
    steps: list[str] = []
    inside = SteadyTrainer.training_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SteadyTrainer, "training_step", lambda self, *rest: (steps.append(self.args.output_dir), inside(self, *rest))[1])
        digest = lesson_run("llama", tmp_path_factory.mktemp("whole"))
    return digest, sum(place.endswith("correction") for place in steps)


@pytest.mark.parametrize("moment", ["while the teacher is corrected", "while the student learns"])
def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path: Path, uninterrupted: tuple[str, int], moment: str) -> None:
    digest, correcting = uninterrupted
    child = os.fork()
    if child == 0:
        _run_and_die(tmp_path, correcting - 1 if "teacher" in moment else 2 * correcting - 1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    there = "correction" if "teacher" in moment else "training"
    assert list((tmp_path / "work" / there).glob("checkpoint-*")), "an epoch was kept"
    assert lesson_run("llama", tmp_path) == digest


def _run_and_die(folder: Path, steps: int) -> None:
    from recompress.training.trainer import SteadyTrainer

    inside, left = SteadyTrainer.training_step, steps

    def die(self: Any, *rest: Any) -> Any:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return inside(self, *rest)

    SteadyTrainer.training_step = die  # type: ignore[method-assign]
    lesson_run("llama", folder)
    os._exit(0)


def test_a_corrected_teacher_is_kept_and_found_again(lessons: dict[str, Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = step(lessons["gpt2"], "gpt2", tmp_path / "a", **DIALS["corrected"])
    [corrected] = (tmp_path / "a" / "work").glob("teacher-*")
    assert weights_sha256(load(corrected).torch_network) != weights_sha256(load(lessons["gpt2"].teacher_model).torch_network)
    monkeypatch.setattr(correction, "train", None)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "work").rename(tmp_path / "b" / "work")
    assert step(lessons["gpt2"], "gpt2", tmp_path / "b", **DIALS["corrected"]) == first
    last, inputs = tmp_path / "b", lessons["gpt2"]
    save(checkpoint_of("gpt2", seed=2), tmp_path / "other")
    others: dict[str, tuple[Inputs, dict[str, Any]]] = {
        "dials": (inputs, {"teacher_correction": DIALS["corrected"]["teacher_correction"].model_copy(update={"epochs": 2})}),
        "seed": (replace(inputs, seed=1), DIALS["corrected"]),
        "text": (replace(inputs, train=inputs.train[1:]), DIALS["corrected"]),
        "teacher": (replace(inputs, teacher_model=tmp_path / "other"), DIALS["corrected"]),
    }
    for name, (given, dials) in others.items():
        (tmp_path / name).mkdir()
        (last / "work").rename(tmp_path / name / "work")
        last = tmp_path / name
        with pytest.raises(TypeError):
            step(given, "gpt2", last, **dials)
        assert corrected.name in {path.name for path in (last / "work").iterdir()}, "it was there to be taken"


def test_a_correction_is_a_training_by_its_own_dials_on_the_text_with_labels(lessons: dict[str, Inputs], tmp_path: Path) -> None:
    """What finetune makes of the teacher; what was pruned stays zero."""
    config = Correction(epochs=2, learning_rate=5e-3, batch_size=8, precision="fp32")
    inputs = replace(lessons["bert"], seed=3, workdir=tmp_path / "work")

    def pruned() -> Checkpoint:
        teacher = checkpoint_of("bert")
        for _, linear in encoder_linears(teacher.torch_network):
            linear.weight.data[::3] = 0
        teacher.info = replace(teacher.info, steps=("magnitude",))
        return teacher

    made = load(correction.corrected(pruned(), "of the teacher", config, [*inputs.train, *inputs.unlabelled], inputs))
    expected = get_method("finetune").run(pruned(), Finetune(**config.model_dump()), replace(inputs, workdir=tmp_path / "plain"))
    assert weights_sha256(made.torch_network) == weights_sha256(expected.torch_network)
    assert all(not linear.weight[::3].any() for _, linear in encoder_linears(made.torch_network))


@pytest.mark.parametrize(("method", "dials"), [("distill", {}), ("distill", {"answers": 0.0, "hidden": 1.0}), ("distill_base", {"layers": 1})])
def test_what_another_teacher_taught_is_not_gone_on_with(method: str, dials: dict[str, Any], tmp_path: Path) -> None:
    """In a folder in which the same student has learned from another teacher all is as in a new one."""
    save(checkpoint_of("bert", seed=2), tmp_path / "other" / "teacher")
    lessons = [lesson_of("bert", tmp_path / name) for name in ("one", "other")]
    config = get_method(method).config(**(QUICK | {"epochs": 1} | dials))

    def run(inputs: Inputs, place: str) -> str:
        return weights_sha256(get_method(method).run(checkpoint_of("bert", seed=1), config, replace(inputs, workdir=tmp_path / place)).torch_network)

    expected = run(lessons[1], "new")
    assert run(lessons[0], "shared") != expected
    assert run(lessons[1], "shared") == expected


@pytest.mark.parametrize(
    ("method", "dials", "share"),
    [("distill", {}, 0.0), ("distill", {"answers": 0.0, "hidden": 1.0}, 1.0), ("distill_base", {"layers": 1}, 1.0)],
)
def test_dev_chooses_among_epochs_only_where_answers_are_learned(
    method: str, dials: dict[str, Any], share: float, lessons: dict[str, Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From that share of all steps on weights may be the best: from the first, or the last ones alone."""
    seen: list[float] = []
    inside = learn.train

    def look(*given: Any, **named: Any) -> Any:
        seen.append(named["counts_from"])
        return inside(*given, **named)

    monkeypatch.setattr(learn, "train", look)
    config = get_method(method).config(**(QUICK | {"epochs": 1} | dials))
    get_method(method).run(checkpoint_of("bert", seed=1), config, replace(lessons["bert"], workdir=tmp_path))
    assert seen == [share]


def test_a_correction_that_corrects_nothing_fails(lessons: dict[str, Inputs], tmp_path: Path) -> None:
    in_vain = Distill(**(QUICK | {"teacher_correction": Correction(epochs=1, learning_rate=1e-60)}))
    with pytest.raises(EffectMissing, match="distill: teacher: no weight moved in training"):
        distill(checkpoint_of("bert"), in_vain, replace(lessons["bert"], workdir=tmp_path))
    assert not list(tmp_path.glob("teacher-*"))


def test_refusals_come_before_any_training(lessons: dict[str, Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("correction", "learn"):
        monkeypatch.setattr(f"recompress.methods.distillation.{name}.train", None)
    corrects = {"teacher_correction": Correction()}
    inputs = lessons["llama"]
    for changes, dials, kind, reason in (
        ({"teacher_model": None}, {}, InputError, "needs the model of its teacher"),
        ({}, {"hidden": 1.0, "layer_map": (1, 9)}, InputError, "names layer 9 of the teacher"),
        ({}, {"attention": 1.0, "relation_heads": 5}, InputError, "relation_heads is 5"),
        ({"teacher_model": lessons["bert"].teacher_model}, {}, InputError, "the teacher was made for token-classification"),
        ({"unlabelled": []}, {"labelled": False}, DataRefused, "no text to learn from"),
        ({}, {"student": Shape(heads=5)}, InputError, "no multiple of 5 heads"),
    ):
        with pytest.raises(kind, match=reason):
            distill(checkpoint_of("llama"), Distill(**(dials | corrects)), replace(inputs, workdir=tmp_path, **changes))
    bert = replace(lessons["bert"], workdir=tmp_path)
    with pytest.raises(DataRefused, match="hard_labels is 0.5, but no example"):
        distill(checkpoint_of("bert"), Distill(labelled=False, hard_labels=0.5), bert)
    with pytest.raises(DataRefused, match="teacher_correction needs examples with labels"):
        distill(checkpoint_of("bert"), Distill(labelled=False, **corrects), bert)
    with pytest.raises(InputError, match="needs the outputs of a teacher"):
        distill(checkpoint_of("bert"), Distill(hidden=1.0), replace(bert, teacher=None))
