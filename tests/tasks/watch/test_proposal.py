"""A proposal is one commit on a branch of its own: one line of the recipe, and the evidence beside it. Nothing else of the repository is touched."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError
from recompress.watch.pins import move_pins_since
from recompress.watch.settings import Forge
from tasks.watch.proposal import Proposal, commit_pin, propose
from tests.hub import HubHandler, serving

BEFORE = "name: toy\nbase: {model: some/encoder, revision: aaaa}\n"
AFTER = "name: toy\nbase: {model: some/encoder, revision: bbbb}\n"


def to_b(text: str) -> str:
    return move_pins_since(BEFORE, text, "base", {"revision": "bbbb"})


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
    proposed = propose(root, root / "recipes" / "toy.yaml", to_b, proposal(tmp_path), None, lambda _: None)
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
        propose(root, recipe, to_b, proposal(tmp_path), None, lambda _: None)
    assert git(root, "branch", "--list", "recompress/*") == ""


def test_without_a_repository_the_proposal_is_a_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(BEFORE)
    proposed = propose(tmp_path, recipe, to_b, proposal(tmp_path), None, lambda _: None)
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
        assert propose(root, recipe, to_b, proposal(tmp_path), forge, said.append).pull_request == ""
        assert ForgeServer.asked == [], "no token, no request"
        monkeypatch.setenv("RECOMPRESS_FORGE_TOKEN", "a-secret-token")
        proposed = propose(root, recipe, to_b, proposal(tmp_path), forge, said.append)
    assert proposed.pull_request == url
    [(path, authorization, request)] = ForgeServer.asked
    assert (path, authorization) == ("/repos/some/project/pulls", "Bearer a-secret-token")
    assert (request["head"], request["base"]) == (proposed.branch, "main")
    assert git(tmp_path / "remote.git", "rev-parse", proposed.branch) == git(root, "rev-parse", proposed.branch)
    assert "a-secret-token" not in " ".join(said)


def test_an_automatic_pin_is_a_commit_of_that_one_line(root: Path) -> None:
    recipe = root / "recipes" / "toy.yaml"
    commit_pin(root, recipe, to_b, "toy: some/encoder at bbbb", lambda _: None)
    assert git(root, "diff", "--name-only", "HEAD^", "HEAD") == "project/recipes/toy.yaml"
    assert git(root, "diff", "--numstat", "HEAD^", "HEAD").split()[:2] == ["1", "1"]
    assert git(root, "diff", "--cached", "--name-only") == "project/staged.txt", "what somebody staged is theirs"


def test_a_recipe_with_edits_gets_its_pin_and_no_commit(root: Path) -> None:
    recipe = root / "recipes" / "toy.yaml"
    recipe.write_text(BEFORE + "seed: 1\n")
    head = git(root, "rev-parse", "HEAD")
    commit_pin(root, recipe, to_b, "toy", lambda _: None)
    assert (git(root, "rev-parse", "HEAD"), recipe.read_text()) == (head, AFTER + "seed: 1\n")


def proposed_again(root: Path, tmp_path: Path) -> tuple[str, list[str]]:
    said: list[str] = []
    branch = propose(root, root / "recipes" / "toy.yaml", to_b, proposal(tmp_path), None, said.append).branch
    return git(root, "rev-parse", f"refs/heads/{branch}"), said


def test_a_proposal_that_is_made_again_stands_on_what_is_there_now(root: Path, tmp_path: Path) -> None:
    """A watcher that was killed before its end was recorded."""
    first, _ = proposed_again(root, tmp_path)
    git(root, "commit", "-q", "--allow-empty", "-m", "another")
    again, said = proposed_again(root, tmp_path)
    assert (again != first, git(root, "rev-parse", f"{again}^"), "proposed on branch" in said[0]) == (True, git(root, "rev-parse", "HEAD"), True)


@pytest.mark.parametrize("does", ["adds", "amends", "resets", "checks out"])
def test_a_branch_that_is_somebody_s_is_left_alone_and_said_so(root: Path, tmp_path: Path, does: str) -> None:
    first, _ = proposed_again(root, tmp_path)
    git(root, "worktree", "add", "-q", str(tmp_path / "hers"), "recompress/toy-01234567")
    theirs = {
        "adds": ["commit", "-q", "--allow-empty", "-m", "hers"],
        "amends": ["commit", "-q", "--allow-empty", "--amend", "--no-edit", "--reset-author"],
        "resets": ["reset", "-q", "--hard", "HEAD^"],
        "checks out": ["status"],
    }
    git(tmp_path / "hers", *theirs[does])
    if does != "checks out":
        git(root, "worktree", "remove", "--force", str(tmp_path / "hers"))
    stood = git(root, "rev-parse", "refs/heads/recompress/toy-01234567")
    assert (stood == first) == (does == "checks out")
    again, said = proposed_again(root, tmp_path)
    assert (again, len(said), "left alone" in said[0]) == (stood, 1, True)


@pytest.mark.parametrize("where", ["outside", "beside"])
def test_a_recipe_that_is_a_link_is_proposed_where_it_really_is(root: Path, tmp_path: Path, where: str) -> None:
    recipe = root / "recipes" / "toy.yaml"
    shared = (tmp_path if where == "outside" else root.parent) / "shared.yaml"
    recipe.rename(shared)
    recipe.symlink_to(shared)
    git(root.parent, "add", "project/recipes", *(["shared.yaml"] if where == "beside" else []))
    git(root.parent, "commit", "-q", "-m", "linked")
    proposed = propose(root, recipe, to_b, proposal(tmp_path), None, lambda _: None)
    if where == "outside":
        assert (proposed.branch, (root / "proposals" / "toy-01234567" / "toy.yaml").read_text()) == ("", AFTER)
    else:
        assert git(root, "show", f"{proposed.branch}:shared.yaml") == AFTER.strip()
    commit_pin(root, recipe, to_b, "toy", lambda _: None)
    assert (recipe.is_symlink(), shared.read_text()) == (True, AFTER)


class Refusing(HubHandler):
    """A forge's git, which asks for a login and leads elsewhere on request."""

    asked: list[tuple[int, str]] = []
    leads_to = ""

    def get(self) -> None:
        self.asked.append((self.server.server_port, self.headers.get("Authorization", "")))  # type: ignore[attr-defined]
        if self.leads_to and not self.path.startswith("/there"):
            self.answer(302, {}, {"Location": f"{self.leads_to}/there{self.path}"})
        else:
            self.answer(403, {})


@pytest.mark.parametrize("remote", ["the forge", "another host", "a forge that leads on"])
def test_a_push_gives_the_token_to_the_forge_s_own_host_alone(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str) -> None:
    monkeypatch.setattr(Refusing, "asked", [])
    monkeypatch.setenv("RECOMPRESS_FORGE_TOKEN", "a-secret-token\n")
    said: list[str] = []
    with serving(Refusing) as own, serving(Refusing) as other:
        monkeypatch.setattr(Refusing, "leads_to", other if remote == "a forge that leads on" else "")
        git(root, "remote", "add", "origin", f"{other if remote == 'another host' else own}/some/project.git")
        forge = Forge(api=f"{own}/api/v1", repository="some/project")
        assert propose(root, root / "recipes" / "toy.yaml", to_b, proposal(tmp_path), forge, said.append).pull_request == ""
        expected = "Basic " + base64.b64encode(b"x-access-token:a-secret-token").decode()
        ports = {int(address.rpartition(":")[2]): expected if address == own else "" for address in (own, other)}
    assert Refusing.asked
    assert all(given == ports[port] for port, given in Refusing.asked)
    assert "no pull request was made" in said[-1]
    assert "a-secret-token" not in " ".join(said) + git(root, "config", "--list")


@pytest.mark.parametrize("token", ["two words", "söme", "a\nb"])
def test_what_is_no_token_is_said_without_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("RECOMPRESS_FORGE_TOKEN", token)
    said: list[str] = []
    propose(root, root / "recipes" / "toy.yaml", to_b, proposal(tmp_path), Forge(repository="some/project"), said.append)
    assert ("what no token does" in said[-1], token in said[-1]) == (True, False)
