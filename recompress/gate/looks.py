"""May this candidate be compared on the test split, and did the comparison prove it? Each doubt is a refusal with a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from recompress.gate.measured import Expected
from recompress.gate.reasons import passed, refused
from recompress.policy import Policy
from recompress.records import Finding, Look, Verdict


def check_look(policy: Policy, look: Look | None, expected: Expected) -> Finding:
    """One finding: the look is recorded, it is for this candidate on this split, and its level is inside what the policy allows."""
    check = "look"
    if expected.candidate_sha256 not in expected.finalists:
        return refused(check, "not-a-finalist", f"{len(expected.finalists)} finalists were named before the test split was looked at, and this is none of them")
    if look is None:
        return refused(check, "look-missing", "the ledger holds no look at the test split for this candidate; one is recorded before it is judged")
    if (look.candidate_sha256, look.split) != (expected.candidate_sha256, expected.split_sha256):
        about = f"candidate {look.candidate_sha256[:12]}… on test split {look.split[:12]}…"
        return refused(check, "look-mismatch", f"look {look.number} is for {about}, not for {expected.candidate_sha256[:12]}… on {expected.split_sha256[:12]}…")
    if not 0 < look.level <= look.budget <= policy.alpha:
        levels = f"level {look.level:.4g} of a budget of {look.budget:.4g}"
        return refused(
            check, "look-mismatch", f"look {look.number} has {levels}, the policy allows {policy.alpha:.4g}", measured=look.level, limit=policy.alpha
        )
    return passed(check, tell_look(look), measured=look.level, limit=look.budget)


PROOF = ("inputs", "look", "loss", "sample", "recipe-loss", "recipe-sample", "floor")
"""What is judged at the level of a look: only where all of it passed is the level given back."""


def tell_look(look: Look) -> str:
    """``look 4 at this test split for ner, judged at 0.41 % of the 5 % that all its looks share``."""
    return (
        f"look {look.number} at this test split for {look.model}, judged at {100 * look.level:.3g} % of the {100 * look.budget:.3g} % that all its looks share"
    )


def check_not_refused_before(expected: Expected, findings: Iterable[Finding]) -> Iterator[Finding]:
    """A refusal where the same look was refused before and would pass now, e.g. by other code: a look is not had twice."""
    if expected.refused_before and _proves(findings):
        yield refused("look", "look-refused-before", "this very comparison was judged before and refused; only fresh test data can change that")


def is_proven(verdict: Verdict) -> bool:
    """Whether the look proved that the candidate loses less than every margin, whatever else it may have been refused for: then the look cost nothing."""
    return bool(verdict.losses) and _proves(verdict.findings)


def _proves(findings: Iterable[Finding]) -> bool:
    return all(finding.passed for finding in findings if finding.check.partition("-against-")[0].partition("/")[0] in PROOF)
