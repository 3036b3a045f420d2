"""Which of several candidates that passed becomes champion."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Protocol

from recompress.errors import IntegrityError
from recompress.policy import Policy
from recompress.records import Verdict


class Ranked(Protocol):
    """What the rule looks at."""

    @property
    def score(self) -> float | None: ...
    @property
    def size_bytes(self) -> float | None: ...
    @property
    def latency_ratio(self) -> float | None: ...


def choose(policy: Policy, verdicts: Iterable[Verdict]) -> str | None:
    """The name of the winner, by the policy's rule; None when nobody passed. Ties go to the better, then the smaller, then the first in the alphabet.

    Raises ``IntegrityError`` when a verdict was reached under another policy or against another champion, or when two verdicts have one name.
    """
    verdicts = list(verdicts)
    names = [verdict.candidate for verdict in verdicts]
    if len(set(names)) < len(names):
        raise IntegrityError(f"two verdicts are about {max(names, key=names.count)!r}; one each is expected")
    for verdict in verdicts:
        if verdict.policy_sha256 != policy.sha256:
            raise IntegrityError(f"the verdict about {verdict.candidate!r} was reached under policy {verdict.policy_sha256[:12]}…, not {policy.sha256[:12]}…")
    if len({(verdict.champion_sha256, verdict.dataset_sha256, verdict.baseline_sha256) for verdict in verdicts}) > 1:
        raise IntegrityError("the verdicts were not reached on the same data against the same baseline and champion; judge all candidates again")
    ranked = sorted((rank_of(policy, verdict), verdict.candidate) for verdict in verdicts if verdict.passed)
    return ranked[0][1] if ranked else None


def rank_of(policy: Policy, model: Ranked) -> tuple[float, ...]:
    """Smaller is better. What was not measured comes last; ``judge`` refuses a candidate without the value that the rule needs."""
    size, speed, score = _known(model.size_bytes, 1), _known(model.latency_ratio, -1), _known(model.score, -1)
    return {"smallest": (size, score, speed), "fastest": (speed, score, size), "best": (score, size, speed)}[policy.choose]


def _known(value: float | None, sign: int) -> float:
    return sign * value if value is not None and isfinite(value) else float("inf")
