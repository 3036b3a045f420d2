"""A proposal: one commit on a branch of its own, with the recipe's new pin, the page, the verdict and the plan. The working tree is not touched.

Without a git repository the same files go into a folder. Where a forge is named in ``watch.yaml`` and its token is given, the branch is pushed and a pull request made.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recompress.errors import InputError, StorageError
from recompress.watch.pins import changed_lines
from recompress.watch.settings import Forge

TOKEN = "RECOMPRESS_FORGE_TOKEN"
FOLDER = "proposals"
TIMEOUT_S = 60
NOTHING = "0" * 40
OWN = "refs/as-proposed"
Say = Callable[[str], None]
Move = Callable[[str], str]
"""From a recipe's text to the same with its pin moved; raises ``InputError`` where that is not the pin that it was."""


@dataclass(frozen=True)
class Proposal:
    """What a person is asked to merge."""

    recipe: str
    key: str
    title: str
    story: str
    outcome: Mapping[str, Any]
    """What the run said, as ``recompress run --json`` prints it."""

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.key[:8]}"

    def files(self, recipe_text: str, before: str) -> dict[str, bytes]:
        """The evidence, by its path below the folder of proposals."""
        page = Path(str(self.outcome.get("page") or ""))
        evidence = {
            "README.md": self._read_me(before, recipe_text).encode(),
            "verdict.json": _json(self.outcome.get("verdicts") or {}),
            "plan.json": _json({"promotion": self.outcome.get("promotion"), "made_from": self.outcome.get("made_from"), "key": self.key}),
        }
        if page.is_file():
            evidence["report.html"] = page.read_bytes()
        return {f"{FOLDER}/{self.name}/{name}": data for name, data in evidence.items()}

    def _read_me(self, before: str, after: str) -> str:
        changed = "\n".join(changed_lines(before, after))
        return f"# {self.title}\n\n{self.story}\n\n```diff\n{changed}\n```\n\nMerge this and run the recipe: every step is found again, and the gate promotes what it let through here.\n"


@dataclass(frozen=True)
class Proposed:
    """Where a proposal is."""

    branch: str
    pull_request: str = ""


def propose(root: Path, recipe: Path, move: Move, proposal: Proposal, forge: Forge | None, say: Say) -> Proposed:
    """Write the commit: the recipe as it is committed now, with its pin moved. Raises ``InputError`` where the recipe here is not the one that is committed, or its
    pin is another than it was, and ``StorageError`` where git refuses."""
    top = _top(root)
    real = recipe.resolve()
    if top is None or not real.is_relative_to(top):
        before = read_exactly(recipe)
        text = move(before)
        for name, data in {**proposal.files(text, before), f"{FOLDER}/{proposal.name}/{recipe.name}": text.encode()}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        why = "this project is in no git repository" if top is None else f"{recipe.name} lies outside of this git repository ({real})"
        say(f"{proposal.recipe}: {why}, so the proposal is a folder: {FOLDER}/{proposal.name}")
        return Proposed("", f"{FOLDER}/{proposal.name}")
    place = real.relative_to(top).as_posix()
    if not _tracked_and_clean(root, real):
        raise InputError(f"{place} has changes that are not committed, so a branch with another pin would not be what was run; commit it, and look again")
    before = _git(root, "cat-file", "blob", f"HEAD:{place}", strip=False)
    text = move(before)
    prefix = _git(root, "rev-parse", "--show-prefix")
    files = {f"{prefix}{name}": data for name, data in proposal.files(text, before).items()}
    commit = _commit(root, {**files, place: text.encode()}, f"{proposal.title}\n\n{proposal.story}\n")
    branch = f"recompress/{proposal.name}"
    if not _point(root, branch, commit):
        say(f"{proposal.recipe}: branch {branch} is there and holds what somebody did on it, so it is left alone; delete it, and a look proposes anew")
        return Proposed(branch)
    say(f"{proposal.recipe}: proposed on branch {branch}; git diff HEAD...{branch}, and git merge {branch} takes it")
    return Proposed(branch, _pull_request(root, branch, proposal, forge, say))


def commit_pin(root: Path, recipe: Path, move: Move, title: str, say: Say) -> None:
    """Move the pin in the recipe as it stands now, after its promotion; where git knows it as it stands, as a commit of that one line. Raises ``InputError`` where the
    pin is another than it was; then nothing is written."""
    recipe = recipe.resolve()  # a link stays one
    clean = _tracked_and_clean(root, recipe)
    before = read_exactly(recipe)
    text = move(before)
    if text == before:
        say(f"{title}: that pin stands in {recipe.name} already")
        return
    partial = recipe.with_name(f".{recipe.name}.{os.getpid()}")
    partial.write_bytes(text.encode())
    shutil.copymode(recipe, partial)
    partial.replace(recipe)
    how = ""
    if clean:
        try:
            _git(root, *_identity(root), "commit", "--quiet", "--no-verify", "--only", "-m", title, "--", str(recipe))
            how = " and was committed"
        except StorageError as error:
            how = f", and git does not take the commit ({error}); commit it"
    say(f"{title}: the pin in {recipe.name} moved{how}")


def read_exactly(path: Path) -> str:
    """A text with the ends of lines that it has. Raises ``InputError``."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None


def _point(root: Path, branch: str, commit: str) -> bool:
    """Let the branch be at the commit. False where it is there and is not as a watch left it, or where somebody has it checked out: it is theirs.

    What a watch left is known by a reference beside it. Both are moved at once, from where they were or not at all.
    """
    head, own = f"refs/heads/{branch}", f"{OWN}/{branch}"
    here = {reference: _at(root, reference) for reference in (head, own)}
    out = f"branch {head}" in _git(root, "worktree", "list", "--porcelain").splitlines()
    if here[head] and (out or here[head] != here[own]):
        return False
    lines = [f"update {reference} {commit} {here[reference] or NOTHING}\n" for reference in here]
    try:
        _git(root, "update-ref", "--stdin", data="".join(lines).encode())
    except StorageError:
        if _at(root, head) == here[head]:
            raise
        return False  # somebody was quicker
    return True


def _at(root: Path, reference: str) -> str:
    """The commit that a reference is at; empty where there is none."""
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", reference)
    except StorageError:
        return ""


def _commit(root: Path, files: Mapping[str, bytes], message: str) -> str:
    """A commit on top of HEAD with these files in place of what is there, made in an index of its own."""
    index = root / ".recompress" / f"index.{os.getpid()}"
    index.parent.mkdir(exist_ok=True)
    own = {"GIT_INDEX_FILE": str(index)}
    try:
        _git(root, "read-tree", "HEAD", env=own)
        for name, data in files.items():
            blob = _git(root, "hash-object", "-w", "--stdin", data=data)
            mode = (_git(root, "ls-tree", "--full-tree", "HEAD", name).split() or ["100644"])[0]
            _git(root, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}", env=own)
        tree = _git(root, "write-tree", env=own)
        return _git(root, *_identity(root), "commit-tree", tree, "-p", "HEAD", "-m", message)
    finally:
        index.unlink(missing_ok=True)


def _identity(root: Path) -> list[str]:
    """Who commits, where nobody has told git."""
    try:
        _git(root, "var", "GIT_COMMITTER_IDENT")
        return []
    except StorageError:
        return ["-c", "user.name=recompress watch", "-c", "user.email=recompress@localhost"]


def _top(root: Path) -> Path | None:
    """The top folder of the git repository that the project is in; ``None`` where there is none, or one without a commit."""
    try:
        _git(root, "rev-parse", "--verify", "HEAD")
        return Path(_git(root, "rev-parse", "--show-toplevel", strip=False).removesuffix("\n")).resolve()
    except StorageError:
        return None


def _tracked_and_clean(root: Path, recipe: Path) -> bool:
    try:
        _git(root, "ls-files", "--error-unmatch", str(recipe.resolve()))
        return not _git(root, "status", "--porcelain", "--", str(recipe.resolve()))
    except StorageError:
        return False


def _pull_request(root: Path, branch: str, proposal: Proposal, forge: Forge | None, say: Say) -> str:
    """Push the branch and ask for it to be merged, where a forge and its token are given. A forge that refuses takes nothing from the proposal: the branch is there."""
    token = os.environ.get(TOKEN, "").strip()
    if forge is None or not token:
        return ""
    import httpx2 as httpx

    try:
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError(f"{TOKEN} holds what no token does: a space, or a letter that is not ASCII")
        _git(root, "push", "--quiet", forge.remote, f"refs/heads/{branch}:refs/heads/{branch}", env=_with_token(forge, token))
        request = {"title": proposal.title, "body": proposal.story, "head": branch, "base": forge.base}
        answer = httpx.post(f"{forge.api.rstrip('/')}/repos/{forge.repository}/pulls", json=request, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["html_url"])
    except Exception as error:  # whatever a forge answers, the proposal is made
        why = (str(error).splitlines() or [type(error).__name__])[0].replace(token, "***")[:200]
        say(f"{proposal.recipe}: the branch {branch} is here, but no pull request was made: {why}")
        return ""


def _with_token(forge: Forge, token: str) -> dict[str, str]:
    """An environment in which git gives the token to the forge's own host and to no other, not even to one that the forge leads on to. It stands in no argument and in
    no address, where other users of this machine could read it."""
    place = urlsplit(forge.api)
    host = place.netloc.rpartition("@")[2]
    if host == "api.github.com" or (host.startswith("api.") and host.endswith(".ghe.com")):
        host = host.removeprefix("api.")  # GitHub's API has a host of its own
    login = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    count, there = os.environ.get("GIT_CONFIG_COUNT", ""), f"http.{place.scheme}://{host}/"
    first = int(count) if count.isdecimal() else 0
    said = {"GIT_CONFIG_COUNT": str(first + 2)}
    for number, (key, value) in enumerate([("extraHeader", f"Authorization: Basic {login}"), ("followRedirects", "false")], start=first):
        said |= {f"GIT_CONFIG_KEY_{number}": f"{there}.{key}", f"GIT_CONFIG_VALUE_{number}": value}
    return said


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def _git(root: Path, *question: str, env: Mapping[str, str] | None = None, data: bytes | None = None, strip: bool = True) -> str:
    """Raises ``StorageError`` with the line by which git refuses."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(env or {})}
    given: dict[str, Any] = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
    try:
        completed = subprocess.run(["git", *question], cwd=root, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False, **given)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StorageError(f"git cannot be asked ({type(error).__name__})") from None
    if completed.returncode:
        lines = completed.stderr.decode(errors="replace").strip().splitlines()
        raise StorageError(f"git {question[0]}: {lines[0] if lines else f'exit code {completed.returncode}'}")
    answer: str = completed.stdout.decode(errors="replace")
    return answer.strip() if strip else answer
