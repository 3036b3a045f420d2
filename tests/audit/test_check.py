"""Whether everything still holds: an alias that was moved, a tag that was altered, a file that was swapped, a ledger that was cut. Nothing of it is written."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from recompress.audit import check_all, trace
from recompress.errors import InputError, IntegrityError, StorageError
from recompress.integrity.digest import canonical_json
from recompress.ledger import Head, LedgerBroken
from recompress.promotion import HEAD_TAG, MANIFEST_TAG, MODEL_TAG
from tests.audit.checking import broken, check
from tests.evidence.stories import DATA, Project, sha
from tests.ledger.chains import forge
from tests.promotion.stage import MODEL


def test_all_is_well(project: Project) -> None:
    report = check(project)
    assert report.troubles == ()
    assert (report.models, report.anchors, report.head) == ({MODEL: "2"}, 2, project.ledger.head())
    assert report.as_json()["holds"] is True


def test_an_empty_ledger_holds(tmp_path: Path) -> None:
    assert check(Project(tmp_path)).troubles == ()


def test_a_watch_that_was_silent_is_named_and_breaks_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.ledger.append("watch-looked", {"recipe": "ner", "every_s": 900.0}, actor="watcher")
    number = project.ledger.head().sequence
    assert check(project).troubles == ()
    now = project.ledger.clock()
    monkeypatch.setattr(project.ledger, "clock", lambda: now + timedelta(days=2, minutes=1))
    [trouble] = check(project).troubles
    assert (trouble.where, trouble.kind) == ("watch of ner", "notice")
    assert f"until now (behind ledger record {number})" in trouble.detail


@pytest.mark.parametrize("to", ["1", None, "7"])
def test_an_alias_that_was_moved_by_other_means_is_reported_until_a_promotion_puts_it_right(project: Project, to: str | None) -> None:
    project.registry.set_champion(MODEL, to)
    [line] = broken(project)
    assert "by the ledger it should be version 2: it was moved by other means" in line
    project.promoter.watch(MODEL)
    if to is not None:
        [line] = broken(project)
        assert f"version {to} is champion, but nobody promoted it" in line
    project.promoter.rollback(MODEL, to="2", reason="somebody moved it")
    assert broken(project) == []


@pytest.mark.parametrize("tag", [HEAD_TAG, MANIFEST_TAG])
def test_a_tag_that_was_altered_or_removed_is_reported(project: Project, tag: str) -> None:
    file = project.registry.root / MODEL / "tags-1.json"
    tags = json.loads(file.read_text())
    for text in (None, "nonsense", "0" * 64, f"3:{'0' * 64}"):
        changed = {**tags, tag: text} if text else {name: value for name, value in tags.items() if name != tag}
        file.write_text(json.dumps(changed))
        assert broken(project), text
    file.write_text(json.dumps(tags))
    assert broken(project) == []


def test_a_changed_file_of_the_champion_is_named(project: Project) -> None:
    (project.version("2") / "artifacts" / "model" / "vocab.txt").write_text("[UNK]\nkwaheri\n")
    [line] = broken(project)
    assert "artifacts/model/vocab.txt" in line


def test_a_deleted_version_is_a_notice_but_a_deleted_champion_is_not(project: Project) -> None:
    (project.registry.root / MODEL / "1").rename(project.root / "gone 1")
    report = check(project)
    assert report.broken == []
    assert [t.detail for t in report.troubles] == ["it was deleted from the registry, and the head that it kept with it"]
    (project.registry.root / MODEL / "2").rename(project.root / "gone 2")
    assert len(broken(project)) == 1


def test_a_promotion_that_was_cut_off_is_a_notice(project: Project) -> None:
    class Killed(BaseException):
        pass

    for seed, name in enumerate(("promotion:intent-written", "promotion:alias-moved", "promotion:check-recorded"), start=3):
        plan = project.propose(seed)

        def kill(at: str, name: str = name) -> None:
            if at == name:
                raise Killed

        object.__setattr__(project.promoter, "crash_point", kill)
        with pytest.raises(Killed):
            project.promoter.promote(plan, project.root / f"model {seed}")
        report = check(project)
        assert report.broken == [], name
        assert "was cut off at" in report.troubles[0].detail
        object.__setattr__(project.promoter, "crash_point", lambda name: None)
        project.promoter.recover()
    assert check(project).troubles == ()


def tamper(project: Project, *statements: str) -> None:
    with sqlite3.connect(project.root / "ledger.db") as connection:
        for name in ("recompress_no_update", "recompress_no_delete", "recompress_in_order"):
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_cut_tail_is_shown_by_the_tag_of_a_version(project: Project) -> None:
    last = project.ledger.head().sequence
    tamper(project, f"DELETE FROM recompress_ledger WHERE sequence > {last - 3}")
    lines = broken(project)
    assert lines[0] == f"ledger: ledger record {last - 2}: it is missing; the ledger ends before it, and the tag of version 2 of ner names record {last}"


def test_a_ledger_that_lost_its_last_record_alone_is_shown_by_a_head_that_somebody_kept(project: Project) -> None:
    last = project.ledger.head()
    report = check_all(project.ledger, project.registry, [("a letter", Head(last.sequence + 1, sha("the record that is gone")))])
    assert [t.detail for t in report.broken] == [
        f"ledger record {last.sequence + 1}: it is missing; the ledger ends before it, and a letter names record {last.sequence + 1}"
    ]


def test_a_database_that_no_longer_refuses_changes_is_not_whole_though_nothing_was_changed_yet(project: Project) -> None:
    tamper(project)
    [line] = broken(project)
    assert line.startswith("ledger: its database no longer refuses changes: recompress_")
    project.ledger.guard()
    assert broken(project) == []


def test_a_row_that_names_another_run_is_broken_though_the_files_are_whole(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project.registry, "rows", lambda model, version: {"source": f"{model}/{'9' if version == '1' else version}"})
    assert broken(project) == ["ner version 1: its source is 'ner/9', by the ledger it was 'ner/1': the row was changed"]


def test_a_head_that_somebody_kept_shows_a_rewritten_ledger(project: Project) -> None:
    anchors = [("a letter", Head(2, sha("another record")))]
    report = check_all(project.ledger, project.registry, anchors)
    assert [t.detail for t in report.broken] == ["ledger record 2: it is not the one that a letter names; the ledger was rewritten"]


@pytest.mark.parametrize("number", [1, 4, 9])
def test_a_changed_record_is_named_and_nothing_else_is_believed(project: Project, number: int) -> None:
    tamper(project, f"UPDATE recompress_ledger SET actor = 'eve' WHERE sequence = {number}")
    report = check(project)
    [line] = broken(project)
    assert line.startswith(f"ledger: ledger record {number}: it was changed")
    assert report.head.sequence == number - 1


def test_a_registry_that_does_not_answer_is_an_error_and_never_all_is_well(project: Project) -> None:
    class Away:
        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            def ask(*_: object) -> None:
                raise StorageError("the registry does not answer")

            return ask

    with pytest.raises(StorageError, match="does not answer"):
        check_all(project.ledger, Away())  # type: ignore[arg-type]


def test_a_trace_leads_from_the_version_to_everything(project: Project) -> None:
    tags = project.registry.tags(MODEL, "2") or {}
    traced = trace(project.ledger.entries(), MODEL, "2", tags)
    assert traced.data == {"name": "tiny", "md5": "0" * 32 + ".dir", "sha256": DATA}
    assert traced.base == {"model": "base", "revision": "f" * 40, "sha256": sha("base")}
    assert traced.code["git_commit"] == "0123456789" * 4
    assert (traced.recipe["name"], traced.metric, traced.score) == ("tiny", "f1", 0.75)
    assert (traced.author, traced.approver, traced.instead_of) == ("ada", "bob", "1")
    assert traced.disagreements == ()
    assert trace(project.ledger.entries(), MODEL, "1", tags).approver is None


def test_a_trace_says_where_the_registry_disagrees(project: Project) -> None:
    tags = (project.registry.tags(MODEL, "2") or {}) | {MODEL_TAG: "0" * 64}
    [line] = trace(project.ledger.entries(), MODEL, "2", tags).disagreements
    assert MODEL_TAG in line


def test_a_trace_from_an_alias_that_was_moved_says_so(project: Project) -> None:
    entries, tags = project.ledger.entries(), project.registry.tags(MODEL, "1") or {}
    assert trace(entries, MODEL, "1", tags, by_alias=True).disagreements == ("the alias champion names version 1, the ledger version 2",)
    assert trace(entries, MODEL, "1", tags).disagreements == (), "asked for by its number, it is an earlier champion like any"


def test_a_rollback_is_traced_to_where_it_was_made(project: Project) -> None:
    project.promoter.rollback(MODEL, reason="slow on phones")
    traced = trace(project.ledger.entries(), MODEL, "1", project.registry.tags(MODEL, "1") or {})
    assert (traced.version, traced.instead_of, traced.rollback, traced.candidate) == ("1", "2", "slow on phones", "int8")
    assert traced.data["sha256"] == DATA


@pytest.mark.parametrize("claim", ["itself", "nobody", None])
def test_a_rollback_that_names_no_earlier_promotion_is_a_broken_record_and_no_endless_search(project: Project, claim: str | None) -> None:
    project.promoter.rollback(MODEL, reason="slow on phones")
    entries = project.ledger.entries()
    judged = next(entry for entry in reversed(entries) if entry.kind == "promotion-judged")
    body = {key: value for key, value in judged.body.items() if key != "promoted_before"}
    body |= {"promoted_before": judged.body["plan"] if claim == "itself" else claim} if claim else {}
    forged = forge(entries, judged.sequence, body_text=canonical_json(body).decode())
    with pytest.raises(LedgerBroken, match="the rollback does not name an earlier promotion") as error:
        trace(forged, MODEL, "1", {})
    assert error.value.sequence == judged.sequence


def test_a_version_that_was_never_promoted_has_no_trace(project: Project) -> None:
    with pytest.raises(InputError, match="version 9 of ner was not promoted by this ledger; these were: 1, 2"):
        trace(project.ledger.entries(), MODEL, "9", {})
    with pytest.raises((InputError, IntegrityError), match="no version ever was"):
        trace([], MODEL, "1", {})
