"""Which of several candidates that passed becomes champion."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Protocol

from recompress.errors import IntegrityError
from recompress.policy import Policy
from recompress.records import Verdict

NEAR = 0.01
"""Sizes, or speeds, that differ by no larger a share are the same to whoever serves a model; among these the better one wins."""


class Ranked(Protocol):
    """What the rule looks at."""

    @property
    def score(self) -> float | None: ...
    @property
    def size_bytes(self) -> float | None: ...
    @property
    def latency_ratio(self) -> float | None: ...


def choose(policy: Policy, verdicts: Iterable[Verdict]) -> str | None:
    """The name of the winner, by the policy's rule; None when nobody passed. Of those that are as small (or as fast) but for one in a hundred the better one wins, then
    the smaller, then the first in the alphabet: a few bytes do not outweigh a point.

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
    passed = [(rank_of(policy, verdict), verdict) for verdict in verdicts if verdict.passed]
    if not passed:
        return None
    first = min(rank[0] for rank, _ in passed)
    near = [(rank, verdict) for rank, verdict in passed if rank[0] <= first + (0 if policy.choose == "best" else NEAR * abs(first))]
    return min(near, key=lambda one: (_known(one[1].score, -1), one[0], one[1].candidate))[1].candidate


def rank_of(policy: Policy, model: Ranked) -> tuple[float, ...]:
    """Smaller is better. What was not measured comes last; ``judge`` refuses a candidate without the value that the rule needs."""
    size, speed, score = _known(model.size_bytes, 1), _known(model.latency_ratio, -1), _known(model.score, -1)
    return {"smallest": (size, score, speed), "fastest": (speed, score, size), "best": (score, size, speed)}[policy.choose]


def _known(value: float | None, sign: int) -> float:
    return sign * value if value is not None and isfinite(value) else float("inf")
