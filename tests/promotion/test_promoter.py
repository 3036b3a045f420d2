from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from recompress.errors import GateRefused, InputError, IntegrityError, StorageError
from recompress.integrity.model_files import MODEL_FOLDER, write_manifest
from recompress.ledger import Head, Ledger
from recompress.promotion import (
    CRASH_POINTS,
    HEAD_TAG,
    MANIFEST_TAG,
    MODEL_TAG,
    STEPS,
    Promoted,
    Promoter,
    PromotionRefused,
    champion_by_ledger,
    present_champion,
    progress_of,
)
from recompress.promotion.effects import UNDO_POINTS
from recompress.promotion.registry import tags_of
from recompress.records import ApprovalRule
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory, safetensors, sha


def promote_new(promoter: Promoter, folder: Path, seed: int, *, again: bool = False) -> Promoted:
    directory = model_directory(folder / f"model {seed}", seed)
    plan, verdict = make_plan(directory, present_champion(promoter.registry, MODEL))
    return promoter.promote(promoter.propose(plan, verdict, again=again).digest, directory)


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


def test_a_candidate_that_was_replaced_does_not_come_back_by_itself(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    """A person rolled it back; the next run of the same recipe finds the same evidence, and must not undo the person's decision."""
    promote_new(promoter, tmp_path, 1)
    promote_new(promoter, tmp_path, 2)
    promoter.rollback(MODEL, reason="it answers in the wrong language")
    with pytest.raises(GateRefused, match="was promoted as version 2 .* and version 1 took its place since"):
        promote_new(promoter, tmp_path, 2)
    assert registry.champion(MODEL) == "1"
    assert promote_new(promoter, tmp_path, 2, again=True).version == "3"


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


def break_pickle(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\x80\x04\x95junk")


def break_name(directory: Path) -> None:
    (directory / "weights.bin").write_bytes(b"\x80\x04\x95junk")


def break_length(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(safetensors(1)[:-3])


@pytest.mark.parametrize(("harm", "message"), [(break_pickle, "is a pickle"), (break_name, "weights.bin is of a kind"), (break_length, "cut short")])
def test_a_directory_that_no_version_may_hold_is_refused_before_it_is_uploaded(promoter, ledger, registry, tmp_path, harm, message) -> None:  # type: ignore[no-untyped-def]
    directory = model_directory(tmp_path / "model", 1)
    harm(directory)
    progress = promoter.propose(*make_plan(directory, None))
    with pytest.raises(IntegrityError, match=message):
        promoter.promote(progress.digest, directory)
    assert progress_of(ledger, progress.digest).said("promotion-refused")["reason"] == "files-refused"
    assert registry.champion(MODEL) is None
    assert not (registry.root / MODEL).exists()


def test_a_directory_that_changed_since_it_was_judged_is_refused(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", 1)
    progress = promoter.propose(*make_plan(directory, None))
    (directory / "config.json").write_text('{"seed": 2}')
    with pytest.raises(IntegrityError, match="has digest"):
        promoter.promote(progress.digest, directory)
    assert registry.champion(MODEL) is None


def test_files_that_change_between_the_check_and_the_move_bring_the_alias_back(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_new(Promoter(ledger, registry, "ada"), tmp_path, 1)

    def tamper(name: str) -> None:
        if name == "promotion:alias-moved":
            (registry.fetch(MODEL, "2") / MODEL_FOLDER / "config.json").write_text("{}")

    with pytest.raises(IntegrityError, match=r"the alias was moved back .*config\.json"):
        promote_new(Promoter(ledger, registry, "ada", crash_point=tamper), tmp_path, 2)
    assert registry.champion(MODEL) == champion_by_ledger(ledger, MODEL) == "1"
    assert registry.moves == ["1", "2", "1"]
    assert [e.kind for e in ledger.entries()][-3:] == ["promotion-alias-moved", "promotion-undo", "promotion-rolled-back"]
    ledger.verify()


@pytest.mark.parametrize("to", ["2", None])
def test_an_alias_moved_behind_our_back_is_found_recorded_and_refused_once(promoter, ledger, registry, tmp_path, to) -> None:  # type: ignore[no-untyped-def]
    for seed in (1, 2, 3):
        promote_new(promoter, tmp_path, seed)
    assert promoter.watch(MODEL) is None
    registry.set_champion(MODEL, to)
    with pytest.raises(PromotionRefused, match=f"alias-moved-outside.*was version 3, somebody made it {to}"):
        promote_new(promoter, tmp_path, 4)
    assert ledger.last("alias-moved-outside").body == {"model": MODEL, "ledger": "3", "registry": to}
    assert promoter.watch(MODEL) is None
    assert promote_new(promoter, tmp_path, 5).version == "4"
    registry.set_champion(MODEL, "1")
    assert promoter.watch(MODEL).body["registry"] == "1"


def test_a_champion_that_was_deleted_stops_nothing_but_what_was_judged_against_it(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_new(promoter, tmp_path, 1)
    shutil.rmtree(registry.fetch(MODEL, "1"))
    registry.set_champion(MODEL, None)
    with pytest.raises(PromotionRefused, match="alias-moved-outside"):
        promote_new(promoter, tmp_path, 2)
    assert promote_new(promoter, tmp_path, 3).version == registry.champion(MODEL)


def test_rollback_is_a_promotion_like_any_other(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        promote_new(promoter, tmp_path, seed)
    back = promoter.rollback(MODEL, reason="too slow on the old servers")
    assert back.version == registry.champion(MODEL) == "2"
    assert registry.versions(MODEL) == ["1", "2", "3"]
    opened = ledger.last("rollback")
    assert opened is not None
    assert opened.body["content"]["reason"] == "too slow on the old servers"
    assert (registry.tags(MODEL, "2") or {})[HEAD_TAG] == str(back.head)
    assert promoter.rollback(MODEL, reason="further").version == "1"
    with pytest.raises(InputError, match="no earlier champion"):
        promoter.rollback(MODEL, reason="further")
    assert promoter.rollback(MODEL, to="3", reason="it was not that").version == "3"
    assert promoter.rollback(MODEL, to="1", reason="further").version == "1"
    ledger.verify(anchors=[back.head])


def test_rollback_puts_an_alias_right_that_somebody_moved(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    for seed in (1, 2):
        promote_new(promoter, tmp_path, seed)
    registry.set_champion(MODEL, "1")
    assert promoter.rollback(MODEL, to="2", reason="somebody moved it by hand").version == "2"
    registry.set_champion(MODEL, None)
    assert promoter.rollback(MODEL, reason="somebody removed it by hand").version == "2"
    assert ledger.entries("alias-moved-outside", model=MODEL) != []


def test_rollbacks_that_are_refused(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no earlier champion"):
        promoter.rollback(MODEL, reason="x")
    promote_new(promoter, tmp_path, 1)
    before = ledger.head()
    for to, reason, message in [
        (None, "x", "no earlier champion"),
        ("1", "x", "is champion of ner already"),
        ("7", "x", "version 7 of ner never was champion; these were: 1"),
        (None, "  ", "needs a reason"),
    ]:
        with pytest.raises(InputError, match=message):
            promoter.rollback(MODEL, to=to, reason=reason)
    assert ledger.head() == before
    promote_new(promoter, tmp_path, 2)
    (registry.fetch(MODEL, "1") / MODEL_FOLDER / "vocab.txt").write_text("changed")
    with pytest.raises(IntegrityError, match=r"vocab\.txt"):
        promoter.rollback(MODEL, reason="x")
    shutil.rmtree(registry.fetch(MODEL, "1"))
    with pytest.raises(PromotionRefused, match="version-missing"):
        promoter.rollback(MODEL, reason="x")
    assert registry.champion(MODEL) == "2"


def test_a_ledger_with_a_cut_tail_stops_the_next_promotion(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    """Somebody restores yesterday's ledger: the champion's version remembers today's head."""
    promoter = Promoter(ledger, registry, "ada")
    promote_new(promoter, tmp_path, 1)
    promote_new(promoter, tmp_path, 2)
    yesterday = Ledger(tmp_path / "yesterday.db")
    yesterday.import_entries(ledger.entries()[:-1])
    with pytest.raises(IntegrityError, match=r"record 16: it is missing; .* anchored elsewhere"):
        promote_new(Promoter(yesterday, registry, "ada"), tmp_path, 3)
    assert registry.champion(MODEL) == "2"


class Silent(FolderRegistry):
    """A registry that stops answering at one of its methods."""

    fails = ""

    def __getattribute__(self, name: str) -> object:
        if name == object.__getattribute__(self, "fails"):
            raise StorageError("the registry does not answer")
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("method", ["champion", "tags", "find_version", "create_version", "fetch", "move_champion", "set_tag"])
def test_a_registry_that_does_not_answer_leaves_nothing_half_done(ledger: Ledger, tmp_path: Path, method: str) -> None:
    registry = Silent(tmp_path / "registry")
    promoter = Promoter(ledger, registry, "ada")
    promote_new(promoter, tmp_path, 1)
    directory = model_directory(tmp_path / "next", 2)
    progress = promoter.propose(*make_plan(directory, present_champion(registry, MODEL)))
    registry.fails = method
    with pytest.raises(StorageError, match="does not answer") as refusal:
        promoter.promote(progress.digest, directory)
    assert "\n" not in str(refusal.value)
    registry.fails = ""
    assert promoter.promote(progress.digest, directory).version == registry.champion(MODEL) == "2"
    assert registry.moves == ["1", "2"]
    ledger.verify()


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


@pytest.mark.parametrize("tag", ["its own", "the one announced"])
def test_an_upload_that_was_cut_off_lets_nobody_lay_another_version_in_its_place(ledger: Ledger, registry: FolderRegistry, tmp_path: Path, tag: str) -> None:
    """The ledger knows the manifest that was about to be uploaded, so a version with the same model and other code to serve it is not the one."""

    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "registry:uploaded":
            raise Killed

    directory = model_directory(tmp_path / "model", 1)
    promoter = Promoter(ledger, registry, "ada")
    progress = promoter.propose(*make_plan(directory, None))
    registry.crash_point = kill
    with pytest.raises(Killed):
        promoter.promote(progress.digest, directory)
    registry.crash_point = lambda name: None
    [announced] = ledger.entries("version-uploading", plan=progress.digest)
    version = registry.create_version(MODEL, directory, tags_of(progress.plan))
    place = registry.fetch(MODEL, version)
    (place / "served.py").write_text("# whatever else I like\n")
    laid = write_manifest(place)
    registry.set_tag(MODEL, version, MANIFEST_TAG, laid if tag == "its own" else announced.body["manifest_sha256"])
    with pytest.raises(IntegrityError, match=f"version {version} of {MODEL}: .*expected {announced.body['manifest_sha256'][:12]}"):
        promoter.promote(progress.digest, directory)
    assert registry.champion(MODEL) is None
    assert progress_of(ledger, progress.digest).said("promotion-refused")["reason"] == "files-refused"
    again = promoter.propose(*make_plan(directory, None))
    assert promoter.promote(again.digest, directory).version == "2", "the next attempt is another plan, under which nothing was laid"


def test_a_manifest_is_in_the_ledger_before_anything_is_uploaded(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    registry.crash_point = lambda name: seen.append([entry.body["manifest_sha256"] for entry in ledger.entries("version-uploading")])
    promoted = promote_new(Promoter(ledger, registry, "ada"), tmp_path, 1)
    manifest = (registry.tags(MODEL, promoted.version) or {})[MANIFEST_TAG]
    assert seen
    assert all(digests == [manifest] for digests in seen)


def test_a_rollback_names_the_model_that_the_ledger_promoted_whatever_its_tag_says(
    promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path
) -> None:
    """A schedule that looks whether its candidate was rolled back must find it there."""
    promote_new(promoter, tmp_path, 1)
    promote_new(promoter, tmp_path, 2)
    digest = (registry.tags(MODEL, "2") or {})[MODEL_TAG]
    registry.set_tag(MODEL, "2", MODEL_TAG, sha("another model"))
    with pytest.raises(PromotionRefused, match=f"champion-changed.*version 2 is not the model that it was, by its tag {MODEL_TAG}"):
        promoter.rollback(MODEL, reason="slow")
    opened = ledger.last("rollback")
    assert opened is not None
    assert opened.body["content"]["expected"] == {"version": "2", "model_sha256": digest}
    registry.set_tag(MODEL, "2", MODEL_TAG, digest)
    assert promoter.rollback(MODEL, reason="slow").version == "1"
