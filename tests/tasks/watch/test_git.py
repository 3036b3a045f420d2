"""The repository of a DVC import: the tree that is imported counts, and nothing is called changed that cannot be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


POINTERS = {
    "beside it": ("tickets.dvc", "outs:\n- {{md5: {md5}.dir, size: 1, hash: md5, path: tickets}}\n", "tickets"),
    "by another name": ("all.dvc", "outs:\n- {{md5: {md5}.dir, path: tickets}}\n", "tickets"),
    "from another folder": ("all.dvc", "wdir: data\nouts:\n- {{md5: {md5}.dir, path: tickets}}\n", "data/tickets"),
    "a file in it": ("tickets.dvc", "outs:\n- {{md5: {md5}.dir, path: tickets}}\n", "tickets/train.jsonl"),
    "a folder above it": ("data/tickets.dvc", "outs:\n- {{md5: {md5}.dir, path: tickets}}\n", "data"),
    "of a stage": ("dvc.lock", "stages:\n  make:\n    outs:\n    - {{path: made/tickets, md5: {md5}.dir}}\n", "made/tickets"),
    "of a stage in a folder": ("dvc.lock", "stages:\n  make:\n    outs:\n    - {{path: data/tickets, md5: {md5}.dir}}\n", "data"),
    "in the cloud": ("tickets.dvc", "outs:\n- {{path: tickets, files: [{{relpath: a, version_id: {md5}}}]}}\n", "tickets"),
}


@pytest.mark.parametrize("kind", POINTERS)
def test_what_dvc_tracks_there_is_seen_to_move(origin: Path, kind: str) -> None:
    name, text, path = POINTERS[kind]
    pinned = commit(origin, name, text.format(md5="a" * 32))
    source = Source("origin of toy", "DVC import", "the origin", pinned)
    commit(origin, "README.md", "about")
    commit(origin, "others.dvc", "outs:\n- {md5: 0, path: others}\n")
    commit(origin, "broken.dvc", "outs: {")
    sight = look_at_import(source, str(origin), path)
    assert (sight.state, len(sight.digest)) == ("as pinned", 64)
    commit(origin, name, text.format(md5="b" * 32))
    sight = look_at_import(source, str(origin), path)
    assert (sight.moved, "dvc update" in sight.waits) == (True, True)


def test_what_is_neither_in_git_nor_in_a_file_of_dvc_is_not_visible(origin: Path) -> None:
    source = Source("origin of toy", "DVC import", "the origin", git(origin, "rev-parse", "HEAD"))
    assert "cannot be told" in look_at_import(source, str(origin), "tickets").away


@pytest.mark.parametrize("message", [[], ["-m", "one"]], ids=["a name", "with a message"])
def test_an_import_of_a_tag_or_a_commit_stays_where_that_is(origin: Path, message: list[str]) -> None:
    pinned = git(origin, "rev-parse", "HEAD")
    git(origin, "tag", *message, "v1")
    git(origin, "branch", "v1-next")
    git(origin, "branch", "a/v1")
    newer = commit(origin, "data/train.txt", "two")
    source = Source("origin of toy", "DVC import", "the origin", pinned)
    for rev in ("v1", "refs/tags/v1", pinned, pinned[:9]):
        assert (look_at_import(source, str(origin), "data", rev=rev).state, rev) == ("as pinned", rev)
    assert look_at_import(source, str(origin), "data", rev="main").revision == newer
    assert "no branch, tag or commit gone" in look_at_import(source, str(origin), "data", rev="gone").away
    assert "dvc update --rev main" in look_at_import(source, str(origin), "data", "main", "v1").waits, "what watch.yaml follows"
    git(origin, "tag", "-f", *message, "v1")
    assert look_at_import(source, str(origin), "data", rev="v1").moved


def test_a_branch_is_meant_as_a_whole(origin: Path) -> None:
    pinned = git(origin, "rev-parse", "HEAD")
    git(origin, "checkout", "-q", "-b", "exp/main")
    commit(origin, "data/train.txt", "three")
    assert look(origin, pinned, "main").state == "as pinned"
    assert look(origin, pinned, "exp/main").moved
    assert "no branch xp/main" in look(origin, pinned, "xp/main").away
    assert "no branch m*" in look(origin, pinned, "m*").away


def test_files_that_are_left_out_of_a_clone_are_fetched_when_they_are_read(origin: Path) -> None:
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    name, text, path = POINTERS["beside it"]
    pinned = commit(origin, name, text.format(md5="a" * 32))
    commit(origin, name, text.format(md5="b" * 32))
    assert look_at_import(Source("origin of toy", "DVC import", "the origin", pinned), f"file://{origin}", path).moved


@pytest.mark.long
def test_an_import_by_dvc_itself_is_seen_to_move(tmp_path: Path) -> None:
    who = {f"GIT_{role}_{what}": "ada@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    own = os.environ | who | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}

    def ask(folder: Path, *command: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *command] if command[0] != "git" else command, cwd=folder, env=own, check=True, capture_output=True)

    origin, here = tmp_path / "origin", tmp_path / "here"
    for folder in (origin, here):
        folder.mkdir()
        ask(folder, "git", "init", "-q", "-b", "main")
        ask(folder, "init", "-q")
    ask(origin, "remote", "add", "-d", "store", str(tmp_path / "store"))
    (origin / "tickets").mkdir()
    for text in ("one", "two"):
        (origin / "tickets" / "train.jsonl").write_text(text)
        ask(origin, "add", "-q", "tickets")
        ask(origin, "push", "-q")
        ask(origin, "git", "add", ".")
        ask(origin, "git", "commit", "-q", "-m", text)
        if text == "one":
            ask(here, "import", "-q", str(origin), "tickets", "-o", "raw")
            imported = yaml.safe_load((here / "raw.dvc").read_text())["deps"][0]
            source = Source("origin of toy", "DVC import", "the origin", imported["repo"]["rev_lock"])
            assert look_at_import(source, str(origin), imported["path"]).state == "as pinned"
    assert look_at_import(source, str(origin), imported["path"]).moved
