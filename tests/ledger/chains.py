"""Chains for tests: short, varied, and made without a database."""

from __future__ import annotations

from typing import Any

from recompress.ledger import GENESIS, KINDS, Entry, Head
from recompress.ledger.entry import make_entry
from recompress.records import Look, PromotionPlan

BODIES: tuple[dict[str, Any], ...] = (
    {"model": "ner", "data": "d" * 64},
    {"passed": True, "loss": 0.0125, "small": 1e-7, "whole": 3.0},
    {"reason": 'größer als "1"\n\\', "list": [1, None, []]},
    {},
)
SHA = "a" * 64
PLAN = PromotionPlan(
    model="ner",
    author="ada",
    candidate="int8",
    model_sha256=SHA,
    expected=None,
    verdict_sha256=SHA,
    policy_sha256=SHA,
    digests=dict.fromkeys(("data", "base", "recipe", "code"), SHA),
)
BACK = PromotionPlan(
    kind="rollback", model="ner", author="ada", candidate="version 1", model_sha256=SHA, expected=None, version="1", manifest_sha256=SHA, reason="slow"
)
LOOK = Look(key=SHA, model="ner", split="b" * 64, candidate_sha256="c" * 64, number=1, steps={"first": 1, "others": 1}, budget=0.05, level=0.024)
AT = {"key": LOOK.key, "split": LOOK.split}
FILES = {"version": "1", "manifest_sha256": SHA, "model_sha256": SHA}
DECIDED = {"person": "bob", "reason": "phones", "before": SHA}
SAID: dict[str, dict[str, Any]] = {
    "policy-recorded": {"recipe": "r", "policy_sha256": SHA},
    "step-kept": {"key": SHA, "step": "int8/quality", "run": "r", "home": "artifacts/r", "place": "steps/quality/step.json", "sha256": SHA},
    "version-uploading": {"manifest_sha256": SHA, "model_sha256": SHA},
    "key-used": {"name": "recompress", "public": "PEM"},
    "policy-pinned": {**DECIDED, "policy": {}, "policy_sha256": SHA, "signers": {}},
    "policy-unpinned": DECIDED,
    "baseline-accepted": {**DECIDED, "baseline_sha256": SHA, "accepted_sha256": SHA},
    "finalists-named": {**AT, "content": {"finalists": [{"name": "int8", "sha256": "c" * 64}], "others": {"small": "loss-too-large"}, "selection": SHA}},
    "test-look": {**AT, "content": LOOK.as_json()},
    "test-look-result": {**AT, "outcome": "proven"},
    "promotion-proposed": {"alike": PLAN.digest, "plan": PLAN.digest, "content": PLAN.as_json()},
    "rollback": {"alike": BACK.digest, "plan": BACK.digest, "content": BACK.as_json()},
    "promotion-judged": {"verdict": SHA, "metric": "f1", "score": 0.75, "spent_loss_after": 0.01},
    "approval": {"approver": "bob", "expires": "2026-11-21T12:00:00.000000Z", "key": "PEM", "signature": "c2lnbmVk"},
    "rejection": {"reason": "not before Monday"},
    "promotion-approved": {"rule": "none asked for"},
    "promotion-intent": {**FILES, "expected": None, "approval": None, "rows": {"source": "ner/1"}},
    "promotion-alias-moved": {"version": "1"},
    "promotion-verified": FILES,
    "promotion-committed": FILES,
    "promotion-refused": {"reason": "files-refused", "meaning": "a file is bad", "detail": "a file"},
    "promotion-expired": {"expires": "2026-11-21T12:00:00.000000Z"},
    "promotion-withdrawn": {"champion": None},
    "promotion-undo": {"reason": "a file", "expected": None},
    "promotion-rolled-back": {"champion": "1"},
    "alias-moved-outside": {"ledger": "1", "registry": None},
    "source-seen": {"recipe": "ner", "source": "base", "place": "owner/name", "digest": SHA, "revision": "1"},
    "source-not-visible": {"recipe": "ner", "source": "base", "place": "owner/name", "why": "it is gated"},
    "source-waits": {"recipe": "ner", "source": "base", "place": "owner/name", "why": "its licence changed"},
    "watch-looked": {"recipe": "ner", "every_s": 900},
    "watch-run": {"recipe": "ner", "key": SHA, "sources": {"recipe": SHA}, "after": "", "proposal": True, "superseded": []},
    "watch-run-ended": {"recipe": "ner", "key": SHA, "outcome": "promoted", "exit_code": 0, "final": True},
    "people-told": {"about": SHA, "event": "champion changed"},
    "model-exported": {"version": "1", "to": "onnx", "manifest_sha256": SHA},
    "recovery": {"state": "intent", "champion": None, "action": "withdraw"},
}
"""What a record of each kind says that not every kind says."""


def body_of(kind: str, number: int = 0) -> dict[str, Any]:
    """What a record of this kind may say; with ``number`` something else besides."""
    needed = {"plan": PLAN.digest, "model": "ner", **SAID[kind]} if kind in SAID else {}
    return {**BODIES[number % len(BODIES)], **needed}


def chain(length: int, *, actor: str = "ada") -> list[Entry]:
    entries: list[Entry] = []
    head = Head(0, GENESIS)
    for i in range(length):
        kind = list(KINDS)[i % len(KINDS)]
        entries.append(make_entry(head, time=f"2026-11-20T12:00:{i % 60:02d}.000000Z", actor=actor, kind=kind, body=body_of(kind, i)))
        head = entries[-1].head
    return entries


def forge(entries: list[Entry], number: int, **change: Any) -> list[Entry]:
    """A chain whose record ``number`` says something else, with every hash from there on made to fit: what somebody with the database can write."""
    forged = list(entries)
    forged[number - 1] = forged[number - 1]._replace(**change)
    for i in range(number - 1, len(forged)):
        linked = forged[i]._replace(previous=forged[i - 1].hash if i else GENESIS)
        forged[i] = linked._replace(hash=linked.compute_hash())
    return forged
