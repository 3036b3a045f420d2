"""Distill: train a small network to answer like the teacher, on labelled text and on any other text of the kind, and to be like it inside.

    loss = a * ((1 - w) * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + w * cross-entropy of the labels)
         + h * states of layers + e * embedded tokens + r * relations of attention

T is the temperature, w the share of hard labels, and a, h, e, r are weights; text without labels counts in all but the second term. Classifiers learn from
soft labels that were made once; decoders from the next-token distributions of a teacher that is asked along the way, because a vocabulary of answers for each
token is too much to keep. With ``on_policy`` a decoder's student writes some of the text itself (``recompress.methods.distillation.on_policy``). ``recompress.methods.distillation.losses`` has the formulas of the parts.

Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2; Mirzadeh et al. 2020, arXiv:1902.03393 (a teacher in between); Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, eq. 8 and 9; Wang et al. 2021 (MiniLMv2),
arXiv:2012.15828, section 3.1; Sreenivas et al. 2024 (Minitron), arXiv:2408.11796, section 3 (teacher correction); Agarwal et al. 2023 (GKD), arXiv:2306.13649 (on-policy text).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int
from pydantic import Field, model_serializer

from recompress.benchmarks import ALL_BENCHMARKS, Example
from recompress.errors import DataRefused, InputError
from recompress.integrity.digest import sha256_directory
from recompress.methods.distillation.closeness import probe_of, prove_closeness, prove_writing
from recompress.methods.distillation.correction import corrected
from recompress.methods.distillation.dials import Imitation, check
from recompress.methods.distillation.imitation import fit
from recompress.methods.distillation.learn import SoftLabels, chosen_text, learn
from recompress.methods.distillation.live import check_comparable, live_teacher, open_teacher
from recompress.methods.distillation.on_policy import OnPolicy
from recompress.methods.distillation.student import fresh_student, prove_shape
from recompress.methods.distillation.teacher import teacher_outputs, unit_logits
from recompress.methods.registry import OF_LANGUAGE, Claim, Inputs, method
from recompress.methods.training_step import prove_training
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import Checkpoint
from recompress.models.tokenizer import numbered
from recompress.settings.base import Slug, as_before
from recompress.training.teacher_outputs import TeacherOutputs

KEPT = ("trim_vocabulary",)
"""Steps whose work a new student keeps: it has the tokenizer of the model that it takes the place of."""


class Distill(Imitation):
    """How the student learns."""

    teacher: Slug | None = None
    """The variant of the recipe that teaches, by name, one that stands above this one; the baseline when left out. A teacher between the two in size can teach
    a small student better than a large one."""
    on_policy: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the batches of which the student reads the beginning alone and writes the rest, for its teacher to judge; decoders only. Writing takes several times
    as long as reading."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("on_policy",))


def check_dials(config: Distill) -> None:
    """Raises ``InputError`` for dials that contradict each other."""
    check(config)
    if config.on_policy > 0 and config.answers * (1 - config.hard_labels) == 0:
        raise InputError(
            f"on_policy is {config.on_policy:g}, and nobody but the teacher can say what should follow there; lower hard_labels, or give answers a weight"
        )


def check_writes(config: Distill, benchmark: str) -> None:
    """Raises ``InputError`` where a student is to write that labels texts."""
    if config.on_policy > 0 and benchmark not in OF_LANGUAGE:
        raise InputError(
            f"on_policy is {config.on_policy:g}, and a model for {benchmark} writes nothing; leave on_policy out, or distil a decoder ({', '.join(OF_LANGUAGE)})"
        )


def prove(before: Checkpoint, after: Checkpoint, config: Distill, inputs: Inputs) -> list[Claim]:
    """What holds after any training, or the new shape; and that the student came nearer to its teacher, which is asked again on some of the text."""
    start = before if config.student is None else fresh_student(before, config.student, inputs.seed)
    shape = prove_training(before, after) if config.student is None else prove_shape(before, after, config.student)
    language = inputs.benchmark.head.pretrained
    soft = config.answers * (1 - config.hard_labels) > 0
    text = [*inputs.train, *inputs.unlabelled]
    chosen = chosen_text(config, inputs)
    asks = config.looks_inside or (language and soft)
    teacher = None
    if inputs.teacher_model is not None and (asks or soft):
        examples = [text[i] for i in chosen]
        teacher = open_teacher(_teacher(start, config, inputs, examples, asks=asks))
    places = probe_of(chosen.tolist())
    probe, answers = [text[i] for i in places], None
    if soft and not language and teacher is not None:
        answers = unit_logits(teacher, inputs.benchmark, probe)
    elif soft and not language and inputs.teacher is not None:
        answers = [inputs.teacher[i] for i in places]
    live = live_teacher(teacher, start) if teacher is not None and asks else None
    claims = [*shape, *prove_closeness(start, after, config, probe, live, answers)]
    return [*claims, prove_writing(start, after, config, probe, live)] if config.on_policy > 0 and live is not None else claims


@method(
    "distill",
    Distill,
    family="distillation",
    prove=prove,
    check=check_dials,
    check_benchmark=check_writes,
    source="Hinton, Vinyals and Dean 2015, arXiv:1503.02531; Jiao et al. 2020, arXiv:1909.10351, eq. 8 and 9; Wang et al. 2021, arXiv:2012.15828, section 3.1",
    needs=("training", "teacher"),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    shrinks="nothing, or, with a student of a smaller shape, parameters and bytes",
    speeds_up="nothing, or CPU and GPU about as much as it shrinks",
    loses=lambda config, step: config.student is not None and step not in KEPT,
)
def distill(checkpoint: Checkpoint, config: Distill, inputs: Inputs) -> Checkpoint:
    """Train the model, or a new one of a smaller shape, to answer like its teacher and to be like it inside.

    Raises ``InputError`` without a teacher or for one that cannot be compared, ``IntegrityError`` when its outputs belong to other examples, ``DataRefused``
    without text, and ``EffectMissing`` when the student came no closer.
    """
    language = inputs.benchmark.head.pretrained
    chosen = chosen_text(config, inputs)
    text = [*inputs.train, *inputs.unlabelled]
    examples = [text[i] for i in chosen]
    soft = config.answers * (1 - config.hard_labels) > 0
    if config.answers * config.hard_labels > 0 and not language and not any(example.labels for example in examples):
        raise DataRefused(f"hard_labels is {config.hard_labels:g}, but no example that is learned from has a label; set it to 0, or labelled to true")
    student = checkpoint if config.student is None else fresh_student(checkpoint, config.student, inputs.seed)
    asks = config.looks_inside or (language and soft)
    directory = _teacher(student, config, inputs, examples, asks=asks) if asks or config.teacher_correction else None
    outputs, soft_labels = None, None
    if soft and not language:
        corrected_one = directory if config.teacher_correction else None
        outputs, soft_labels = _soft_labels(student, inputs, corrected_one, text, chosen)
    return learn(
        student,
        config,
        inputs,
        examples,
        teacher=live_teacher(open_teacher(directory), student) if directory is not None and asks else None,
        soft_labels=soft_labels,
        depends_on={"teacher": outputs.sha256 if outputs else None, "live_teacher": sha256_directory(directory) if directory else None},
        label="distill",
        dev_counts=config.answers > 0,
        rewrite=OnPolicy(config.on_policy, tokens=numbered(student.tokenizer)) if config.on_policy > 0 else None,
    )


def _teacher(student: Checkpoint, config: Distill, inputs: Inputs, examples: Sequence[Example], *, asks: bool) -> Path:
    """The model directory of the teacher, corrected where that is asked for. What cannot be compared is refused before anything is trained."""
    directory = inputs.teacher_model
    if directory is None:
        raise InputError("distill needs the model of its teacher for what it was asked to do, and was given none")
    teacher = open_teacher(directory)
    if asks:
        check_comparable(teacher, student, examples)
        fit(config, student.torch_network, teacher.torch_network)
    if config.teacher_correction is None:
        return directory
    return corrected(teacher, sha256_directory(directory), config.teacher_correction, examples, inputs)


def _soft_labels(
    student: Checkpoint, inputs: Inputs, corrected_one: Path | None, text: Sequence[Example], chosen: Int[np.ndarray, " chosen"]
) -> tuple[TeacherOutputs, SoftLabels]:
    """What the teacher says about the chosen text: as it was made for all variants, or by the corrected teacher."""
    outputs = inputs.teacher
    if corrected_one is not None:
        text = [text[i] for i in chosen]
        outputs, chosen = teacher_outputs(corrected_one, text, inputs.workdir / f"outputs-{corrected_one.name}"), np.arange(len(text))
    if outputs is None:
        raise InputError("distill needs the outputs of a teacher, and was given none")
    outputs.check_belongs_to(text, student.info.labels)
    return outputs, [outputs[i] for i in chosen]
