"""The dials that all distillations share: what of the teacher the student is to be like, and how much each part counts.

loss = answers * ((1 - hard_labels) * KL + hard_labels * cross-entropy) + hidden * states + embeddings * states + attention * relations
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field, field_validator

from recompress.errors import InputError
from recompress.methods.distillation.layer_map import Rule
from recompress.methods.distillation.losses import StatesLoss
from recompress.settings.base import Settings
from recompress.training.settings import Schedule

Weight = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1)]


class Shape(Settings):
    """A network of the same architecture, smaller; what is left out is as it is in the model that the step is given."""

    layers: Count | None = None
    """Layers."""
    hidden: Count | None = None
    """Width of the states between layers."""
    heads: Count | None = None
    """Attention heads; they divide the width. Where several queries share a key, as many share one as before if that divides, and none otherwise."""
    neurons: Count | None = None
    """Neurons of the feed-forward part of each layer."""


class Correction(Schedule):
    """How the teacher is fine-tuned on the text that it teaches with, before it teaches."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the text."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-5
    """The highest learning rate; small, because the teacher is to be corrected and not taught anew."""


class Imitation(Schedule):
    """What the student is to be like."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 5
    """Passes over all the text."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """The highest learning rate; students that lost much of their shape bear more than a whole network does."""
    answers: Weight = 1.0
    """Weight of the answers: soft labels, and hard ones as ``hard_labels`` says; 0 learns from the teacher's inside alone."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Softens both distributions: the higher, the more the unlikely labels count. 1 is usual for next tokens."""
    hard_labels: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the labels' own cross-entropy in the answers, in [0, 1]; 0 learns from the teacher alone."""
    hidden: Weight = 0.0
    """Weight of the states that layers leave; a linear projection is learned along where the widths differ, and left behind."""
    embeddings: Weight = 0.0
    """Weight of the embedded tokens, in the same way."""
    states_loss: StatesLoss = "mse"
    """How states and embedded tokens are compared: mean squared difference, or 1 - cosine."""
    attention: Weight = 0.0
    """Weight of the relations between tokens, as queries, keys and values show them. They can be ten times the answers at first: 0.1 is a good beginning."""
    relation_heads: Count | None = None
    """Heads into which relations are cut, in student and teacher alike; as many as the student has attention heads when left out."""
    layer_map: Rule | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = "uniform"
    """Which layer of the teacher each layer of the student looks at: by rule, or a list of the teacher's layers, counted from 1, with 0 for none."""
    labelled: bool = True
    """Learn from the labelled training text too; false takes the recipe's unlabelled text alone."""
    unlabelled: Annotated[int, Field(ge=0)] | None = None
    """At most this many of the recipe's unlabelled examples, drawn with the seed; all of them when left out."""
    student: Shape | None = None
    """Begin with a new network of a smaller shape, ``{layers, hidden, heads, neurons}``, each as before where it is left out, whose weights are drawn with the
    seed, instead of with the model that the step is given."""
    teacher_correction: Correction | None = None
    """Fine-tune the teacher on the same text first (or on its labels, where the benchmark has any), by a schedule of its own, ``{epochs, learning_rate, …}``;
    the teacher of the recipe stays as it is."""

    @field_validator("layer_map", mode="before")
    @classmethod
    def _rule_or_list(cls, given: object) -> object:
        listed = isinstance(given, list | tuple) and given and all(type(layer) is int and layer >= 0 for layer in given)
        if not listed and given not in get_args(Rule):
            raise ValueError(f"is {', '.join(get_args(Rule))}, or a list of the teacher's layers, counted from 1, with 0 for none")
        return tuple(given) if isinstance(given, list) else given

    @property
    def looks_inside(self) -> bool:
        return self.hidden > 0 or self.embeddings > 0 or self.attention > 0


def check(config: Imitation) -> None:
    """Raises ``InputError`` for dials that contradict each other."""
    if config.answers == 0 and not config.looks_inside:
        raise InputError("answers, hidden, embeddings and attention are all 0, so that there is nothing to learn; give one of them a weight")
    if config.answers == 0 and config.hard_labels > 0:
        raise InputError(f"hard_labels is {config.hard_labels:g}, a share of the answers, but answers is 0; give answers a weight")
    if not config.labelled and config.unlabelled == 0:
        raise InputError("labelled is false and unlabelled is 0, so that no text is left; allow one of them")
    if isinstance(config.layer_map, tuple):
        if not any(config.layer_map):
            raise InputError("layer_map names no layer of the teacher; give one, or set hidden and attention to 0")
        layers = config.student.layers if config.student else None
        if layers is not None and len(config.layer_map) != layers:
            raise InputError(f"layer_map has {len(config.layer_map)} entries for a student of {layers} layers; name one for each, or 0 for none")
    if config.student is not None:
        if not config.student.model_fields_set:
            raise InputError("student names no shape; give layers, hidden, heads or neurons, or leave student out")
        hidden, heads = config.student.hidden, config.student.heads
        if hidden is not None and heads is not None and hidden % heads:
            raise InputError(f"student: hidden is {hidden}, which {heads} heads do not divide; choose numbers that do")
