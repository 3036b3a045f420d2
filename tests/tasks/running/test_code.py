"""Which commit a promotion names: that of the project's own repository, or none and why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.people.doctor import _project
from tasks.running.code import git_commit

ROOT = Path(__file__).parents[3]


def repository(folder: Path) -> str:
    folder.mkdir()
    for command in (("init", "-q"), ("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", folder.name)):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_hook_of_another_repository_leads_nowhere_else(tmp_path: Path) -> None:
    here, there = repository(tmp_path / "here"), repository(tmp_path / "there")
    code = "from pathlib import Path; from tasks.running.code import git_commit; print(git_commit(Path('.')))"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GIT_DIR": str(tmp_path / "there" / ".git"),
        "GIT_WORK_TREE": str(tmp_path / "there"),
        "GIT_INDEX_FILE": "/x",
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "here", env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here != there


def test_where_git_refuses_its_own_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    lines: list[str] = []
    repository(tmp_path / "here")
    assert len(git_commit(tmp_path / "here", lines.append)) == 40
    assert lines == []
    assert git_commit(tmp_path, lines.append) == ""
    assert lines == ["no git commit is recorded: fatal: not a git repository (or any of the parent directories): .git"]
    [finding, *_] = _project(tmp_path)
    assert (finding.what, finding.state) == ("git", "advice")
    assert "not a git repository" in finding.detail
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path / "here", lines.append) == ""
    assert "git cannot be asked" in lines[-1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_named_as_git_names_it(tmp_path: Path) -> None:
    repository(tmp_path / "here")
    for path in (tmp_path / "here", *(tmp_path / "here").rglob("*")):
        os.chown(path, 12345, 12345)
    lines: list[str] = []
    assert git_commit(tmp_path / "here", lines.append) == ""
    assert "dubious ownership" in lines[0]


def test_this_machine_is_never_asked_for_through_a_proxy() -> None:
    code = "import tasks, urllib.request as u; print(*(u.proxy_bypass_environment(h) for h in ('127.0.0.1', 'localhost', 'pypi.example', 'team.example')))"
    for named in ({}, {"no_proxy": "team.example"}, {"NO_PROXY": "team.example,127.0.0.1"}):
        environment = {"PYTHONPATH": str(ROOT), "HTTPS_PROXY": "http://127.0.0.1:9", **named}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert [bool(int(word)) if word.isdigit() else word == "True" for word in done.stdout.split()] == [True, True, False, bool(named)]
