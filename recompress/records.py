"""What tasks hand to each other: small frozen records, never tensors or models.

A reference is a uri and a digest. The uri says where the bytes may be fetched; the digest says what they must be, and whoever fetches compares.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from recompress.integrity.digest import sha256_json
from recompress.settings.base import Sha256, Slug, as_before

Split = Literal["train", "dev", "test"]
Runtime = Literal["torch", "packed", "onnx", "gguf", "genai"]
"""What a model runs on. ``packed`` is torch with weights in few bits, which no further step can change; ``gguf`` is llama.cpp, ``genai`` ONNX
Runtime GenAI."""
DIGESTS = {"data", "base", "recipe", "code"}
"""What every promotion says it was made from."""


class Record(BaseModel):
    """A frozen record with one JSON form and one digest."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", ser_json_inf_nan="strings")
    LATER: ClassVar[tuple[str, ...]] = ()
    """Fields that a later version added: not written while they hold their default, so that records from before keep their digest."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), self.LATER)

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.model_dump_json())  # through text, where NaN is "NaN": a refusal of NaN has a digest too
        return values

    @property
    def digest(self) -> str:
        return sha256_json(self.as_json())


class DatasetRef(Record):
    """Prepared, frozen splits: ``train.parquet``, ``dev.parquet``, ``test.parquet`` in one directory, pinned in ``dvc.lock``."""

    name: str
    benchmark: str
    uri: str
    sha256: Sha256
    """Digest of the directory, as ``recompress.integrity.digest.sha256_directory`` gives it."""
    md5: str
    """What DVC calls the same bytes (``….dir``)."""
    labels: tuple[str, ...]
    slices: tuple[str, ...]
    rows: dict[str, int]
    """Examples in each split, after the choice of slices."""
    unlabelled: tuple[str, Sha256] | None = None
    """Directory and digest of a prepared text data set (one ``text`` column), where the recipe names one."""
    train_draw: tuple[int, int] | None = None
    """At most so many training examples of each slice, and the seed that they are drawn with; all of them when ``None``."""
    unlabelled_draw: tuple[int, int] | None = None
    """At most so many of the unlabelled examples, and the seed that they are drawn with."""

    @property
    def training_digests(self) -> list[str]:
        """What depends on the labelled training text depends on these."""
        drawn = [] if self.train_draw is None else [f"at most {self.train_draw[0]} of each slice, seed {self.train_draw[1]}"]
        return [self.sha256, *self.slices, *drawn]

    @property
    def text_digests(self) -> list[str]:
        """What depends on the labelled and the unlabelled training text depends on these."""
        if self.unlabelled is None:
            return self.training_digests
        drawn = [] if self.unlabelled_draw is None else [f"at most {self.unlabelled_draw[0]} unlabelled, seed {self.unlabelled_draw[1]}"]
        return [*self.training_digests, self.unlabelled[1], *drawn]


class ModelRef(Record):
    """A model directory: weights, tokenizer, configuration and ``recompress.json``."""

    name: str
    kind: Literal["base", "baseline", "variant"]
    uri: str
    sha256: Sha256
    runtime: Runtime = "torch"
    steps: tuple[str, ...] = ()
    """Names of the steps that made it from the baseline, in order."""


class Evaluation(Record):
    """What was measured on one model. Units stand in the metrics' names; ratios are baseline divided by this model, so that more is better."""

    LATER = ("rounds", "load")
    model: str
    model_sha256: Sha256
    dataset_sha256: Sha256
    metrics: dict[str, float]
    """The benchmark's metrics on the whole test split, and ``parameters``, ``size_bytes``, ``peak_memory_bytes``, ``steady_memory_bytes``, ``latency_p50_ms`` …"""
    slices: dict[str, dict[str, float]]
    """The benchmark's metrics for each slice."""
    types: dict[str, dict[str, float]] = {}
    """The benchmark's metrics for each label or entity type."""
    predictions_uri: str = ""
    """A Parquet file with a row for each test example: ``example``, ``slice``, ``reference``, ``prediction`` and the ``counts`` that metrics add up."""
    predictions_sha256: str = ""
    machine: dict[str, str] = {}
    """Processor, cores, threads used, operating system and library versions: latencies hold for these only."""
    rounds: dict[str, tuple[float, ...]] = {}
    """What each interleaved round gave for a metric of speed or memory: what its bound is taken from."""
    load: dict[str, float] = {}
    """What else the machine did while it was timed: ``processor_share``, ``steal_share``, ``switches_per_s``."""


class Finding(Record):
    """One thing that the gate looked at."""

    check: str
    """Stable name, e.g. ``loss-against-baseline`` or ``loss-against-baseline/swa``."""
    passed: bool
    reason: str = ""
    """Why it was refused, a name of ``recompress.gate.REASONS``; empty when it passed."""
    measured: float | None = None
    limit: float | None = None
    detail: str
    """One line for people."""


class Loss(Record):
    """How much worse a candidate is than another model, on the whole test split or in one slice. Losses are in points of the metric, 0 to 1."""

    LATER = ("groups", "worth", "trainings")
    against: Literal["baseline", "champion"]
    slice: str = ""
    """Empty for the whole split."""
    examples: int
    candidate: float
    """The candidate's metric."""
    other: float
    loss: float
    """``other - candidate``; negative where the candidate is better."""
    upper: float
    """One-sided upper bound of the loss at ``confidence``."""
    confidence: float
    """Of the bound: the policy's, or Holm's for a slice."""
    margin: float
    p_value: float
    """Of "the true loss is the margin or more"."""
    p_adjusted: float
    """The same after Holm's correction across slices."""
    smallest_detectable: float
    """The smallest margin at which a candidate that loses nothing would pass as often as the policy's ``power`` asks."""
    undefined: float = 0.0
    """Share of bootstrap draws in which the metric had an empty denominator."""
    mcnemar_p: float | None = None
    """Exact two-sided p-value that both models are right equally often, where the metric is accuracy and no groups are named. For information."""
    groups: int = 0
    """Groups of examples that were drawn; 0 where the data names none."""
    worth: float | None = None
    """How many groups of equal size these are worth, where the data names groups."""
    trainings: tuple[float, ...] = ()
    """The loss of each training, where the recipe is judged by several: ``loss``, ``candidate`` and ``other`` are means over them."""


class Training(Record):
    """A further training of baseline and candidate that a verdict on a recipe stands on."""

    seed: int
    candidate_sha256: Sha256
    baseline_sha256: Sha256
    candidate: float
    """The candidate's metric on the whole split."""
    baseline: float
    evaluations: tuple[Sha256, Sha256]
    """Digests of the two ``Evaluation``s, candidate first."""


class Trial(Record):
    """What dev says of one variant."""

    name: str
    sha256: Sha256
    score: float | None
    size_bytes: float | None
    latency_ratio: float | None
    loss: float | None = None
    """Against the baseline, on the whole dev split."""
    room: float | None = None
    inside: bool = False
    """Whether its bound lies inside every margin on dev as well."""
    place: int | None = None
    """Its turn on the test split, from 1; ``None`` for one that is not judged."""
    reason: str = ""
    """Why it is not judged, a name of ``recompress.gate.REASONS``."""
    detail: str = ""
    """One line for people."""


class Selection(Record):
    """All variants of a recipe on the dev split, in the order of the recipe."""

    examples: int
    """In the dev split."""
    trials: tuple[Trial, ...]

    @property
    def finalists(self) -> tuple[Trial, ...]:
        """In the order in which they are judged."""
        return tuple(sorted((trial for trial in self.trials if trial.place is not None), key=lambda trial: trial.place or 0))


class Look(Record):
    """One look at a test split: the ledger holds it before its verdict is reached. ``recompress.gate.levels`` says at what level it is judged."""

    key: Sha256
    """Digest of everything that is compared: the same again is the same look."""
    model: Slug
    """The registered model. Looks at one test split are counted for each."""
    split: Sha256
    """Digest of the whole test split, as ``tasks.ledger.looks.split_digest`` gives it."""
    candidate_sha256: Sha256
    number: int
    """Counts the looks at this split for this model, from 1."""
    steps: dict[str, int]
    """On which step of which ladder it stands."""
    budget: float
    """The chance of one false pass or more that all looks at this split share."""
    level: float
    """The part of it at which this one is judged: the error rate of every one-sided bound."""


class Verdict(Record):
    """What the gate said of one candidate, and of which bytes. The same inputs give the same verdict again."""

    LATER = ("accepted_baseline_sha256", "look", "trainings")
    candidate: str
    passed: bool
    findings: tuple[Finding, ...]
    losses: tuple[Loss, ...] = ()
    metric: str
    score: float | None = None
    """The candidate's value of ``metric``."""
    size_bytes: float | None = None
    latency_ratio: float | None = None
    smallest_detectable_loss: float | None = None
    """On the whole split, the larger of the two comparisons."""
    first_promotion: bool
    spent_loss: float | None = None
    """Loss that earlier promotions have used up of the policy's ``loss_budget``."""
    spent_loss_after: float | None = None
    """The same once this candidate is promoted: what the next judgement is to be given."""
    policy_sha256: Sha256
    dataset_sha256: Sha256
    candidate_sha256: Sha256
    baseline_sha256: Sha256
    champion_sha256: Sha256 | None
    accepted_baseline_sha256: Sha256 | None = None
    """The baseline behind the last promotion; ``None`` when nothing was promoted before."""
    pairing_sha256: str = ""
    """Digest of the test examples, their slices and references, in order: the same for all models that were compared."""
    evaluations: dict[str, Sha256]
    """Digest of the ``Evaluation`` of the candidate, the baseline and the champion."""
    computed_with: dict[str, str] = {}
    """Versions of the libraries that drew the bootstrap."""
    look: Look | None = None
    """The look at the test split that it was reached with; ``None`` only in verdicts from before looks were counted."""
    trainings: tuple[Training, ...] = ()
    """The further trainings, where the policy asks for several. The one that is promoted is the first, whatever the others gave."""

    @model_validator(mode="after")
    def _nothing_passes_by_default(self) -> Verdict:
        if self.passed != (bool(self.findings) and all(finding.passed for finding in self.findings)):
            raise ValueError("a verdict passes when it has findings and every one of them passed, and only then")
        if any(finding.passed == bool(finding.reason) for finding in self.findings):
            raise ValueError("a refused finding names its reason, and a passed one has none")
        return self

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of why it was refused, without repeats; empty when it passed."""
        return tuple(dict.fromkeys(finding.reason for finding in self.findings if not finding.passed))


class ChampionRef(Record):
    """The version that is in production."""

    version: str
    model_sha256: Sha256 | None
    """Digest of its model directory; ``None`` for a version that was not made here."""


class ApprovalRule(Record):
    """Whether a person has to agree, and who may."""

    required: bool = False
    expires_after_hours: float = 72.0
    """An approval counts no longer than this, and a plan waits no longer for one."""
    not_the_author: bool = False
    signed: bool = False
    signers: dict[str, str] = {}
    """The public key (PEM) of each person who may sign. An approval by one of them must carry that key's signature."""


class PromotionPlan(Record):
    """What shall become champion, instead of what, and on which evidence. Its digest is what people approve."""

    kind: Literal["promotion", "rollback"] = "promotion"
    model: Slug
    """The registered model whose alias ``champion`` shall move."""
    author: str
    candidate: str
    """What people call it, e.g. the variant's name."""
    model_sha256: Sha256
    """Digest of the candidate's model directory."""
    expected: ChampionRef | None
    """The champion that the verdict was made against; ``None`` when there was none. Another one, by then, is a refusal."""
    verdict_sha256: Sha256 | None = None
    policy_sha256: Sha256 | None = None
    digests: dict[Slug, Sha256] = {}
    """What it was made from, and by what: ``data``, ``base``, ``recipe``, ``code`` …"""
    facts: dict[Slug, str] = {}
    """What else the version's tags say, e.g. ``git_commit``, ``data_md5``, ``base_revision``."""
    approval: ApprovalRule = ApprovalRule()
    version: str | None = None
    """Rollback: the version that shall be champion again."""
    manifest_sha256: Sha256 | None = None
    """Rollback: the digest of that version's files."""
    reason: str = ""
    """Rollback: why."""
    attempt: int = 1
    """Counts plans that are alike but for this: the second begins after the first has ended."""

    @model_validator(mode="after")
    def _complete(self) -> PromotionPlan:
        if self.kind == "promotion" and (self.verdict_sha256 is None or self.policy_sha256 is None or not self.digests.keys() >= DIGESTS):
            raise ValueError(f"a promotion names its verdict, its policy and the digests of {', '.join(sorted(DIGESTS))}")
        if self.kind == "rollback" and (self.version is None or self.manifest_sha256 is None or not self.reason.strip()):
            raise ValueError("a rollback names a version, the digest of its files, and a reason")
        return self
