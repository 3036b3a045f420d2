"""A proposal: one commit on a branch of its own, with the recipe's new pin, the page, the verdict and the plan. The working tree is not touched.

Without a git repository the same files go into a folder. Where a forge is named in ``watch.yaml`` and its token is given, the branch is pushed and a pull request made.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recompress.errors import InputError, StorageError
from recompress.watch.pins import changed_lines
from recompress.watch.settings import Forge

TOKEN = "RECOMPRESS_FORGE_TOKEN"
FOLDER = "proposals"
TIMEOUT_S = 60
Say = Callable[[str], None]


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


def propose(root: Path, recipe: Path, text: str, proposal: Proposal, forge: Forge | None, say: Say) -> Proposed:
    """Write the commit. Raises ``InputError`` where the recipe on the branch is not the one that was run, ``StorageError`` where git refuses."""
    before = recipe.read_text(encoding="utf-8")
    files = proposal.files(text, before)
    if not _is_repository(root):
        for name, data in {**files, f"{FOLDER}/{proposal.name}/{recipe.name}": text.encode()}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        say(f"{proposal.recipe}: this project is in no git repository, so the proposal is a folder: {FOLDER}/{proposal.name}")
        return Proposed("", f"{FOLDER}/{proposal.name}")
    prefix = _git(root, "rev-parse", "--show-prefix")
    place = recipe.resolve().relative_to(root.resolve()).as_posix()
    if _git(root, "show", f"HEAD:{prefix}{place}", strip=False) != before:
        raise InputError(f"{place} has changes that are not committed, so a branch with another pin would not be what was run; commit it, and look again")
    branch = f"recompress/{proposal.name}"
    commit = _commit(root, {f"{prefix}{name}": data for name, data in {**files, place: text.encode()}.items()}, f"{proposal.title}\n\n{proposal.story}\n")
    _git(root, "update-ref", f"refs/heads/{branch}", commit)
    say(f"{proposal.recipe}: proposed on branch {branch}; git diff HEAD...{branch}, and git merge {branch} takes it")
    return Proposed(branch, _pull_request(root, branch, proposal, forge, say))


def commit_pin(root: Path, recipe: Path, text: str, title: str, say: Say) -> None:
    """Move the pin in the project itself, after its promotion; where git knows the recipe as it was, as a commit of that one line."""
    clean = _is_repository(root) and _tracked_and_clean(root, recipe)
    partial = recipe.with_name(f".{recipe.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(recipe)
    if clean:
        _git(root, *_identity(root), "commit", "--quiet", "--no-verify", "--only", "-m", title, "--", str(recipe.resolve()))
    say(f"{title}: the pin in {recipe.name} moved{' and was committed' if clean else ''}")


def _commit(root: Path, files: Mapping[str, bytes], message: str) -> str:
    """A commit on top of HEAD with these files in place of what is there, made in an index of its own."""
    index = root / ".recompress" / f"index.{os.getpid()}"
    index.parent.mkdir(exist_ok=True)
    own = {"GIT_INDEX_FILE": str(index)}
    try:
        _git(root, "read-tree", "HEAD", env=own)
        for name, data in files.items():
            blob = _git(root, "hash-object", "-w", "--stdin", data=data)
            _git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=own)
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


def _is_repository(root: Path) -> bool:
    try:
        return bool(_git(root, "rev-parse", "--verify", "HEAD"))
    except StorageError:
        return False


def _tracked_and_clean(root: Path, recipe: Path) -> bool:
    try:
        _git(root, "ls-files", "--error-unmatch", str(recipe.resolve()))
        return not _git(root, "status", "--porcelain", "--", str(recipe.resolve()))
    except StorageError:
        return False


def _pull_request(root: Path, branch: str, proposal: Proposal, forge: Forge | None, say: Say) -> str:
    """Push the branch and ask for it to be merged, where a forge and its token are given. A forge that refuses takes nothing from the proposal: the branch is there."""
    token = os.environ.get(TOKEN)
    if forge is None or not token:
        return ""
    import httpx2 as httpx

    try:
        _git(root, "push", "--quiet", forge.remote, f"{branch}:{branch}")
        request = {"title": proposal.title, "body": proposal.story, "head": branch, "base": forge.base}
        answer = httpx.post(f"{forge.api.rstrip('/')}/repos/{forge.repository}/pulls", json=request, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["html_url"])
    except (StorageError, httpx.HTTPError, ValueError, KeyError) as error:
        say(f"{proposal.recipe}: the branch {branch} is here, but no pull request was made: {str(error).splitlines()[0][:200]}")
        return ""


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
