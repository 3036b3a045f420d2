"""The whole formula: a student like its teacher loses nothing, each weight counts its part, projections are borrowed, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recompress.errors import InputError
from recompress.methods.distillation.dials import Imitation, Shape, check
from recompress.methods.distillation.imitation import PLACE, Objective, imitating, projections
from recompress.methods.distillation.live import live_teacher
from recompress.methods.distillation.losses import next_token_loss
from recompress.methods.distillation.student import fresh_student
from recompress.models.checkpoint import Checkpoint
from recompress.training.batches import collate
from recompress.training.trainer import cross_entropy
from tests.six import DECODERS, SIX, checkpoint_of, features_of

ALL = {"hidden": 0.5, "embeddings": 0.25, "attention": 2.0}


pytestmark = pytest.mark.usefixtures("one_thread")


def dials(**changes: Any) -> Imitation:
    return Imitation(**(ALL | changes))


def batch_of(checkpoint: Checkpoint, family: str) -> dict[str, Tensor]:
    return collate(features_of(checkpoint, family), checkpoint.tokenizer.pad_token_id)


def loss_of(student: Checkpoint, teacher: Checkpoint, family: str, config: Imitation) -> Tensor:
    batch = batch_of(student, family)
    if family not in DECODERS:
        with torch.no_grad():
            logits = teacher.torch_network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        batch["teacher"] = logits if logits.ndim == 3 else logits[:, None]
    with imitating(student.torch_network, live_teacher(teacher, student), config, seed=0, use_bf16=False) as objective:
        logits = student.torch_network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return objective(logits if logits.ndim == 3 else logits[:, None], batch)


@pytest.mark.parametrize("family", SIX)
def test_a_student_that_is_its_teacher_loses_nothing_and_another_does(family: str) -> None:
    for states_loss in ("mse", "cosine"):
        assert abs(loss_of(checkpoint_of(family), checkpoint_of(family), family, dials(states_loss=states_loss)).item()) < 1e-5
    for what in ({"answers": 1.0}, {"hidden": 1.0}, {"embeddings": 1.0}, {"attention": 1.0}):
        config = Imitation(**({"answers": 0.0} | what))
        assert abs(loss_of(checkpoint_of(family), checkpoint_of(family), family, config).item()) < 1e-5
        loss = loss_of(checkpoint_of(family, seed=1), checkpoint_of(family), family, config)
        assert loss.item() > 1e-4, what
        loss.backward()


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_parts_add_up_by_their_weights(family: str) -> None:
    student, teacher = checkpoint_of(family, seed=1), checkpoint_of(family)
    parts = {what: loss_of(student, teacher, family, Imitation(**({"answers": 0.0} | {what: 1.0}))).item() for what in ("answers", *ALL)}
    batch = batch_of(student, family)
    hard = cross_entropy(student.torch_network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch["labels"]).item()
    expected = 3 * (0.75 * parts["answers"] + 0.25 * hard) + sum(ALL[what] * parts[what] for what in ALL)
    assert loss_of(student, teacher, family, dials(answers=3.0, hard_labels=0.25)).item() == pytest.approx(expected, rel=1e-5)
    assert loss_of(student, teacher, family, Imitation(hard_labels=1.0)).item() == pytest.approx(hard, rel=1e-6)


@pytest.mark.parametrize("family", SIX)
def test_every_part_reaches_a_student_of_another_width_depth_and_number_of_heads(family: str) -> None:
    teacher = checkpoint_of(family)
    student = fresh_student(checkpoint_of(family), Shape(layers=1, hidden=24, heads=2, neurons=20), 0)
    config = dials(relation_heads=4)
    batch = batch_of(student, family)
    if family not in DECODERS:
        logits = student.torch_network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        batch["teacher"] = torch.randn(logits.shape if logits.ndim == 3 else logits[:, None].shape, generator=torch.Generator().manual_seed(0))
    before = set(student.torch_network.state_dict())
    with imitating(student.torch_network, live_teacher(teacher, student), config, seed=0, use_bf16=False) as objective:
        assert set(student.torch_network.state_dict()) - before == {f"{PLACE}.hidden.weight", f"{PLACE}.embeddings.weight"}
        logits = student.torch_network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        objective(logits if logits.ndim == 3 else logits[:, None], batch).backward()
        unmoved = [name for name, parameter in student.torch_network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
        assert not [name for name in unmoved if "pooler" not in name and "key.bias" not in name and "k_lin.bias" not in name], unmoved
        assert all(parameter.grad is None for parameter in teacher.torch_network.parameters()), "the teacher never learns"
    assert set(student.torch_network.state_dict()) == before, "nothing of the training stays in the network"


def test_projections_follow_from_the_seed_and_are_none_where_widths_agree() -> None:
    first, again, other = (projections("hidden", "embeddings", widths=(3, 5), seed=seed) for seed in (0, 0, 1))
    assert first["hidden"].weight.shape == (5, 3)
    assert first["hidden"].weight.equal(again["hidden"].weight)
    assert not first["hidden"].weight.equal(other["hidden"].weight)
    assert not first["hidden"].weight.equal(first["embeddings"].weight)
    assert first["hidden"].bias is None
    assert not projections("hidden", widths=(4, 4), seed=0)


def test_next_tokens_are_compared_by_name_where_a_vocabulary_was_trimmed() -> None:
    """The same distribution over fewer tokens under other numbers."""
    teacher = checkpoint_of("gpt2")
    network = teacher.torch_network
    numbers = torch.tensor([0, *range(289, 19, -1)])  # others, and the other way round
    student = checkpoint_of("gpt2")
    student.torch_network.transformer.wte.weight.data[: len(numbers)] = network.transformer.wte.weight.data[numbers]
    from recompress.methods.distillation.live import LiveTeacher

    batch = {"input_ids": torch.arange(12).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long), "labels": torch.ones(2, 6, dtype=torch.long)}
    live = LiveTeacher(network.eval(), numbers, answers_tokens=True)
    with imitating(student.torch_network, live, Imitation(embeddings=1.0, hidden=1.0), seed=0, use_bf16=False) as objective, torch.no_grad():
        logits = student.torch_network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        assert logits.shape[-1] > len(numbers), "rows without a token are left out"
        assert objective(logits, batch).item() < 1e-6
        shifted = next_token_loss(logits[..., : len(numbers)], live.ask(batch).roll(1, -1), batch["labels"].bool(), temperature=2.0)
        assert shifted.item() > 1e-3


def test_without_a_teacher_at_hand_soft_labels_and_labels_are_mixed() -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher, labels = torch.randn(2, 3, 4, generator=draw), torch.randn(2, 3, 4, generator=draw), torch.tensor([[0, 1, -100], [2, -100, 3]])
    batch = {"teacher": teacher, "labels": labels, "attention_mask": torch.ones(2, 3), "input_ids": labels}
    losses = {w: Objective(Imitation(hard_labels=w, answers=2.0), None)(student, batch).item() for w in (0.0, 0.5, 1.0)}
    assert losses[1.0] == pytest.approx(2 * cross_entropy(student, labels).item())
    assert losses[0.5] == pytest.approx((losses[0.0] + losses[1.0]) / 2)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"layer_map": (1, 3)}, "names layer 3 of the teacher, which has 2"),
        ({"layer_map": (1,)}, "names 1 layers of the teacher, but the student has 2"),
        ({"relation_heads": 3}, "relation_heads is 3, which does not divide the 32 query channels of the student's layer 1"),
        ({"relation_heads": 32}, "does not divide the 16 key channels"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    student, teacher = checkpoint_of("llama"), checkpoint_of("llama")
    with (
        pytest.raises(InputError, match=reason),
        imitating(student.torch_network, live_teacher(teacher, student), dials(**changes), seed=0, use_bf16=False),
    ):
        pass
    assert not hasattr(student.torch_network, PLACE)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"answers": 0.0}, "nothing to learn"),
        ({"answers": 0.0, "hidden": 1.0, "hard_labels": 0.5}, "hard_labels is 0.5, a share of the answers"),
        ({"labelled": False, "unlabelled": 0}, "no text is left"),
        ({"layer_map": (0, 0)}, "names no layer"),
        ({"layer_map": (1, 2), "student": Shape(layers=3)}, "2 entries for a student of 3 layers"),
        ({"student": Shape()}, "names no shape"),
        ({"student": Shape(hidden=30, heads=4)}, "which 4 heads do not divide"),
    ],
)
def test_dials_that_contradict_each_other_are_refused_before_anything_runs(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check(Imitation(**changes))
    check(Imitation())
    check(dials(layer_map=(0, 1), student=Shape(layers=2)))
