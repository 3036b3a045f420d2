"""From a verdict to a champion: what is recorded, what is asked for, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from recompress.errors import GateRefused, IntegrityError, StorageError
from recompress.ledger import Head, Ledger
from recompress.promotion import (
    CRASH_POINTS,
    HEAD_TAG,
    MANIFEST_TAG,
    MODEL_TAG,
    STEPS,
    Promoter,
    PromotionRefused,
    champion_by_ledger,
    present_champion,
    progress_of,
)
from recompress.promotion.effects import UNDO_POINTS
from recompress.records import ApprovalRule
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory, promote_new, sha


def test_the_first_promotion_and_the_next(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    first = promote_new(promoter, tmp_path, 1)
    assert first.version == registry.champion(MODEL) == champion_by_ledger(ledger, MODEL) == "1"
    assert [e.kind for e in ledger.entries()] == [
        "promotion-proposed",
        "promotion-judged",
        "promotion-approved",
        "version-uploading",
        "promotion-intent",
        "promotion-alias-moved",
        "promotion-verified",
        "promotion-committed",
    ]
    tags = registry.tags(MODEL, "1") or {}
    assert tags[HEAD_TAG] == str(first.head)
    assert tags["recompress.git_commit"] == "0" * 40
    assert {f"recompress.{n}_sha256": sha(n) for n in ("data", "base", "recipe", "code", "policy")}.items() <= tags.items()
    second = promote_new(promoter, tmp_path, 2)
    assert second.version == registry.champion(MODEL) == "2"
    assert ledger.verify(anchors=[first.head, second.head]) == second.head
    assert progress_of(ledger, second.plan).said("promotion-intent")["expected"] == {"version": "1", "model_sha256": tags[MODEL_TAG]}


def test_the_same_plan_is_carried_out_once(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", 1)
    plan, verdict = make_plan(directory, None)
    first = promoter.promote(promoter.propose(plan, verdict).digest, directory)
    assert promoter.promote(promoter.propose(plan, verdict).digest, directory) == first
    assert ledger.head() == first.head
    assert registry.moves == ["1"]
    with pytest.raises(GateRefused, match="is champion of ner already, as version 1"):
        promoter.propose(*make_plan(directory, present_champion(registry, MODEL)))


def test_nothing_is_uploaded_from_a_directory_that_is_not_the_candidates(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    plan, verdict = make_plan(model_directory(tmp_path / "model", 1), None)
    progress = promoter.propose(plan, verdict)
    with pytest.raises(IntegrityError, match="has digest"):
        promoter.promote(progress.digest, model_directory(tmp_path / "other", 2))
    assert (registry.versions(MODEL), ledger.entries("version-uploading"), registry.champion(MODEL)) == ([], [], None)


def test_a_model_that_changes_on_its_way_into_the_registry_is_not_promoted(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    """What arrived agrees with its own manifest, which the ledger knows as well: but it is not what was judged."""
    directory = model_directory(tmp_path / "model", 1)
    progress = promoter.propose(*make_plan(directory, None))
    upload = registry.create_version

    def swapped(model: str, place: Path, tags: Mapping[str, str], announce: Callable[[str], None]) -> str:
        return upload(model, model_directory(place, 2), tags, announce)

    registry.create_version = swapped  # type: ignore[assignment, method-assign]
    with pytest.raises(IntegrityError, match="version 1 of ner: .* has digest .*, expected"):
        promoter.promote(progress.digest, directory)
    assert registry.champion(MODEL) is None
    assert progress_of(promoter.ledger, progress.digest).said("promotion-refused")["reason"] == "files-refused"


def test_a_champion_other_than_the_one_judged_against_is_a_refusal(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "late", 9)
    plan, verdict = make_plan(directory, None)
    late = promoter.propose(plan, verdict)
    promote_new(promoter, tmp_path, 1)
    with pytest.raises(PromotionRefused, match=r"champion-changed.*against version none, the champion is 1 by now") as refusal:
        promoter.promote(late.digest, directory)
    assert refusal.value.reason == "champion-changed"
    assert progress_of(ledger, late.digest).state == "refused"
    assert registry.versions(MODEL) == ["1"]
    with pytest.raises(GateRefused, match="is refused"):
        promoter.promote(late.digest, directory)
    assert promoter.propose(plan, verdict).plan.attempt == 2


def test_the_same_version_number_with_another_model_is_another_champion(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    """A registry gives a number again after its last version was deleted."""
    promote_new(promoter, tmp_path, 1)
    directory = model_directory(tmp_path / "next", 2)
    plan, verdict = make_plan(directory, present_champion(registry, MODEL))
    progress = promoter.propose(plan, verdict)
    registry.set_tag(MODEL, "1", MODEL_TAG, sha("another model"))
    with pytest.raises(PromotionRefused, match="champion-changed"):
        promoter.promote(progress.digest, directory)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"candidate_sha256": sha("x")}, "candidate"),
        ({"policy_sha256": sha("x")}, "policy"),
        ({"champion_sha256": sha("x")}, "champion"),
        ({"metric": "accuracy"}, "verdict"),
    ],
)
def test_a_verdict_that_speaks_of_anything_else_is_a_refusal(promoter: Promoter, tmp_path: Path, change: dict[str, str], reason: str) -> None:
    plan, verdict = make_plan(model_directory(tmp_path / "model", 1), None)
    other = verdict.model_copy(update=change)
    if reason != "verdict":
        plan = plan.model_copy(update={"verdict_sha256": other.digest})
    with pytest.raises(PromotionRefused, match=f"verdict-mismatch.*{reason}"):
        promoter.propose(plan, other)


def test_a_verdict_that_did_not_pass_is_a_refusal(promoter: Promoter, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(PromotionRefused, match=r"verdict-refused.*loss-outside-margin"):
        promoter.propose(*make_plan(model_directory(tmp_path / "model", 1), None, passed=False))
    assert ledger.entries()[-1].body["reason"] == "verdict-refused"


def test_a_champion_of_unknown_bytes_cannot_be_judged_against(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_new(promoter, tmp_path, 1)
    champion = present_champion(registry, MODEL)
    assert champion is not None
    with pytest.raises(PromotionRefused, match="verdict-mismatch"):
        promoter.propose(*make_plan(model_directory(tmp_path / "next", 2), champion.model_copy(update={"model_sha256": None})))


def test_a_held_lock_is_one_clear_line(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", 1)
    progress = promoter.propose(*make_plan(directory, None))
    impatient = Promoter(ledger, registry, "bob", lock_timeout=0.2)
    with ledger.lock(), pytest.raises(StorageError, match="another promotion holds the ledger's lock"):
        impatient.promote(progress.digest, directory)
    assert progress_of(ledger, progress.digest).state == "judged"


def test_every_state_can_be_reached_and_every_crash_point_is_passed(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    reachable = {"proposed"} | {state for steps in STEPS.values() for state in steps.values()}
    assert reachable == set(STEPS)
    passed: list[str] = []
    promoter = Promoter(ledger, registry, "ada", crash_point=passed.append)
    for seed in (1, 2):
        promote_new(promoter, tmp_path, seed)
    promoter.rollback(MODEL, reason="x", rule=ApprovalRule())
    assert set(passed) == set(CRASH_POINTS)
    assert len(CRASH_POINTS) >= 12
    assert not set(UNDO_POINTS) & set(CRASH_POINTS)


def test_heads_are_parsed_from_tags_with_suspicion(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    promoted = promote_new(promoter, tmp_path, 1)
    assert Head.parse((registry.tags(MODEL, "1") or {})[HEAD_TAG]) == promoted.head
    registry.set_tag(MODEL, "1", HEAD_TAG, "7:x")
    with pytest.raises(IntegrityError, match="a ledger head is number:sha256"):
        promote_new(promoter, tmp_path, 2)


def test_a_manifest_is_in_the_ledger_before_anything_is_uploaded(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    registry.crash_point = lambda name: seen.append([entry.body["manifest_sha256"] for entry in ledger.entries("version-uploading")])
    promoted = promote_new(Promoter(ledger, registry, "ada"), tmp_path, 1)
    manifest = (registry.tags(MODEL, promoted.version) or {})[MANIFEST_TAG]
    assert seen
    assert all(digests == [manifest] for digests in seen)
