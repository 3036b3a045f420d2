"""A proposal is one commit on a branch of its own: one line of the recipe, and the evidence beside it. Nothing else of the repository is touched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError
from recompress.watch.settings import Forge
from tasks.watch.proposal import Proposal, commit_pin, propose
from tests.hub import HubHandler, serving

BEFORE = "name: toy\nbase: {model: some/encoder, revision: aaaa}\n"
AFTER = "name: toy\nbase: {model: some/encoder, revision: bbbb}\n"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project in a sub-folder of a repository, with something staged and something changed that is nobody's business."""
    root = tmp_path / "repository" / "project"
    (root / "recipes").mkdir(parents=True)
    (root / "recipes" / "toy.yaml").write_text(BEFORE)
    (root / "other.txt").write_text("as it was")
    git(root.parent, "init", "-q", "-b", "main")
    git(root.parent, "add", ".")
    git(root.parent, "commit", "-q", "-m", "first")
    (root / "other.txt").write_text("edited")
    (root / "staged.txt").write_text("staged")
    git(root, "add", "staged.txt")
    return root


def proposal(tmp_path: Path) -> Proposal:
    page = tmp_path / "page.html"
    page.write_text("<p>the page</p>")
    outcome: dict[str, Any] = {"page": str(page), "verdicts": {"int8": {"passed": True}}, "promotion": {"plan": "f" * 64}}
    return Proposal("toy", "0123456789abcdef", "toy: some/encoder at bbbb", "base some/encoder is at bbbb, pinned is aaaa", outcome)


def test_a_branch_holds_the_change_of_one_line_and_the_evidence_and_the_working_tree_stays(root: Path, tmp_path: Path) -> None:
    before = git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD"), git(root, "diff"), git(root, "diff", "--cached")
    proposed = propose(root, root / "recipes" / "toy.yaml", AFTER, proposal(tmp_path), None, lambda _: None)
    assert proposed.branch == "recompress/toy-01234567"
    assert (git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD"), git(root, "diff"), git(root, "diff", "--cached")) == before
    assert git(root, "rev-parse", f"{proposed.branch}^") == before[1]
    changed = git(root, "diff", "--name-only", "HEAD", proposed.branch).splitlines()
    evidence = {"README.md", "plan.json", "report.html", "verdict.json"}
    assert set(changed) == {"project/recipes/toy.yaml"} | {f"project/proposals/toy-01234567/{name}" for name in evidence}
    assert git(root, "diff", "--numstat", "HEAD", proposed.branch, "--", "recipes/toy.yaml").split()[:2] == ["1", "1"]
    assert json.loads(git(root, "show", f"{proposed.branch}:project/proposals/toy-01234567/plan.json"))["promotion"]["plan"] == "f" * 64
    assert git(root, "show", f"{proposed.branch}:project/proposals/toy-01234567/report.html") == "<p>the page</p>"
    assert "pinned is aaaa" in git(root, "log", "-1", "--format=%B", proposed.branch)
    git(root, "stash", "-q", "-u")
    git(root, "merge", "-q", proposed.branch)
    assert (root / "recipes" / "toy.yaml").read_text() == AFTER


def test_a_recipe_that_is_not_committed_is_not_proposed(root: Path, tmp_path: Path) -> None:
    recipe = root / "recipes" / "toy.yaml"
    recipe.write_text(BEFORE + "seed: 1\n")
    with pytest.raises(InputError, match="changes that are not committed"):
        propose(root, recipe, AFTER, proposal(tmp_path), None, lambda _: None)
    assert git(root, "branch", "--list", "recompress/*") == ""


def test_without_a_repository_the_proposal_is_a_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(BEFORE)
    proposed = propose(tmp_path, recipe, AFTER, proposal(tmp_path), None, lambda _: None)
    assert (proposed.branch, recipe.read_text()) == ("", BEFORE)
    assert (tmp_path / "proposals" / "toy-01234567" / "toy.yaml").read_text() == AFTER


class ForgeServer(HubHandler):
    asked: list[tuple[str, str, dict[str, Any]]] = []
    code = 201

    def post(self, body: bytes) -> None:
        self.asked.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.answer(self.code, {"html_url": "http://forge/some/project/pulls/7"})


@pytest.mark.parametrize(("code", "url"), [(201, "http://forge/some/project/pulls/7"), (500, "")])
def test_with_a_forge_and_a_token_the_branch_is_pushed_and_a_request_made(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, url: str
) -> None:
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    monkeypatch.setattr(ForgeServer, "asked", [])
    monkeypatch.setattr(ForgeServer, "code", code)
    said: list[str] = []
    with serving(ForgeServer) as address:
        forge = Forge(api=address, repository="some/project")
        recipe = root / "recipes" / "toy.yaml"
        assert propose(root, recipe, AFTER, proposal(tmp_path), forge, said.append).pull_request == ""
        assert ForgeServer.asked == [], "no token, no request"
        monkeypatch.setenv("RECOMPRESS_FORGE_TOKEN", "a-secret-token")
        proposed = propose(root, recipe, AFTER, proposal(tmp_path), forge, said.append)
    assert proposed.pull_request == url
    [(path, authorization, request)] = ForgeServer.asked
    assert (path, authorization) == ("/repos/some/project/pulls", "Bearer a-secret-token")
    assert (request["head"], request["base"]) == (proposed.branch, "main")
    assert git(tmp_path / "remote.git", "rev-parse", proposed.branch) == git(root, "rev-parse", proposed.branch)
    assert "a-secret-token" not in " ".join(said)


def test_an_automatic_pin_is_a_commit_of_that_one_line(root: Path) -> None:
    recipe = root / "recipes" / "toy.yaml"
    commit_pin(root, recipe, AFTER, "toy: some/encoder at bbbb", lambda _: None)
    assert git(root, "diff", "--name-only", "HEAD^", "HEAD") == "project/recipes/toy.yaml"
    assert git(root, "diff", "--numstat", "HEAD^", "HEAD").split()[:2] == ["1", "1"]
    assert git(root, "diff", "--cached", "--name-only") == "project/staged.txt", "what somebody staged is theirs"


def test_a_recipe_with_edits_gets_its_pin_and_no_commit(root: Path) -> None:
    recipe = root / "recipes" / "toy.yaml"
    recipe.write_text(BEFORE + "seed: 1\n")
    head = git(root, "rev-parse", "HEAD")
    commit_pin(root, recipe, AFTER + "seed: 1\n", "toy", lambda _: None)
    assert (git(root, "rev-parse", "HEAD"), recipe.read_text()) == (head, AFTER + "seed: 1\n")
