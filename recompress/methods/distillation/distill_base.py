"""Distill the base model: a smaller base, made on plain text before any labels are seen, for a variant that is then fine-tuned or distilled like any other.

    loss = h * states of layers + e * embedded tokens + r * relations of attention  [+ a * answers, for decoders, whose base model has next tokens to say]

It begins with the base model and not with the baseline, so that it is a variant's first step; the head for the labels comes out new and untrained, as in a base
model. The student is some of the base model's layers, evenly spread, or a new network of a smaller shape. The last weights are kept: dev says nothing of them.

Source: Wang et al. 2021 (MiniLMv2), arXiv:2012.15828, section 3 (relations of one layer); Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, section 3.2 (general
distillation); Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 2 (a student from every other layer).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from recompress.benchmarks import ALL_BENCHMARKS, Example
from recompress.errors import InputError
from recompress.integrity.digest import sha256_directory
from recompress.methods.distillation.closeness import probe_of, prove_closeness
from recompress.methods.distillation.correction import corrected
from recompress.methods.distillation.dials import Count, Imitation, Shape, Weight
from recompress.methods.distillation.dials import check as check_dials
from recompress.methods.distillation.imitation import fit
from recompress.methods.distillation.layer_map import Rule
from recompress.methods.distillation.learn import chosen_text, learn
from recompress.methods.distillation.live import live_teacher
from recompress.methods.distillation.student import fresh_student, prove_shape, some_layers
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES, layers_of
from recompress.models.checkpoint import Checkpoint, load
from recompress.models.pretrained import from_base


class DistillBase(Imitation):
    """What the smaller base model is, and how it learns."""

    layers: Count | None = None
    """Begin with this many of the base model's layers, evenly spread; half of them when neither this nor ``student``, a new network, is given."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Passes over all the text."""
    answers: Weight = 1.0
    """Weight of the next-token distributions of a decoder. An encoder's base model has no answers, so that there it counts nothing."""
    attention: Weight = 0.1
    """Weight of the relations between tokens, as queries, keys and values show them; small, because they can be ten times the answers at first."""
    layer_map: Rule | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = "last"
    """Which layer of the base model each layer of the student looks at: by rule, or a list of its layers, counted from 1, with 0 for none."""


def check(config: DistillBase) -> None:
    check_dials(config)
    if config.layers is not None and config.student is not None:
        raise InputError("distill_base makes a student of some layers of the base model, or a new one of a smaller shape; give either layers or student")


def prove(before: Checkpoint, after: Checkpoint, config: DistillBase, inputs: Inputs) -> list[Claim]:
    """Its shape, that it belongs to the labels of the model that it will be compared with, and that it came nearer to the base model, which is asked again."""
    shape = config.student or Shape(layers=_count(config, before))
    claims = [*prove_shape(before, after, shape), Claim("labels", len(before.info.labels), len(after.info.labels))]
    if inputs.base is None:
        return claims
    config = _possible(config, language=inputs.benchmark.head.pretrained)
    examples = _text(config, inputs)
    base, start = _pair(before, config, inputs)
    if config.teacher_correction is not None:
        base = load(corrected(base, sha256_directory(inputs.base), config.teacher_correction, examples, inputs))
    return [*claims, *prove_closeness(start, after, config, probe_of(examples), live_teacher(base, start), None)]


@method(
    "distill_base",
    DistillBase,
    family="distillation",
    prove=prove,
    check=check,
    source="Wang et al. 2021, arXiv:2012.15828, section 3; Jiao et al. 2020, arXiv:1909.10351, section 3.2; Sanh et al. 2019, arXiv:1910.01108, section 2",
    needs=("training", "base"),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    shrinks="parameters and bytes",
    speeds_up="CPU and GPU, about as much as it shrinks",
    loses=lambda config, step: True,
)
def distill_base(checkpoint: Checkpoint, config: DistillBase, inputs: Inputs) -> Checkpoint:
    """Make a smaller base model on plain text, to be fine-tuned or distilled afterwards; a variant's first step.

    Raises ``InputError`` without a base model or for a student that cannot be compared with it, ``DataRefused`` without text, and ``EffectMissing`` when the
    student came no closer.
    """
    if inputs.base is None:
        raise InputError("distill_base needs the base model, and was given none")
    config = _possible(config, language=inputs.benchmark.head.pretrained)
    examples = _text(config, inputs)
    base, student = _pair(checkpoint, config, inputs)
    fit(config, student.torch_network, base.torch_network)
    sha256 = sha256_directory(inputs.base)
    if config.teacher_correction is not None:
        directory = corrected(base, sha256, config.teacher_correction, examples, inputs)
        base, sha256 = load(directory), sha256_directory(directory)
    return learn(
        student,
        config,
        inputs,
        examples,
        teacher=live_teacher(base, student),
        soft_labels=None,
        depends_on={"base": sha256},
        label="distill_base",
        dev_counts=False,
    )


def _text(config: DistillBase, inputs: Inputs) -> list[Example]:
    text = [*inputs.train, *inputs.unlabelled]
    return [text[i] for i in chosen_text(config, inputs)]


def _pair(checkpoint: Checkpoint, config: DistillBase, inputs: Inputs) -> tuple[Checkpoint, Checkpoint]:
    """The base model with the head that ``checkpoint`` has, and the student before it learns."""
    assert inputs.base is not None
    info = checkpoint.info
    base, student = (from_base(inputs.base, inputs.benchmark.name, info.labels, info.max_length, inputs.seed) for _ in range(2))
    student.info = replace(student.info, answering=info.answering)
    return base, fresh_student(student, config.student, inputs.seed) if config.student else some_layers(student, _count(config, student))


def _count(config: DistillBase, base: Checkpoint) -> int:
    return config.layers or max(1, len(layers_of(base.torch_network)) // 2)


def _possible(config: DistillBase, *, language: bool) -> DistillBase:
    """The dials without what an encoder's base model cannot give. Raises ``InputError`` when nothing is left, or when it was asked for outright."""
    if language:
        return config
    if config.teacher_correction is not None or config.hard_labels > 0:
        raise InputError(
            "an encoder's base model has no answers to correct or to mix with labels; leave out teacher_correction and hard_labels, and fine-tune later"
        )
    if not config.looks_inside:
        raise InputError("an encoder's base model has no answers to learn; give hidden, embeddings or attention a weight")
    return config.model_copy(update={"answers": 0.0})
