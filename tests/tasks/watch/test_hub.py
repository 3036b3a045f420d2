"""One look at a model of a hub, by the real client: what is read counts, and nothing that cannot be seen is called changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

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


def test_a_long_history_is_read_as_far_as_the_pin(repository: Repository) -> None:
    repository.commit(b"before", age=timedelta(days=9))
    pinned = repository.head.id
    passed = [repository.commit(f"weights {i}".encode(), age=timedelta(hours=90 - i)).id for i in range(5)]
    repository.page = 2
    assert look(pinned).between == tuple(passed[:-1])
    assert sum("/commits/" in line for line in repository.asked) == 3
    assert "its history was rewritten" in look_with(repository, lambda: repository.kept.append(repository.commits.pop(1)), pinned)


def look_with(repository: Repository, change: Callable[[], object], pinned: str) -> str:
    change()
    return look(pinned).waits


OTHER = {"license": "other", "license_name": "open-model-licence", "license_link": "LICENSE"}


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (
            OTHER,
            OTHER | {"license_name": "research-only"},
            "its licence is other · research-only · LICENSE, at the pinned commit it was other · open-model-licence",
        ),
        (OTHER, OTHER | {"license_link": "https://example.org/terms"}, "https://example.org/terms"),
        (OTHER, {"license": "other"}, "its licence is other, at"),
        ({"license": "other"}, OTHER, "at the pinned commit it was other"),
        ({}, {"license": "mit"}, "its licence is mit, at the pinned commit it was not said"),
        ({"license": "mit"}, {}, "its licence is not said any more, at the pinned commit it was mit"),
        ({"license": ["mit"]}, {"license": ["mit", "cc-by-nc-4.0"]}, "its licence is mit, cc-by-nc-4.0"),
        ({"language": "en"}, {"language": "de"}, ""),
        ({"license": "mit"}, {"license": "mit", "tags": ["x"]}, ""),
    ],
)
def test_a_licence_is_its_name_and_its_place_too(repository: Repository, then: dict[str, Any], now: dict[str, Any], said: str) -> None:
    repository.head.card = then
    repository.commit(b"other weights").card = now
    sight = look(repository.commits[0].id)
    assert (said in sight.waits, bool(sight.waits), sight.moved) == (True, bool(said), True)


def test_another_text_of_a_licence_of_its_own_waits_and_of_a_known_one_does_not(repository: Repository) -> None:
    for card, waits in ((OTHER, True), ({"license": "mit"}, False)):
        repository.commits = [Commit(repository.commits[0].files | {"LICENSE": b"as you like"}, card=card)]
        repository.commits.append(
            Commit(repository.head.files | {"LICENSE": b"for research only", "model.safetensors": b"new"}, age=timedelta(days=1), card=card)
        )
        assert bool(look(repository.commits[0].id).waits) == waits


ASKED = {
    "the branch": lambda repository, path: path.endswith("/revision/main"),
    "the pin": lambda repository, path: path.endswith(f"/revision/{repository.commits[0].id}"),
    "the commits": lambda repository, path: "/commits/" in path,
    "a file": lambda repository, path: "/resolve/" in path,
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(("refusal", "seconds"), [((429, {"RateLimit": '"api";r=0;t=900'}), 900), ((503, {"Retry-After": "60"}), 60), ((500, {}), 0)], ids=str)
def test_whatever_is_refused_is_asked_for_once(repository: Repository, asked: str, refusal: tuple[int, dict[str, str]], seconds: float) -> None:
    repository.commit(b"other weights")
    repository.instead = lambda path: (refusal[0], {"error": "refused"}, refusal[1]) if ASKED[asked](repository, path) else None
    sight = look(repository.commits[0].id)
    assert (sight.state, sight.retry_after_s) == ("not visible", seconds)
    assert sum(ASKED[asked](repository, urlsplit(line.split()[1]).path) for line in repository.asked) == 1


@pytest.mark.parametrize("asked", ASKED)
def test_whatever_is_not_answered_is_waited_for_once(repository: Repository, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr("tasks.watch.hub.TIMEOUT_S", 0.1)
    repository.commit(b"other weights")
    repository.instead = lambda path: time.sleep(0.4) if ASKED[asked](repository, path) else None
    assert "does not answer (ReadTimeout" in look(repository.commits[0].id).away
    assert sum(ASKED[asked](repository, urlsplit(line.split()[1]).path) for line in repository.asked) == 1


@pytest.mark.parametrize("seconds", ["9" * 30, "²", "-5", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_time_that_no_clock_holds_is_no_time(repository: Repository, seconds: str) -> None:
    repository.refusal = (503, {"Retry-After": seconds.encode().decode("latin-1")})
    assert look(repository.head.id).retry_after_s in (0, 7 * 86400)


INSTEAD: list[Any] = [b"<html>log in</html>", b"", b"\xff\xfe", {}, [], [1], None, "a text", 7, {"id": NAME}, {"id": NAME, "sha": None, "siblings": None}]
INSTEAD += [{"id": NAME, "sha": "1" * 40, "siblings": [{"rfilename": "config.json"}]}, {"id": NAME, "sha": "1" * 40, "siblings": ["config.json"]}]
INSTEAD += [{"id": NAME, "sha": "1" * 40, "siblings": [], "cardData": "mit"}, [{"id": "1" * 40}], [{"id": "1" * 40, "date": "yesterday"}]]


@pytest.mark.parametrize("asked", ["the branch", "the pin", "the commits"])
@pytest.mark.parametrize("instead", INSTEAD, ids=lambda value: str(value)[:40])
def test_an_answer_of_another_shape_is_not_visible(repository: Repository, asked: str, instead: Any) -> None:
    repository.commit(b"other weights")
    repository.instead = lambda path: (200, instead, {}) if ASKED[asked](repository, path) else None
    sight = look(repository.commits[0].id)
    assert (sight.state, "\n" in sight.away) == ("not visible", False)
