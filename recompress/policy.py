"""The policy: what a candidate must prove before it may replace the champion, in one file that a person writes.

``read_policy`` refuses whatever is not known, not finite or checks nothing, naming the line. A policy's digest is recorded before anything is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from recompress.integrity.digest import sha256_json
from recompress.settings.base import Settings, as_before
from recompress.settings.file import read_settings

Margin = Annotated[float, Field(gt=0, lt=1)]
"""A loss in points of the metric, absolute: 0.02 lets an F1 of 0.75 fall to 0.73."""

LATER: dict[str, Any] = {"trainings": 1}
"""Dials that came after policies had been recorded, with their defaults."""

TAIL_DRAWS = 10
"""So many bootstrap draws, at least, must lie beyond a bound; fewer make it a matter of luck."""


class Comparison(Settings):
    """How much worse than another model a candidate may be. The one-sided upper bound of its loss must lie inside the margin."""

    margin: Margin
    """The loss permitted on the whole test split."""
    slices: dict[str, Margin] | None = None
    """The loss permitted in each slice. Once given, every slice of the data needs one; Holm's correction holds across them."""

    @field_validator("slices")
    @classmethod
    def _no_empty_list(cls, slices: dict[str, float] | None) -> dict[str, float] | None:
        if slices is not None and not slices:
            raise ValueError("should name at least one slice; leave it out to judge the whole split only")
        return slices


class Examples(Settings):
    """The least number of test examples. The bounds of ``recompress.gate.statistics`` were checked down to 50."""

    overall: Annotated[int, Field(ge=100)] = 300
    per_slice: Annotated[int, Field(ge=50)] = 100


HOW = {"against": ("times_faster", "times_faster_writing"), "caches": ("times_faster",)}
"""Dials of ``Limits`` that limit nothing by themselves, and which ones they speak of."""


class Limits(Settings):
    """What a candidate must reach besides quality. Ratios compare with the baseline; more is better."""

    size_bytes: Annotated[int, Field(gt=0)] | None = None
    """Most bytes on disk of what would be shipped."""
    times_smaller: Annotated[float, Field(gt=0)] | None = None
    """Least size of the baseline divided by size of the candidate."""
    times_faster: Annotated[float, Field(gt=0)] | None = None
    """Least latency of the baseline divided by latency of the candidate, timed side by side; ``against`` and ``caches`` say what that means."""
    times_faster_writing: Annotated[float, Field(gt=0)] | None = None
    """Least time that the baseline takes for a token behind the first divided by the candidate's, timed side by side; for models that write."""
    peak_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    """Most memory used while predicting, loading included."""
    steady_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    """Most memory that stays taken while the model is served."""
    latency_p95_ms: Annotated[float, Field(gt=0)] | None = None
    """Most milliseconds for one of the longer texts, on the machine that ``machine`` names."""
    throughput_per_s: Annotated[float, Field(gt=0)] | None = None
    """Least texts answered in a second, in batches, on the machine that ``machine`` names."""
    machine: dict[str, str] | None = None
    """The class of machine that ``latency_p95_ms`` and ``throughput_per_s`` hold for: facts as ``recompress doctor --json`` gives them, e.g. ``processor``."""
    against: Literal["runtime", "torch", "onnx"] = "runtime"
    """Where the baseline answers that ``times_faster`` and ``times_faster_writing`` compare with, in full precision: in the candidate's own runtime, in torch, or in ONNX Runtime."""
    caches: Literal["hot", "cold"] = "hot"
    """Whether ``times_faster`` speaks of a steady stream of texts, or of single ones after other work had the processor's caches."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("steady_memory_bytes", "latency_p95_ms", "throughput_per_s", "machine", "times_faster_writing", *HOW))

    @property
    def asked(self) -> dict[str, Any]:
        """What is limited, by the name of its dial."""
        return {name: value for name in type(self).model_fields if name not in HOW and (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _a_ratio_where_it_is_said_how(self) -> Limits:
        for said in self.model_fields_set & HOW.keys():
            if all(getattr(self, ratio) is None for ratio in HOW[said]):
                raise ValueError(f"{said} says what {' and '.join(HOW[said])} compares with, and that is not there; leave it out")
        return self

    @model_validator(mode="after")
    def _a_machine_where_it_matters(self) -> Limits:
        absolute = self.latency_p95_ms is not None or self.throughput_per_s is not None
        if absolute and not self.machine:
            raise ValueError("latency_p95_ms and throughput_per_s hold for a machine; name it under machine, e.g. {processor: AMD EPYC 7763}")
        if self.machine is not None and not absolute:
            raise ValueError("machine names where latency_p95_ms or throughput_per_s hold, and neither is there; leave it out")
        return self


class Approval(Settings):
    """Whether a person has to agree before the alias moves. ``approval: required`` is short for ``approval: {mode: required}``."""

    mode: Literal["none", "required"] = "none"
    expires_after_hours: Annotated[float, Field(gt=0, le=8760)] = 72.0
    """An approval or a waiting plan that is older counts no more."""
    not_the_author: bool = False
    """The approver must be someone else than whoever started the run."""
    signed: bool = False
    """The approval must carry a signature of the approver's key."""


class Policy(Settings):
    """A whole policy. Both comparisons are needed: there is no policy that lets a model through unmeasured."""

    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
    """The metric that is judged, e.g. ``f1`` or ``accuracy``; more is better."""
    at_least: Annotated[float, Field(lt=1, allow_inf_nan=False)] | None = None
    """The least value of the metric, for baseline and candidate: the one-sided lower bound of each must reach it. Above 0, or below it for a metric that is
    negative by its name (``negative_bits_per_byte``)."""
    baseline: Comparison
    """Against the uncompressed model of the same run."""
    champion: Comparison
    """Against the model that is in production now."""
    loss_budget: Margin
    """The most that all promotions since the first may have lost together, counting for each the loss that its sample could not rule out."""
    confidence: Annotated[float, Field(ge=0.9, lt=1)] = 0.95
    """Of every one-sided bound."""
    power: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    """A sample is too small for a margin when a candidate that loses nothing would pass less often than this."""
    draws: Annotated[int, Field(ge=1000, le=1_000_000, validate_default=True)] = 10_000
    """Bootstrap draws."""
    seed: Annotated[int, Field(ge=0)] = 0
    first_promotion: Literal["allowed", "refused"] = "refused"
    """Whether a model may become champion where there is none to compare it with."""
    min_examples: Examples = Examples()
    finalists: Annotated[int, Field(ge=1, le=20)] = 3
    """At most so many variants of a recipe are judged on the test split; the others are compared on the dev split only."""
    trainings: Annotated[int, Field(ge=1, le=20)] = 1
    """Baseline and finalists are trained so many times, with seeds that follow from the recipe's. The verdict then speaks of the recipe; the first is promoted."""
    limits: Limits | None = None
    choose: Literal["smallest", "fastest", "best"]
    """Which of several that pass becomes champion."""
    approval: Approval = Approval()

    @model_validator(mode="before")
    @classmethod
    def _short_approval(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("approval"), str):
            return values | {"approval": {"mode": values["approval"]}}
        return values

    @field_validator("at_least")
    @classmethod
    def _a_floor_that_can_be_reached_and_missed(cls, floor: float | None, info: Any) -> float | None:
        metric = str(info.data.get("metric", ""))
        negative = metric.startswith("negative_")
        if floor is not None and (floor >= 0 if negative else floor <= 0):
            where = "below 0, because no value of it lies above" if negative else "above 0, because no value of it lies below"
            raise ValueError(f"should lie {where}, got {floor:g} for {metric}")
        return floor

    @field_validator("loss_budget")
    @classmethod
    def _room_for_one_step(cls, budget: float, info: Any) -> float:
        champion = info.data.get("champion")
        if champion is not None and budget < champion.margin:
            raise ValueError(f"should be at least champion.margin ({champion.margin}): one promotion may lose that much")
        return budget

    @field_validator("draws")
    @classmethod
    def _enough_draws(cls, draws: int, info: Any) -> int:
        sides = [info.data[name] for name in ("baseline", "champion") if name in info.data]
        tests = max([len(side.slices or ()) for side in sides] + [1])
        tail = 1 - info.data.get("confidence", 0.95)
        if draws * tail / tests < TAIL_DRAWS:
            raise ValueError(f"should be at least {int(-(-TAIL_DRAWS * tests // tail)):,} at this confidence with {tests} slices")
        return draws

    @field_validator("limits")
    @classmethod
    def _some_limit(cls, limits: Limits | None) -> Limits | None:
        if limits is not None and not limits.asked:
            raise ValueError("should hold at least one limit; leave it out to judge quality only")
        return limits

    @field_validator("approval")
    @classmethod
    def _approval_that_matters(cls, approval: Approval) -> Approval:
        if approval.mode == "none" and (approval.model_fields_set - {"mode"}):
            raise ValueError("says who may approve, but mode is none; write mode: required or leave the rest out")
        return approval

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("at_least", "finalists", "trainings"))

    @property
    def alpha(self) -> float:
        """The error rate of every one-sided bound."""
        return 1 - self.confidence

    @property
    def sha256(self) -> str:
        """The digest of everything that the policy says, defaults included, but for those of dials that came later: a policy keeps its digest when the tool is renewed."""
        return sha256_json(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Everything that the policy says."""
        return self.model_dump(mode="json")


def read_policy(path: Path) -> Policy:
    """Read and check a policy. Raises ``InputError`` that names the key, the value, the limit and the line."""
    return read_settings(path, Policy)
