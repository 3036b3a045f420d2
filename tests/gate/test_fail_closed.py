"""Every way in which what the gate is given can be missing, NaN, empty, stale, short or mismatched: refused, each by its own name. None passes by default."""

from __future__ import annotations

import pytest

from recompress.gate import REASONS, judge
from recompress.gate.reasons import refused
from tests.gate.cases import case, verdict
from tests.gate.spoiled import CASES, SEVERAL, verdict_of


def test_the_case_that_is_spoiled_passes() -> None:
    assert verdict().passed


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name(name: str) -> None:
    reason, outcome = CASES[name][0], verdict_of(name)
    assert not outcome.passed
    assert reason in outcome.reasons
    assert name in SEVERAL or outcome.reasons == (reason,)  # nothing else is blamed
    assert all(finding.detail and "\n" not in finding.detail for finding in outcome.findings)
    assert outcome.digest  # it can go in the ledger, NaN and all


def test_every_reason_has_a_case() -> None:
    assert {reason for reason, _ in CASES.values()} == REASONS.keys()


def test_a_reason_that_nobody_knows_cannot_be_given() -> None:
    with pytest.raises(KeyError):
        refused("x", "because", "x")


@pytest.mark.parametrize("key", ["policy", "candidate", "expected", "spent_loss", "baseline", "champion", "look"])
def test_nothing_that_decides_has_a_default(key: str) -> None:
    everything = case()
    del everything[key]
    with pytest.raises(TypeError):
        judge(**everything)
