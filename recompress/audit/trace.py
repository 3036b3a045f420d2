"""From an alias alone to everything that the version behind it was made from, by the ledger; what the registry's tags say is compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recompress.audit.history import MOVES, reigns
from recompress.errors import InputError, IntegrityError, StorageError
from recompress.evidence.dossier import committed_plans, origin_of
from recompress.ledger import Entry
from recompress.promotion.registry import MANIFEST_TAG, MODEL_TAG
from recompress.promotion.states import Progress
from recompress.records import Look, PromotionPlan, Record
from recompress.watch.story import story_of

UNTIL_COMMITTED = ("promotion-intent", "promotion-alias-moved", "promotion-verified", "promotion-committed", "promotion-refused", *MOVES)
"""Records that tell how far a promotion is; after one of the first three it is not at its end."""


class Trace(Record):
    """One version, from where it came and who let it go."""

    model: str
    version: str
    candidate: str
    promoted_at: str
    promoted_by: str
    plan_sha256: str
    model_sha256: str
    manifest_sha256: str
    data: dict[str, str]
    base: dict[str, str]
    code: dict[str, str]
    recipe: dict[str, str]
    steps: str
    metric: str
    score: float | None
    metrics: dict[str, float] = {}
    """Everything that was measured on it, where the evidence is at hand."""
    policy_sha256: str
    verdict_sha256: str
    look: Look | None = None
    """The look at the test split by which it was judged; ``None`` for versions from before looks were counted."""
    looks: int = 0
    """How many looks that test split has had for this model by now."""
    split_left: str = ""
    """What they have left of it, in words, where the evidence is at hand."""
    author: str
    approver: str | None
    """``None`` where the policy asked for nobody."""
    approved_at: str | None = None
    instead_of: str | None
    rollback: str = ""
    """Why it was put back, where it was."""
    watched: tuple[str, ...] = ()
    """How a watch came to it, from what it saw on; empty where a person ran the recipe."""
    ledger_head: str
    disagreements: tuple[str, ...] = ()
    """Where the registry says something else than the ledger."""


def find_plan(entries: list[Entry], model: str, version: str, *, by_alias: bool = False) -> Progress:
    """The latest promotion or rollback that made this version champion. Raises ``InputError`` when there was none.

    With ``by_alias`` the registry calls it the champion; then it is an ``IntegrityError``, because somebody made it that without the ledger. While its promotion is
    not at its end (its files are read back after the alias has moved, which takes a while over a network) that is a ``StorageError``.
    """
    promotions = [progress for progress in committed_plans(entries, model) if progress.said("promotion-committed")["version"] == version]
    if not promotions:
        known = sorted({str(progress.said("promotion-committed")["version"]) for progress in committed_plans(entries, model)}, key=lambda v: (len(v), v))
        if by_alias and _is_being_promoted(entries, model, version):
            raise StorageError(
                f"version {version} of {model} is being promoted just now, or that was cut off; ask again in a while, and recompress run ends what was cut off"
            )
        if by_alias:
            raise IntegrityError(
                f"version {version} of {model} has the alias champion, but this ledger promoted no such version; recompress rollback {model} --reason '…' puts one back that it did"
            )
        way_out = f"these were: {', '.join(known)}" if known else "no version ever was"
        raise InputError(f"version {version} of {model} was not promoted by this ledger; {way_out}")
    return promotions[-1]


def _is_being_promoted(entries: list[Entry], model: str, version: str) -> bool:
    """Whether the last that the ledger says of a model's alias is that it is to be moved to this version, or has been, and no more."""
    last = next((entry for entry in reversed(entries) if entry.kind in UNTIL_COMMITTED and entry.body.get("model") == model), None)
    return last is not None and last.kind in UNTIL_COMMITTED[:3] and last.body.get("version") == version


def trace(entries: list[Entry], model: str, version: str, tags: Mapping[str, str], *, by_alias: bool = False) -> Trace:
    """What the ledger knows of a version. ``tags`` are those of the registry, ``by_alias`` says that it calls this version the champion.

    Raises ``InputError`` for a version that was never promoted, and ``IntegrityError`` for such a champion.
    """
    progress = find_plan(entries, model, version, by_alias=by_alias)
    origin = origin_of(entries, progress)
    plan, facts, committed = origin.plan, origin.plan.facts, progress.said("promotion-committed")
    judged = origin.said("promotion-judged")
    approval = progress.latest("approval")
    expected = progress.plan.expected
    look, looks = _look(entries, model, plan)
    return Trace(
        model=model,
        version=version,
        candidate=plan.candidate,
        promoted_at=progress.entries[-1].time,
        promoted_by=progress.entries[-1].actor,
        plan_sha256=progress.digest,
        model_sha256=plan.model_sha256,
        manifest_sha256=committed["manifest_sha256"],
        data=_told(name=facts.get("dataset"), md5=facts.get("data_md5"), sha256=plan.digests["data"]),
        base=_told(model=facts.get("base_model"), revision=facts.get("base_revision"), sha256=plan.digests["base"]),
        code=_told(git_commit=facts.get("git_commit"), sha256=plan.digests["code"]),
        recipe=_told(name=facts.get("recipe"), sha256=plan.digests["recipe"]),
        steps=facts.get("steps", ""),
        metric=str(judged.get("metric", "")),
        score=judged.get("score"),
        policy_sha256=str(plan.policy_sha256),
        verdict_sha256=str(plan.verdict_sha256),
        look=look,
        looks=looks,
        author=progress.plan.author,
        approver=approval.actor if approval else None,
        approved_at=approval.time if approval else None,
        instead_of=expected.version if expected else None,
        rollback=progress.plan.reason,
        watched=story_of(entries, plan),
        ledger_head=str(progress.entries[-1].head),
        disagreements=(*(_alias(entries, model, version) if by_alias else ()), *_disagreements(plan.model_sha256, committed, plan.digests, tags)),
    )


def _look(entries: list[Entry], model: str, plan: PromotionPlan) -> tuple[Look | None, int]:
    """The latest look at this candidate, and how many its test split has had for the model."""
    looks = [Look.model_validate(entry.body["content"]) for entry in entries if entry.kind == "test-look" and entry.body["model"] == model]
    by_verdict = {entry.body["key"] for entry in entries if entry.kind == "test-look-result" and entry.body.get("verdict") == plan.verdict_sha256}
    mine = [look for look in looks if look.candidate_sha256 == plan.model_sha256]
    look = next((look for look in reversed(mine) if look.key in by_verdict), mine[-1] if mine else None)
    return look, sum(other.split == look.split for other in looks) if look else 0


def _alias(entries: list[Entry], model: str, version: str) -> list[str]:
    """Nothing, where the ledger too says that this version is champion, or may be: a promotion that was cut off leaves it open."""
    last = next(entry for entry in reversed(entries) if entry.kind in (*MOVES, "promotion-intent") and entry.body["model"] == model)
    known = reigns(entries, model)[-1].version
    if version == known or (last.kind == "promotion-intent" and last.body["version"] == version):
        return []
    return [f"the alias champion names version {version}, the ledger {f'version {known}' if known else 'none'}"]


def _told(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _disagreements(model_sha256: str, committed: dict[str, Any], digests: Mapping[str, str], tags: Mapping[str, str]) -> list[str]:
    known = {MODEL_TAG: model_sha256, MANIFEST_TAG: committed["manifest_sha256"]} | {f"recompress.{name}_sha256": digest for name, digest in digests.items()}
    return [f"the tag {name} says {tags.get(name)!r}, the ledger {digest}" for name, digest in sorted(known.items()) if tags.get(name) != digest]
