"""One method on one model, with its proof."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.benchmarks import benchmark_of
from recompress.errors import InputError
from recompress.library.load import Model, Place, load, path_of
from recompress.library.rows import Rows, examples_of, probes
from recompress.methods.registry import Inputs, Method, get_method
from recompress.methods.runner import StepReport, run_step
from recompress.settings.file import read_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from recompress.training.teacher_outputs import TeacherOutputs

SEEDS = 1 << 32
"""More than these numpy does not draw from."""


@dataclass(frozen=True)
class Compressed(Model):
    """A smaller model. ``report`` says what was promised and what was measured on the saved files."""

    report: StepReport | None = None


def compress(
    model: str | Path | Model | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    method: str,
    *,
    calibration: Rows = (),
    train: Rows = (),
    dev: Rows = (),
    unlabelled: Rows = (),
    teacher: str | Path | Model | None = None,
    base: str | Path | None = None,
    seed: int = 0,
    **dials: Any,
) -> Compressed:
    """Run one method of ``recompress methods`` with its ``dials``, save the result, read it back, and have it prove what it promised.

    ``model`` and ``tokenizer`` are as for ``load``; the model itself is not changed. ``calibration`` are texts; methods that train take labelled rows as ``train``
    and ``dev`` instead (see ``recompress.library.rows``). A method with a teacher learns from ``teacher``, or from the model as it is.

    Raises ``InputError`` for unknown methods or dials, missing data, rows without a label where a method learns from labels, and models that the method does not support, and ``EffectMissing`` where a promise was not kept.

    >>> small = recompress.compress(model, None, "wanda", sparsity=0.5, calibration=texts)
    >>> [claim["what"] for claim in small.report.claims][:1]
    ['sparsity']
    """
    if not isinstance(method, str):
        raise InputError(f"method should be the name of one, got {method!r}; recompress methods lists all")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise InputError(f"seed should be a whole number from 0 to {SEEDS - 1:,}, got {seed!r}")
    start, chosen = load(model, tokenizer), get_method(method)
    config = read_values(chosen.config, dials, f"compress(…, {method!r})")
    trains = "training" in chosen.needs
    rows = examples_of(start, train, "train", labelled=trains) or examples_of(start, calibration, "calibration", labelled=trains)
    if not rows and {"calibration", "training"} & set(chosen.needs):
        raise InputError(f"{method} looks at text: give {'train=[(text, label), …]' if trains else 'calibration=[text, …]'}")
    rows = rows or probes(start)
    more = examples_of(start, unlabelled, "unlabelled")
    taught_by = load(teacher) if teacher is not None else start
    place = Place()
    here = place.path
    inputs = Inputs(
        benchmark=benchmark_of(start.info),
        train=rows,
        dev=examples_of(start, dev, "dev", labelled=True) or rows,
        seed=seed,
        workdir=here / "work",
        unlabelled=more,
        teacher_model=taught_by.folder if "teacher" in chosen.needs else None,
        teacher=_asked(chosen, taught_by, [*rows, *more], here),
        base=path_of(base, "base") if base is not None else None,
        label=method,
    )
    report = run_step(method, config, start.folder, here / "model", inputs)
    return Compressed(here / "model", place, report)


def _asked(method: Method, teacher: Model, rows: list[Any], place: Path) -> TeacherOutputs | None:
    """What the teacher says about the text, for methods that learn from it; of models of language students ask themselves."""
    if "teacher" not in method.needs or benchmark_of(teacher.info).head.pretrained:
        return None
    from recompress.methods.distillation.teacher import teacher_outputs
    from recompress.training.teacher_outputs import TeacherOutputs

    teacher_outputs(teacher.folder, rows, place / "teacher")
    return TeacherOutputs.load(place / "teacher")
