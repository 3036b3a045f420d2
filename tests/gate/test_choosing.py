"""Of those that passed, the policy's rule chooses one, the same one every time."""

from __future__ import annotations

from typing import Any

import pytest

from recompress.errors import IntegrityError
from recompress.gate import choose
from recompress.policy import Policy
from recompress.records import Finding, Verdict
from tests.gate.cases import policy, verdict


def among(name: str, *, rules: Policy | None = None, **changes: Any) -> Verdict:
    base = verdict(policy=rules or policy())
    return base.model_copy(update={"candidate": name} | changes)


@pytest.mark.parametrize(
    ("rule", "winner"),
    [("smallest", "tiny"), ("fastest", "quick"), ("best", "good")],
)
def test_the_rule_chooses_among_those_that_passed(rule: str, winner: str) -> None:
    rules = policy(choose=rule)
    failing = (Finding(check="x", passed=False, reason="size-too-large", detail="x"),)
    verdicts = [
        among("tiny", rules=rules, size_bytes=1e6, latency_ratio=2.0, score=0.8),
        among("quick", rules=rules, size_bytes=2e6, latency_ratio=9.0, score=0.8),
        among("good", rules=rules, size_bytes=3e6, latency_ratio=2.0, score=0.9),
        among("refused", rules=rules, size_bytes=1.0, latency_ratio=99.0, score=1.0, passed=False, findings=failing),
    ]
    assert choose(rules, verdicts) == winner
    assert choose(rules, verdicts[::-1]) == winner


def test_nobody_wins_where_nobody_passed() -> None:
    assert choose(policy(), []) is None
    assert choose(policy(), [verdict(spent_loss=None)]) is None


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_was_not_measured_never_wins(value: float | None) -> None:
    assert choose(policy(), [among("a", size_bytes=value), among("b", size_bytes=1e9)]) == "b"


def test_ties_are_settled_the_same_way_every_time() -> None:
    twins = [among("b"), among("a")]
    assert choose(policy(), twins) == choose(policy(), twins[::-1]) == "a"
    assert choose(policy(), [among("a", score=0.7), among("b", score=0.8)]) == "b"
    assert choose(policy(), [among("a", score=0.7, latency_ratio=9.0), among("b", score=0.8)]) == "b"  # the better before the faster


def test_a_few_bytes_or_microseconds_do_not_outweigh_a_point() -> None:
    plain, better = among("plain", size_bytes=7_000_000, latency_ratio=2.0, score=0.75), among("better", size_bytes=7_000_014, latency_ratio=2.0, score=0.77)
    assert choose(policy(), [plain, better]) == "better"
    assert choose(policy(), [plain, among("better", size_bytes=7_080_000, score=0.77)]) == "plain", "more than one in a hundred"
    rules = policy(choose="fastest")
    quick = among("quick", rules=rules, size_bytes=1e6, latency_ratio=2.01, score=0.75)
    assert choose(rules, [quick, among("better", rules=rules, size_bytes=2e6, latency_ratio=2.0, score=0.77)]) == "better"
    assert choose(rules, [quick, among("better", rules=rules, size_bytes=2e6, latency_ratio=1.98, score=0.77)]) == "quick"
    best = policy(choose="best")
    assert choose(best, [among("a", rules=best, score=0.7700, size_bytes=1e6), among("b", rules=best, score=0.7701, size_bytes=9e6)]) == "b"


def test_verdicts_of_another_policy_or_champion_are_not_mixed() -> None:
    with pytest.raises(IntegrityError, match="reached under policy"):
        choose(policy(seed=1), [verdict()])
    with pytest.raises(IntegrityError, match="same baseline and champion"):
        choose(policy(), [among("a"), among("b", champion_sha256="f" * 64)])
    with pytest.raises(IntegrityError, match="two verdicts are about 'a'"):
        choose(policy(), [among("a"), among("a")])
