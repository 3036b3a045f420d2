"""Is a student nearer to its teacher than it was, and nearer than to what the same teacher says about other examples? Asked of the teacher itself, afterwards.

    d_i: the loss of recompress.methods.distillation.imitation without hard labels, for example i;  e_i: the same with the teacher's side of example i + 1
    a_i: the loss of the teacher's own answers to example i with those to example i + 1
    nearer than before       mean d after <= mean d before; with hard labels, which may draw it elsewhere, the mean of the whole formula
    its own teacher's        mean d <= mean e - 0.1 mean a, or, without answers, - 2 standard errors of e - d

The mean of e - d is 0 for a student that answers all examples alike, and that of a for one that answers as its teacher does. A student that told examples
apart as its teacher does before the step, as layers of the teacher do, has to do so after it. One that did not, a new network or one that lost too much, may
be on its way still: it must not be further from its own teacher's answers than from others, by more than 2 standard errors.
States of another width are compared through a projection that training leaves behind, so that they do not count here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from recompress.benchmarks import Example, benchmark_of
from recompress.benchmarks.scores import NO_LABEL
from recompress.methods.distillation.dials import Imitation
from recompress.methods.distillation.imitation import Batch, Objective, imitating
from recompress.methods.distillation.live import LiveTeacher
from recompress.methods.distillation.losses import distillation_loss, next_token_loss
from recompress.methods.distillation.on_policy import OnPolicy
from recompress.methods.registry import Claim
from recompress.methods.training_probe import EXAMPLES, TOKENS
from recompress.models.checkpoint import Checkpoint
from recompress.models.tokenizer import numbered
from recompress.runtimes.asking import units_of
from recompress.training.batches import Feature, collate
from recompress.training.judge import taught, training_features
from recompress.training.losses import Losses, losses_of

SLACK, SHARE = 1e-3, 0.05
"""How far a distance may lie above its limit, absolutely and as a share: training took its own measure, on other examples and in its own precision."""
KNOWS = 0.1
"""Of what tells the teacher's answers to different examples apart, the student knows so much at least."""
ERRORS = 2.0
"""Standard errors that the distance lies below that from the teacher's inside for other examples."""
Answers = Sequence[Float[np.ndarray, "units labels"]]
T = TypeVar("T")


class Distances(NamedTuple):
    """How far the student is from the teacher for each example, and from the teacher's side of the next one; how far the teacher's answers are apart."""

    own: Float[np.ndarray, " examples"]
    others: Float[np.ndarray, " examples"]
    apart: Float[np.ndarray, " examples"]


def probe_of(text: Sequence[T]) -> list[T]:
    """Some of the text, or of its places, evenly spread."""
    return [text[i] for i in np.linspace(0, len(text) - 1, num=min(EXAMPLES, len(text)), dtype=np.int64)]


def prove_closeness(
    start: Checkpoint, after: Checkpoint, config: Imitation, probe: Sequence[Example], teacher: LiveTeacher | None, answers: Answers | None
) -> list[Claim]:
    """Both claims at the head of this file; none where nothing can be compared. ``start`` is the student before it learned, ``answers`` are the teacher's
    logits for the ``probe``, where it has some that are kept."""
    compared = _comparable(config, after, teacher)
    if compared is None:
        return []
    losses = losses_of(after.info)
    was, now = (_distances(student, compared, probe, teacher, answers, losses) for student in (start, after))
    claims = [_nearer("distance from the teacher, not above that before", float(was.own.mean()), float(now.own.mean()))]
    if config.hard_labels > 0:
        learned = compared.model_copy(update={"answers": config.answers, "hard_labels": config.hard_labels})
        whole = [_whole(student, learned, probe, teacher, answers, losses) for student in (start, after)]
        claims = [_nearer("distance from teacher and labels, not above that before", *whole)]
    if len(now.own) < 2:
        return claims
    told_apart = bool(was.own.mean() <= was.others.mean() - _margin(was, compared))
    margin = _margin(now, compared) if told_apart else -_errors(now)
    limit = float(now.others.mean() - margin)
    return [*claims, Claim("distance from the teacher, below that from its answers to other examples", limit, float(now.own.mean()), SLACK, "at most")]


def prove_writing(start: Checkpoint, after: Checkpoint, config: Imitation, probe: Sequence[Example], teacher: LiveTeacher) -> Claim:
    """That the student, which learned from what it wrote, is no further from its teacher there than it was on what it would have written before."""
    answered = config.model_copy(update={"hidden": 0.0, "embeddings": 0.0, "attention": 0.0})
    was, now = (_on_own_text(student, answered, probe, teacher) for student in (start, after))
    return _nearer("distance from the teacher on what the student writes, not above that before", was, now)


def _on_own_text(student: Checkpoint, config: Imitation, probe: Sequence[Example], teacher: LiveTeacher) -> float:
    """The mean distance over texts of which the student reads the first half, and writes the second."""
    write = OnPolicy(1.0, tokens=numbered(student.tokenizer))
    batches = [collate([feature], student.tokenizer.pad_token_id or 0) for feature in _features(student, probe, None) if len(feature["input_ids"]) > 1]
    with imitating(student.torch_network, teacher, config, seed=0, use_bf16=False) as objective, torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = [write.rewritten(student.torch_network, batch, batch["input_ids"].shape[1] // 2) for batch in batches]
        return float(np.mean([_distance(student, objective, batch, batch) for batch in own]))


def _nearer(what: str, before: float, after: float) -> Claim:
    return Claim(what, before, after, SLACK + SHARE * before, "at most")


def _margin(distances: Distances, config: Imitation) -> float:
    """How much nearer a student is to its own teacher's answers that tells examples apart as the teacher does."""
    return float(KNOWS * distances.apart.mean()) if config.answers > 0 else _errors(distances)


def _errors(distances: Distances) -> float:
    nearer = distances.others - distances.own
    return float(ERRORS * nearer.std(ddof=1) / len(nearer) ** 0.5)


def _comparable(config: Imitation, student: Checkpoint, teacher: LiveTeacher | None) -> Imitation | None:
    """The dials without what a projection was learned for, and without hard labels; ``None`` where nothing is left."""
    changes = {"answers": config.answers * (1 - config.hard_labels), "hard_labels": 0.0}
    if teacher is not None and teacher.network.config.hidden_size != student.torch_network.config.hidden_size:
        changes |= {"hidden": 0.0, "embeddings": 0.0}
    compared = config.model_copy(update=changes)
    return compared if compared.answers > 0 or compared.looks_inside else None


def _distances(
    student: Checkpoint, config: Imitation, probe: Sequence[Example], teacher: LiveTeacher | None, answers: Answers | None, losses: Losses
) -> Distances:
    features = _features(student, probe, answers)
    with imitating(student.torch_network, teacher, config, seed=0, use_bf16=False, losses=losses) as objective, torch.no_grad():
        pairs = [_pair(student, objective, features[i], features[(i + 1) % len(features)]) for i in range(len(features))]
    return Distances(*np.asarray(pairs).T)


def _whole(student: Checkpoint, config: Imitation, probe: Sequence[Example], teacher: LiveTeacher | None, answers: Answers | None, losses: Losses) -> float:
    """The mean of the whole formula, labels included."""
    features, padding = _features(student, probe, answers), student.tokenizer.pad_token_id or 0
    with imitating(student.torch_network, teacher, config, seed=0, use_bf16=False, losses=losses) as objective, torch.no_grad():
        batches = [collate([feature], padding) for feature in features]
        return float(np.mean([float(objective(units_of(student.torch_network, batch), batch)) for batch in batches]))


def _features(student: Checkpoint, probe: Sequence[Example], answers: Answers | None) -> list[Feature]:
    """The probe as training reads it, with the teacher's answers where they are kept; the student in evaluation mode."""
    features, _, _ = training_features(student, probe, probe[:1], "a probe")
    if answers is not None:
        features = taught(benchmark_of(student.info), features, answers, probe)
    student.torch_network.eval()
    return features[: max(2, TOKENS // max(len(feature["input_ids"]) for feature in features))]


def _pair(student: Checkpoint, objective: Objective, one: Feature, other: Feature) -> tuple[float, float, float]:
    """The student reads ``one``; the teacher's side is that of ``one``, and then that of ``other`` as far as both have tokens."""
    both = collate([one, other], student.tokenizer.pad_token_id or 0)
    mine, foreign = ({name: tensor[i : i + 1] for name, tensor in both.items()} for i in (0, 1))
    foreign |= {"attention_mask": mine["attention_mask"] & foreign["attention_mask"], "labels": mine["labels"]}
    if "teacher" in foreign and foreign["teacher"].shape[1] == foreign["attention_mask"].shape[1]:
        foreign["teacher"] = foreign["teacher"] * foreign["attention_mask"][:, :, None]
    apart = _apart(objective, mine, foreign) if objective.config.answers > 0 else 0.0
    return _distance(student, objective, mine, mine), _distance(student, objective, mine, foreign), apart


def _apart(objective: Objective, mine: Batch, foreign: Batch) -> float:
    """How far the teacher's answers to one example are from those to the other."""
    config = objective.config
    if "teacher" in mine:
        return config.answers * float(distillation_loss(mine["teacher"], foreign["teacher"], temperature=config.temperature, losses=objective.losses))
    assert objective.teacher is not None
    text = foreign["attention_mask"].bool() & (foreign["labels"] != NO_LABEL)
    both = objective.teacher.ask(mine), objective.teacher.ask(foreign)
    return config.answers * float(next_token_loss(*both, text, temperature=config.temperature)) if text.any() else 0.0


def _distance(student: Checkpoint, objective: Objective, read: Batch, compared: Batch) -> float:
    return float(objective.distance(units_of(student.torch_network, read), compared))
