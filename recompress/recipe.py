"""The recipe: every dial of one recompression, in one file that a person writes.

``read_recipe`` refuses whatever is not known or not possible before anything runs, naming the line and the nearest right word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_serializer, model_validator

from recompress.benchmarks import Benchmark, BenchmarkName, dials_of, get_benchmark
from recompress.errors import InputError
from recompress.integrity.digest import sha256_json
from recompress.methods.known_chains import KnownChains
from recompress.methods.steps import Step, read_steps
from recompress.policy import Policy, read_policy
from recompress.settings.base import Settings, Sha256, Slug, as_before
from recompress.settings.file import SettingsFile
from recompress.training.settings import TrainingSettings


class Waiver(Settings):
    """A defect of the data that this recipe accepts, by name and with a reason."""

    check: str
    """The check's name, as the page of data checks shows it."""
    slice: str | None = None
    """Only in this slice; everywhere when left out."""
    reason: Annotated[str, Field(min_length=10)]
    """Why the defect does no harm here. Printed wherever the check would have been."""


class DatasetChoice(Settings):
    """Which prepared data set, and which of its slices."""

    name: Slug
    """A data set with a ``prepare`` stage in ``dvc.yaml``."""
    slices: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Slices to use (languages, for example); all when left out."""
    train_examples: Annotated[int, Field(ge=1)] | None = None
    """Learn from at most so many examples of each slice, drawn with the recipe's seed; from all when left out. Dev and test stay whole."""
    waive: tuple[Waiver, ...] = ()
    unlabelled: Slug | None = None
    """A prepared data set of plain text that distillation may learn from besides the labelled one."""


class BaseChoice(Settings):
    """The pretrained model, pinned."""

    model: str
    """``package://package/folder``, a folder, a hub id, or ``models:/name@alias``. A GGUF file is named as the file that it is: ``package://package/file.gguf``, or
    one here."""
    revision: str | None = None
    """The commit of a hub id; refused as a branch name, because branches move."""
    sha256: Sha256 | None = None
    """The digest of ``model.safetensors``, or of the GGUF file; the base is refused when its weights have another."""


class BaselineChoice(TrainingSettings):
    """The uncompressed model: how the base is fine-tuned, or a model that is fine-tuned already."""

    model: str | None = None
    """A model that is fine-tuned already: a folder, a hub id, ``package://package/folder``, a GGUF file or ``models:/name@alias``. It is taken as it is, with its
    labels, its tokenizer and its longest sequence, and no dial of training is set; ``max_length`` may make that shorter."""
    revision: str | None = None
    """The commit of a hub id."""
    sha256: Sha256 | None = None
    """The digest of its ``model.safetensors``."""

    @property
    def longest(self) -> int | None:
        """The longest sequence of a model that is given, where the recipe makes it shorter than the model's own."""
        return self.max_length if self.model is not None and "max_length" in self.model_fields_set else None

    @property
    def given(self) -> BaseChoice | None:
        return None if self.model is None else BaseChoice(model=self.model, revision=self.revision, sha256=self.sha256)

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        """What says nothing is not written: dials beside a model that is given, and pins where none is, which is what recipes were before there were any."""
        pins = ("model", "revision", "sha256")
        shown = pins if self.longest is None else (*pins, "max_length")
        return as_before(self, write(self), pins) if self.model is None else {name: value for name, value in write(self).items() if name in shown}

    @model_validator(mode="after")
    def _trained_or_given(self) -> BaselineChoice:
        pins = {"revision", "sha256"}
        dials = sorted(self.model_fields_set - pins - {"model", "max_length"})
        if self.model is not None and dials:
            raise ValueError(f"names a model that is trained already, so {', '.join(dials)} would change nothing; leave that out, or the model")
        if self.model is None and self.model_fields_set & pins:
            raise ValueError("pins a model and names none; write model: as well, or pin the base under base:")
        return self


class RegisterChoice(Settings):
    """Where the winner goes."""

    model: Slug
    """The name of the registered model whose alias ``champion`` is moved."""


RESERVED = {
    "baseline": "the uncompressed model",
    "champion": "the model in production, which is measured beside the variants",
    "accepted-baseline": "the baseline behind the last promotion, which is measured beside the variants",
}
"""Names that a run gives to models which are no variants."""


class Recipe(Settings):
    """A whole recipe. ``variants`` maps a name to its steps, in order."""

    name: Slug
    benchmark: BenchmarkName
    dataset: DatasetChoice
    base: BaseChoice
    seed: int = 0
    """Every random choice follows from it: the head's first weights, the order of examples, the draws of the bootstrap."""
    answering: dict[str, Any] = {}
    """Dials of the benchmark, for one that has some: how a model is asked, and which answer is taken. Every model of the recipe keeps them."""
    baseline: BaselineChoice
    """How the uncompressed model is fine-tuned, or which one is fine-tuned already."""
    variants: Annotated[dict[Slug, tuple[dict[str, object], ...]], Field(min_length=1)]
    policy: str
    """The policy file, relative to the project's folder."""
    register_: Annotated[RegisterChoice, Field(alias="register")]

    @property
    def measured_on(self) -> Benchmark:
        """The benchmark, with the dials that the recipe sets."""
        return get_benchmark(self.benchmark, self.answering)

    @property
    def kept_dials(self) -> dict[str, Any]:
        """All dials of the benchmark, for models to keep; none where it has none."""
        return dict(getattr(self.measured_on, "answering", {}))

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("answering",))

    @field_validator("variants")
    @classmethod
    def _no_reserved_names(cls, variants: dict[str, object]) -> dict[str, object]:
        for name, what in RESERVED.items():
            if name in variants:
                raise ValueError(f"{name!r} is the name of {what}; call the variant something else")
        return variants


class Plan:
    """A recipe that was read, with its policy and its steps resolved. ``sha256`` is the digest of everything that was said."""

    def __init__(self, path: Path, recipe: Recipe, steps: dict[str, tuple[Step, ...]], policy: Policy) -> None:
        self.path = path
        self.recipe = recipe
        self.steps = steps
        self.policy = policy

    @property
    def as_json(self) -> dict[str, object]:
        document = self.recipe.model_dump(mode="json", by_alias=True)
        return document | {"variants": {name: [step.as_json for step in chain] for name, chain in self.steps.items()}}

    @property
    def sha256(self) -> str:
        return sha256_json(self.as_json)


def read_recipe(path: Path, root: Path, known: KnownChains | None = None) -> Plan:
    """Read and check a recipe and its policy. ``root`` is the project's folder. Raises ``InputError``; nothing is run or written.

    ``known`` may hold chains of steps that were read before, and learns those that were not."""
    file = SettingsFile(path)
    _complete_base(file)
    recipe = file.read_as(Recipe)
    _check_answering(file, recipe)
    steps = {name: _steps(file, name, recipe.benchmark, known) for name in recipe.variants}
    _check_teachers(file, steps)
    for key, choice in (("base", recipe.base), ("baseline", recipe.baseline.given)):
        if choice is not None:
            _check_base(file, choice, key)
    policy_path = (root / recipe.policy).resolve()
    if not policy_path.is_relative_to(root.resolve()):
        raise InputError(f"policy {recipe.policy!r} lies outside the project ({file.where(('policy',))})")
    if not policy_path.is_file():
        raise InputError(f"policy {recipe.policy!r} does not exist ({file.where(('policy',))})")
    return Plan(path, recipe, steps, read_policy(root / recipe.policy))


def _check_answering(file: SettingsFile, recipe: Recipe) -> None:
    dials = dials_of(recipe.benchmark)
    if recipe.answering and dials is None:
        raise InputError(f"{recipe.benchmark} has no dials of its own; leave answering out ({file.where(('answering',))})")
    if recipe.answering and dials is not None:
        file.read_as(dials, ("answering",))


def _steps(file: SettingsFile, variant: str, benchmark: str, known: KnownChains | None) -> tuple[Step, ...]:
    """The steps of one variant, as they were read before or read now."""
    written = file.values["variants"][variant]
    found = None if known is None else known.recall(benchmark, written)
    steps = found or read_steps(file, variant, benchmark)
    if known is not None and found is None:
        known.keep(benchmark, written, steps)
    return steps


def _check_teachers(file: SettingsFile, steps: dict[str, tuple[Step, ...]]) -> None:
    """A variant that teaches must be there before the one that learns from it, and answer on torch, where a student can ask it."""
    above: list[str] = []
    for variant, chain in steps.items():
        for i, step in enumerate(chain):
            teacher = getattr(step.config, "teacher", None)
            where = file.where(("variants", variant, i, step.method, "teacher"))
            if teacher is None:
                continue
            if teacher not in above:
                raise InputError(
                    f"teacher {teacher!r} is no variant above {variant!r} ({', '.join(above) or 'there is none'}); "
                    f"name one that stands above, or leave teacher out for the baseline ({where})"
                )
            last = steps[teacher][-1]
            if last.gives != "torch":
                raise InputError(f"teacher {teacher!r} ends with {last.method}, on {last.gives}; name a variant that ends on torch ({where})")
        above.append(variant)


def _complete_base(file: SettingsFile) -> None:
    """A model that is fine-tuned already is its own base, where no other is named."""
    baseline = file.values.get("baseline") if isinstance(file.values, dict) else None
    if isinstance(baseline, dict) and "model" in baseline and "base" not in file.values:
        file.values["base"] = {key: baseline[key] for key in ("model", "revision", "sha256") if key in baseline}
        file.lines["base",] = file.lines["baseline",]


def _check_base(file: SettingsFile, base: BaseChoice, key: str) -> None:
    if base.revision is not None and not (len(base.revision) == 40 and set(base.revision) <= set("0123456789abcdef")):
        raise InputError(f"{key}.revision is a full commit of 40 hex digits, got {base.revision!r} ({file.where((key, 'revision'))})")
    if base.model.startswith("package://") and base.sha256 is None:
        raise InputError(f"{key}.sha256 is missing: a model from a package is pinned by its digest ({file.where((key,))})")
