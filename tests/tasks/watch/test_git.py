"""The repository of a DVC import: the tree that is imported counts, and nothing is called changed that cannot be seen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from recompress.watch.sources import Sight, Source
from tasks.watch.git import look_at_import


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    (folder / "data").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "data/train.txt", "one")
    return folder


def commit(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", name)
    return git(folder, "rev-parse", "HEAD")


def look(origin: Path, pinned: str, branch: str = "HEAD") -> Sight:
    return look_at_import(Source("origin of toy", "DVC import", "the origin", pinned), str(origin), "data", branch)


def test_other_files_wait_for_a_person_and_a_read_me_is_no_change(origin: Path) -> None:
    pinned = git(origin, "rev-parse", "HEAD")
    assert look(origin, pinned).state == "as pinned"
    about = commit(origin, "README.md", "about")
    sight = look(origin, pinned)
    assert (sight.state, sight.revision) == ("as pinned", about)
    newer = commit(origin, "data/train.txt", "two")
    sight = look(origin, pinned)
    assert (sight.moved, sight.revision) == (True, newer)
    assert "recompress data accept" in sight.waits


def test_the_branch_that_is_followed_is_looked_at(origin: Path) -> None:
    pinned = git(origin, "rev-parse", "HEAD")
    git(origin, "checkout", "-q", "-b", "next")
    commit(origin, "data/train.txt", "two")
    git(origin, "checkout", "-q", "main")
    assert not look(origin, pinned).moved
    assert look(origin, pinned, "refs/heads/next").moved


def test_a_folder_that_is_gone_is_another_tree(origin: Path) -> None:
    pinned = git(origin, "rev-parse", "HEAD")
    git(origin, "mv", "data", "texts")
    git(origin, "commit", "-q", "-m", "moved")
    assert look(origin, pinned).moved


@pytest.mark.parametrize("broken", ["repository", "branch", "pin"])
def test_what_is_not_there_is_not_visible(origin: Path, broken: str) -> None:
    pinned = git(origin, "rev-parse", "HEAD")
    commit(origin, "data/train.txt", "two")
    sights = {
        "repository": lambda: look(origin.with_name("nowhere"), pinned),
        "branch": lambda: look(origin, pinned, "refs/heads/gone"),
        "pin": lambda: look(origin, "f" * 40),
    }
    sight = sights[broken]()
    assert (sight.state, sight.moved, "\n" in sight.away) == ("not visible", False, False)


def test_a_password_in_the_address_is_not_shown() -> None:
    source = Source("origin of toy", "DVC import", "the origin", "f" * 40)
    sight = look_at_import(source, "https://ada:a-secret@127.0.0.1:1/x.git", "data")
    assert (sight.state == "not visible", "a-secret" in repr(sight)) == (True, False)
