"""The registry of methods: what a step of a recipe may be called, what it may be told, what it needs, and what it must prove.

A method is one file: a docstring with the formula and its source, a settings class, pure tensor functions, one registered function over a model, and a
function that says what must be measurable afterwards. The runner (``recompress.methods.runner``) does everything that is the same for all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from recompress.errors import InputError
from recompress.models.heads import HEADS
from recompress.records import Runtime
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from recompress.benchmarks import Benchmark, Example
    from recompress.models.checkpoint import Checkpoint
    from recompress.training.teacher_outputs import TeacherOutputs

Family = Literal["pruning", "quantization", "distillation", "low_rank", "sharing", "slimming", "training"]
Need = Literal["calibration", "training", "teacher", "base"]
Bound = Literal["equal", "at most", "at least"]
LABELLED = tuple(name for name, head in HEADS.items() if head.labelled and not head.pretrained)
"""Benchmarks whose models learn from data that says what is right."""
OF_LANGUAGE = tuple(name for name, head in HEADS.items() if head.pretrained)
"""Benchmarks of models of language, whatever these are asked."""
FAMILIES = ("pruning", "quantization", "distillation", "low_rank", "sharing", "slimming", "training")


@dataclass(frozen=True)
class Inputs:
    """What a method may use besides the model. It never sees the test split."""

    benchmark: Benchmark
    train: list[Example]
    dev: list[Example]
    seed: int
    workdir: Path
    """A folder of this step's own, kept when the process is killed: training checkpoints live here."""
    unlabelled: list[Example] = field(default_factory=list)
    """Text without labels, where the recipe names some."""
    teacher: TeacherOutputs | None = None
    """What the teacher says about ``train`` and then ``unlabelled``; given to methods that need a teacher, but for language modelling, where the answers are
    too many to be kept."""
    teacher_model: Path | None = None
    """The model directory of the teacher (the baseline, or the variant that a step names), asked while the student learns; for methods that need a teacher."""
    base: Path | None = None
    """The base model's directory; given to methods that need it."""
    curve: Callable[[int, Mapping[str, float]], None] | None = None
    """Where a training writes its curves: ``curve(step, {"loss": …})``."""
    label: str = ""
    """What a progress bar calls this step."""


class Claim(NamedTuple):
    """One thing that a step promised, and what was measured on the model that was read back from disk."""

    what: str
    asked: float
    measured: float
    tolerance: float = 0.0
    """How far the measured may lie from the asked (or beyond it, where that is a limit) while the promise counts as kept."""
    bound: Bound = "equal"
    """Whether what was asked is the value itself, or a limit that the measured does not pass."""

    @property
    def kept(self) -> bool:
        """Never for what is not a number."""
        above = self.measured - self.asked
        miss = {"equal": abs(above), "at most": above, "at least": -above}[self.bound]
        return miss <= self.tolerance

    @property
    def limit(self) -> str:
        """What was asked, in words; of a limit, where it lies with what it may be missed by: ``at most 0.5``."""
        beyond = {"equal": 0.0, "at most": self.tolerance, "at least": -self.tolerance}[self.bound]
        return f"{'' if self.bound == 'equal' else f'{self.bound} '}{self.asked + beyond:g}"

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "asked": float(self.asked), "measured": float(self.measured), "tolerance": float(self.tolerance), "bound": self.bound}


Run = Callable[["Checkpoint", Any, Inputs], "Checkpoint"]
Prove = Callable[["Checkpoint", "Checkpoint", Any, Inputs], list[Claim]]


@dataclass(frozen=True)
class Method:
    """One method, as ``recompress methods`` shows it and as a recipe uses it."""

    name: str
    family: Family
    config: type[Settings]
    run: Run
    prove: Prove
    """``prove(before, after, config, inputs)``: at least one claim; ``after`` was saved and read back, ``inputs`` are those that the method got."""
    summary: str
    source: str
    needs: tuple[Need, ...] = ()
    takes: Runtime = "torch"
    gives: Runtime = "torch"
    benchmarks: tuple[str, ...] = LABELLED
    architectures: tuple[str, ...] = ("bert", "roberta", "xlm-roberta", "distilbert")
    shrinks: str = ""
    speeds_up: str = ""
    loses: Callable[[Any, str], bool] | None = None
    """Whether a step with these settings begins with other weights, so that what a step of this name did before it would be lost; such a chain is refused."""
    not_after: Mapping[str, str] = field(default_factory=dict)
    """Methods that may not come before this one, and why; a name that is no method yet does no harm."""
    not_before: Mapping[str, str] = field(default_factory=dict)
    """Methods that may not come after this one, and why."""
    check: Callable[[Any], None] | None = None
    """Raises ``InputError`` when these settings cannot work on this machine or contradict each other; asked before anything runs."""
    check_benchmark: Callable[[Any, str], None] | None = None
    """The same for these settings and what the recipe asks of its models, by the benchmark's name."""
    check_steps: Callable[[Any, Sequence[tuple[str, Settings]]], None] | None = None
    """The same for these settings behind those of the steps before."""


_methods: dict[str, Method] = {}
R = TypeVar("R", bound=Run)


def method(name: str, config: type[Settings], *, family: Family, prove: Prove, source: str, **rest: Any) -> Callable[[R], R]:
    """Register the decorated function as the method ``name``. Its first docstring line is the summary."""

    def register(run: R) -> R:
        if name in _methods:
            raise ValueError(f"two methods are called {name!r}: {_methods[name].run.__module__} and {run.__module__}")
        summary = (run.__doc__ or "").strip().splitlines()[0]
        _methods[name] = Method(name=name, family=family, config=config, run=run, prove=prove, summary=summary, source=source, **rest)
        return run

    return register


def all_methods() -> dict[str, Method]:
    """Every method by name. Importing a module that holds one registers it; there is no list to keep by hand."""
    for module in modules_with_methods():
        importlib.import_module(module)
    return dict(sorted(_methods.items()))


@cache
def modules_with_methods() -> tuple[str, ...]:
    """The modules of the families that register something. The others, a trainer for example, are left alone: they take seconds to import."""
    home = Path(__file__).parent
    files = (file for family in FAMILIES for file in sorted((home / family).rglob("*.py")))
    return tuple(
        ".".join(["recompress", "methods", *file.relative_to(home).with_suffix("").parts]) for file in files if "\n@method(" in file.read_text(encoding="utf-8")
    )


def get_method(name: str) -> Method:
    """Raises ``InputError`` for a name that is not known."""
    known = all_methods()
    if name not in known:
        from recompress.settings.file import unknown

        raise InputError(unknown("method", name, known, "recompress methods lists all"))
    return known[name]
