"""The loss of a student that imitates: the formula of ``recompress.methods.distillation.dials``, over whatever parts of it have a weight.

What is compared is read from inside both networks while they answer the same batch. Projections between widths are learned along: for as long as the training
runs they are a part of the student's network, so that its checkpoints hold them, and afterwards they are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.benchmarks.scores import NO_LABEL
from recompress.errors import InputError
from recompress.methods.distillation.dials import Imitation
from recompress.methods.distillation.inside import PARTS, Inside, look_inside, relation_widths
from recompress.methods.distillation.layer_map import partners
from recompress.methods.distillation.live import LiveTeacher
from recompress.methods.distillation.losses import columns, distillation_loss, next_token_loss, relation_loss, states_loss
from recompress.methods.distillation.on_policy import WRITTEN
from recompress.models.architecture import architecture_of, layers_of
from recompress.training.losses import ONE_LABEL, Losses, mean_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = dict[str, Tensor]
PLACE = "imitation"
"""The name under which projections stand in the student's network while it learns."""


@dataclass
class Objective:
    """``objective(logits, batch)``: the loss of one batch that the student has just answered."""

    config: Imitation
    teacher: LiveTeacher | None
    """``None`` where soft labels that were kept are all that is asked for."""
    use_bf16: bool = False
    pairs: dict[int, int] = field(default_factory=dict)
    heads: int = 1
    causal: bool = False
    losses: Losses = ONE_LABEL
    """Those of the student's head."""
    projections: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    student_inside: Inside = field(default_factory=Inside)
    teacher_inside: Inside = field(default_factory=Inside)
    token_columns: Tensor | None = None
    """The student's tokens among its logits, where these have rows without a token, or the teacher numbers tokens otherwise."""

    def __call__(self, logits: Tensor, batch: Batch) -> Float[Tensor, ""]:
        """The whole formula; without hard labels for what the student wrote itself."""
        config = self.config
        loss = self.distance(logits, batch, config.answers * (1 - config.hard_labels))
        hard = 0.0 if WRITTEN in batch else config.answers * config.hard_labels
        return loss if hard == 0 else loss + hard * mean_loss(self.losses, logits, batch["labels"])

    def distance(self, logits: Tensor, batch: Batch, answers: float | None = None) -> Float[Tensor, ""]:
        """What the teacher alone asks for: the formula without hard labels."""
        config = self.config
        answers = config.answers if answers is None else answers
        asked = self._ask(batch) if self.teacher is not None else None
        loss = logits.sum() * 0.0 if answers == 0 else answers * self._answers(logits, asked, batch)
        text = batch["attention_mask"].bool()
        if config.hidden > 0:
            mine, its = self.student_inside.hidden, self.teacher_inside.hidden
            loss = loss + config.hidden * _mean(self._states("hidden", mine[m], its[n], text) for m, n in self.pairs.items())
        if config.embeddings > 0:
            ours, theirs = self.student_inside.embeddings, self.teacher_inside.embeddings
            assert ours is not None
            assert theirs is not None
            loss = loss + config.embeddings * self._states("embeddings", ours, theirs, text)
        if config.attention > 0:
            given, wanted = self.student_inside.relations, self.teacher_inside.relations
            each = (relation_loss(given[part][m], wanted[part][n], text, heads=self.heads, causal=self.causal) for m, n in self.pairs.items() for part in PARTS)
            loss = loss + config.attention * _mean(each)
        self.student_inside.clear()
        self.teacher_inside.clear()
        return loss

    def _ask(self, batch: Batch) -> Tensor:
        assert self.teacher is not None
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=self.use_bf16):
            return self.teacher.ask(batch)

    def _answers(self, logits: Tensor, asked: Tensor | None, batch: Batch) -> Float[Tensor, ""]:
        """Soft labels that were kept, where the batch carries them, and the teacher's next tokens otherwise."""
        if "teacher" in batch:
            return distillation_loss(logits.float(), batch["teacher"], temperature=self.config.temperature, losses=self.losses)
        assert asked is not None
        text = batch["attention_mask"].bool() & (batch["labels"] != NO_LABEL)
        if not text.any():
            return logits.sum() * 0.0
        return next_token_loss(columns(logits, self.token_columns), asked, text, temperature=self.config.temperature)

    def _states(self, what: str, mine: Tensor, its: Tensor, text: Tensor) -> Float[Tensor, ""]:
        if what in self.projections:
            mine = self.projections[what](mine.float())
        return states_loss(mine, its, text, kind=self.config.states_loss)


@contextmanager
def imitating(
    student: PreTrainedModel, teacher: LiveTeacher | None, config: Imitation, *, seed: int, use_bf16: bool, losses: Losses = ONE_LABEL
) -> Iterator[Objective]:
    """The objective, ready for ``student``, which has its projections for as long as the block runs.

    Raises ``InputError`` for a layer map or relation heads that do not fit the two networks.
    """
    objective = Objective(config, teacher, use_bf16, losses=losses)
    with ExitStack() as stack:
        if teacher is not None:
            objective.pairs, objective.heads = fit(config, student, teacher.network)
            objective.causal = architecture_of(student).causal
            kinds = {"hidden": config.hidden, "embeddings": config.embeddings}
            widths = student.config.hidden_size, teacher.network.config.hidden_size
            objective.projections = projections(*(what for what, weight in kinds.items() if weight > 0), widths=widths, seed=seed)
            if teacher.numbers is not None:
                objective.token_columns = torch.arange(len(teacher.numbers))
            for network, place, layers in (
                (student, "student_inside", set(objective.pairs)),
                (teacher.network, "teacher_inside", set(objective.pairs.values())),
            ):
                wanted = {"hidden": layers if config.hidden > 0 else (), "relations": layers if config.attention > 0 else ()}
                setattr(objective, place, stack.enter_context(look_inside(network, **wanted, embeddings=config.embeddings > 0)))
        if len(objective.projections):
            student.add_module(PLACE, objective.projections)
        try:
            yield objective
        finally:
            if hasattr(student, PLACE):
                delattr(student, PLACE)


def projections(*kinds: str, widths: tuple[int, int], seed: int) -> nn.ModuleDict:
    """A linear map without a bias for each kind, from the student's width to the teacher's; none where the widths are the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return nn.ModuleDict({kind: nn.Linear(*widths, bias=False) for kind in kinds if widths[0] != widths[1]})


def fit(config: Imitation, student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[dict[int, int], int]:
    """The teacher's layer for each layer of the student that has one, from 0, and the number of relation heads.

    Raises ``InputError`` for a layer that is not there, and for relation heads that do not divide what they cut.
    """
    mine, its = layers_of(student), layers_of(teacher)
    if config.hidden == 0 and config.attention == 0:
        return {}, 1
    pairs = partners(config.layer_map, len(mine), len(its))
    heads = config.relation_heads or mine[min(pairs)].heads
    for m, n in pairs.items() if config.attention > 0 else ():
        for whose, layer in (("student", mine[m]), ("teacher", its[n])):
            for part, width in zip(PARTS, relation_widths(layer), strict=True):
                if width % heads:
                    raise InputError(
                        f"relation_heads is {heads}, which does not divide the {width} {part} channels of the {whose}'s layer {layer.index + 1}; "
                        "choose a number that divides those of both"
                    )
    return pairs, heads


def _mean(losses: Any) -> Any:
    every = list(losses)
    return sum(every) / len(every)
