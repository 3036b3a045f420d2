"""A hub with a model whose history a test writes: served to the real client, with whatever refusal the test wants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub import HubHandler, serving

NAME = "some/encoder"
WEIGHTS = "model.safetensors"
Refusal = tuple[int, dict[str, str]]


@dataclass
class Commit:
    files: dict[str, bytes]
    licence: str = "apache-2.0"
    age: timedelta = timedelta(days=10)
    id: str = ""
    card: dict[str, Any] | None = None
    """What the card says instead, word for word."""

    def __post_init__(self) -> None:
        said = repr((sorted(self.files.items()), self.licence, self.age, *([self.card] if self.card is not None else [])))
        self.id = self.id or hashlib.sha1(said.encode()).hexdigest()


@dataclass
class Repository:
    """What the hub holds. ``commits`` is the branch, oldest first; ``gone`` commits are named and not there."""

    commits: list[Commit]
    name: str = NAME
    kind: str = "models"
    refusal: Refusal | None = None
    """What it answers to everything."""
    refused_files: Refusal | None = None
    """What it answers when a file is asked for."""
    asked: list[str] = field(default_factory=list)
    disabled: bool = False
    kept: list[Commit] = field(default_factory=list)
    """Commits that can be asked for, but are no part of the branch any more."""
    instead: Callable[[str], tuple[int, Any, dict[str, str]] | None] = lambda _: None
    """What it answers to a path in place of the usual."""
    page: int = 1000
    """How many commits it lists at once."""
    address: str = ""

    def commit(self, weights: bytes, *, read_me: bytes = b"about", licence: str = "apache-2.0", age: timedelta = timedelta(days=1)) -> Commit:
        made = Commit({WEIGHTS: weights, "config.json": b"{}", "README.md": read_me}, licence, age)
        self.commits.append(made)
        return made

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def answer(self, path: str) -> tuple[int, Any, dict[str, str]]:
        query, path = urlsplit(path).query, unquote(urlsplit(path).path)
        if (other := self.instead(path)) is not None:
            return other
        if self.refusal is not None:
            return self.refusal[0], {"error": "refused"}, self.refusal[1]
        api = f"/api/{self.kind}/{NAME}/"
        if path.startswith(f"{api}revision/"):
            found = self._find(path.removeprefix(f"{api}revision/"))
            return (200, self._info(found), {}) if found else (404, {}, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith(f"{api}commits/"):
            first = int(query.removeprefix("p=") or 0)
            listed = [_listed(commit) for commit in reversed(self.commits)]
            more = {"Link": f'<{self.address}{path}?p={first + self.page}>; rel="next"'} if first + self.page < len(listed) else {}
            return 200, listed[first : first + self.page], more
        if path.startswith(f"{api}tree/"):
            found = self._find(path.removeprefix(f"{api}tree/").split("/")[0])
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in (found.files if found else {}).items()
            ]
            return 200, tree, {}
        revision, _, name = path.partition("/resolve/")[2].partition("/")
        found = self._find(revision)
        if found is None or name not in found.files:
            return 404, {}, {"X-Error-Code": "EntryNotFound"}
        if self.refused_files is not None:
            return self.refused_files[0], {}, self.refused_files[1]
        data = found.files[name]
        return 200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": found.id}

    def _find(self, revision: str) -> Commit | None:
        return self.head if revision == "main" else next((commit for commit in (*self.commits, *self.kept) if commit.id == revision), None)

    def _info(self, commit: Commit) -> dict[str, Any]:
        siblings = []
        for name, data in commit.files.items():
            large = {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}} if name == WEIGHTS else {}
            siblings.append({"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest(), **large})
        card = {"license": commit.licence} if commit.card is None else commit.card
        return {"id": self.name, "sha": commit.id, "siblings": siblings, "cardData": card, "disabled": self.disabled, "gated": False}


def _listed(commit: Commit) -> dict[str, Any]:
    date = (datetime.now(UTC) - commit.age).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"id": commit.id, "title": "a commit", "message": "", "authors": [{"user": "somebody"}], "date": date}


@contextmanager
def a_hub(repository: Repository) -> Iterator[str]:
    """The address of a hub that holds this repository."""

    class Hub(HubHandler):
        def get(self) -> None:
            repository.asked.append(f"{self.command} {self.path}")
            self.answer(*repository.answer(self.path))

    with serving(Hub) as address:
        repository.address = address
        yield address


@contextmanager
def client_asks(address: str, set_to: Callable[[object, str, object], None]) -> Iterator[None]:
    """The real client of this process asks that hub. ``set_to`` is a monkeypatch's ``setattr``."""
    from huggingface_hub import constants

    set_to(constants, "ENDPOINT", address)
    set_to(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    set_to(constants, "HF_HUB_OFFLINE", False)
    yield


def first_commit() -> Repository:
    """A repository with one commit, ten days old."""
    repository = Repository([])
    repository.commit(b"first weights", age=timedelta(days=10))
    return repository
