"""One look at a model of a hub, by the real client: what is read counts, and nothing that cannot be seen is called changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta

import pytest

from recompress.models.base import HUB_FILES
from recompress.watch.sources import Sight, Source
from tasks.watch.hub import look_at_hub
from tests.tasks.watch.hubs import NAME, Commit, Repository, a_hub, client_asks, first_commit


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    held = first_commit()
    with a_hub(held) as address, client_asks(address, monkeypatch.setattr):
        yield held


def look(pinned: str) -> Sight:
    return look_at_hub(Source("base", "hub model", NAME, pinned), "model", HUB_FILES)


def test_what_is_pinned_is_there(repository: Repository) -> None:
    sight = look(repository.head.id)
    assert (sight.moved, sight.state, sight.digest) == (False, "as pinned", sight.pinned_digest)


def test_new_weights_are_a_change_with_the_new_pin_and_one_file_was_asked_for(repository: Repository) -> None:
    first = repository.head
    passed = [repository.commit(f"weights {i}".encode(), age=timedelta(hours=9 - i)) for i in range(3)]
    newest = repository.commit(b"newest", age=timedelta(hours=2))
    sight = look(first.id)
    assert (sight.away, sight.moved, sight.revision) == ("", True, newest.id)
    assert sight.pins == {"revision": newest.id, "sha256": hashlib.sha256(b"newest").hexdigest()}
    assert sight.between == tuple(commit.id for commit in passed)
    assert any(line.startswith("HEAD") and f"/resolve/{newest.id}/" in line for line in repository.asked)


def test_a_commit_that_changes_nothing_that_is_read_is_no_change(repository: Repository) -> None:
    first = repository.head
    repository.commit(b"first weights", read_me=b"about it, in more words")
    sight = look(first.id)
    assert (sight.moved, sight.revision) == (False, repository.head.id)
    assert sight.digest == sight.pinned_digest


@pytest.mark.parametrize(
    ("refusal", "said", "seconds"),
    [
        ((401, {"X-Error-Code": "RepoNotFound"}), "gone, renamed or private", 0),
        ((401, {}), "gone, renamed or private", 0),
        ((403, {"X-Error-Code": "GatedRepo"}), "gated", 0),
        ((403, {"X-Error-Message": "Access to this resource is disabled."}), "disabled", 0),
        ((403, {}), "answers 403", 0),
        ((404, {"X-Error-Code": "RepoNotFound"}), "gone, renamed or private", 0),
        ((429, {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}), "left alone for 55 s", 55),
        ((503, {"Retry-After": "120"}), "answers 503", 120),
        ((500, {}), "answers 500", 0),
    ],
)
def test_what_is_not_visible_is_not_called_changed(repository: Repository, refusal: tuple[int, dict[str, str]], said: str, seconds: float) -> None:
    repository.refusal = refusal
    sight = look(repository.head.id)
    assert said in sight.away
    assert (sight.state, sight.moved, sight.retry_after_s) == ("not visible", False, seconds)


def test_a_hub_that_is_not_there_is_not_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    with client_asks("http://127.0.0.1:1", monkeypatch.setattr):
        sight = look("0" * 40)
    assert "does not answer" in sight.away


def test_a_hub_that_takes_too_long_is_not_visible(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    answer = repository.answer
    monkeypatch.setattr("tasks.watch.hub.TIMEOUT_S", 0.2)
    monkeypatch.setattr(Repository, "answer", lambda self, path: (time.sleep(0.8), answer(path))[1])
    assert "does not answer (ReadTimeout" in look(repository.head.id).away


def test_a_renamed_and_a_disabled_repository_are_not_visible(repository: Repository) -> None:
    repository.name = "some/other"
    assert "renamed to some/other" in look(repository.head.id).away
    repository.name, repository.disabled = NAME, True
    assert "disabled" in look(repository.head.id).away


def test_a_rewritten_history_waits_for_a_person_whether_the_old_commit_is_there_or_not(repository: Repository) -> None:
    first = repository.commits.pop()
    repository.commit(b"other weights")
    assert "its history was rewritten" in look(first.id).waits
    repository.kept.append(first)
    assert "its history was rewritten" in look(first.id).waits


def test_another_licence_waits_for_a_person(repository: Repository) -> None:
    first = repository.head
    repository.commit(b"other weights", licence="cc-by-nc-4.0")
    assert look(first.id).waits == "its licence is cc-by-nc-4.0, at the pinned commit it was apache-2.0"


def test_a_commit_that_is_named_and_not_there_is_not_visible(repository: Repository) -> None:
    first = repository.head
    repository.commit(b"other weights")
    repository.refused_files = (404, {"X-Error-Code": "EntryNotFound"})
    assert "answers 404" in look(first.id).away


def test_a_data_set_is_looked_at_by_the_files_that_its_entry_reads(repository: Repository) -> None:
    repository.kind = "datasets"
    first = repository.head
    repository.commits.append(Commit({**first.files, "config.json": b"{}", "data/new.csv": b"1"}, age=timedelta(days=1)))
    source = Source("origin of toy", "hub data set", NAME, first.id)
    assert not look_at_hub(source, "dataset", lambda path: path.endswith(".parquet")).moved
    assert look_at_hub(source, "dataset", lambda path: path.endswith(".csv")).moved
