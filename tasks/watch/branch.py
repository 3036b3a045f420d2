"""Commits and branches that are made beside the working tree, by git itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recompress.errors import StorageError

TIMEOUT_S = 60
NOTHING = "0" * 40
OWN = "refs/as-proposed"


def git(root: Path, *question: str, env: Mapping[str, str] | None = None, data: bytes | None = None, strip: bool = True) -> str:
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


def point(root: Path, branch: str, commit: str) -> bool:
    """Let the branch be at the commit. False where it is there and is not as a watch left it, or where somebody has it checked out: it is theirs.

    What a watch left is known by a reference beside it. Both are moved at once, from where they were or not at all.
    """
    head, own = f"refs/heads/{branch}", f"{OWN}/{branch}"
    here = {reference: at(root, reference) for reference in (head, own)}
    out = f"branch {head}" in git(root, "worktree", "list", "--porcelain").splitlines()
    if here[head] and (out or here[head] != here[own]):
        return False
    lines = [f"update {reference} {commit} {here[reference] or NOTHING}\n" for reference in here]
    try:
        git(root, "update-ref", "--stdin", data="".join(lines).encode())
    except StorageError:
        if at(root, head) == here[head]:
            raise
        return False  # somebody was quicker
    return True


def at(root: Path, reference: str) -> str:
    """The commit that a reference is at; empty where there is none."""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", reference)
    except StorageError:
        return ""


def commit_on_top(root: Path, files: Mapping[str, bytes], message: str) -> str:
    """A commit on top of HEAD with these files in place of what is there, made in an index of its own."""
    index = root / ".recompress" / f"index.{os.getpid()}"
    index.parent.mkdir(exist_ok=True)
    own = {"GIT_INDEX_FILE": str(index)}
    try:
        git(root, "read-tree", "HEAD", env=own)
        for name, data in files.items():
            blob = git(root, "hash-object", "-w", "--stdin", data=data)
            mode = (git(root, "ls-tree", "--full-tree", "HEAD", name).split() or ["100644"])[0]
            git(root, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}", env=own)
        tree = git(root, "write-tree", env=own)
        return git(root, *identity(root), "commit-tree", tree, "-p", "HEAD", "-m", message)
    finally:
        index.unlink(missing_ok=True)


def identity(root: Path) -> list[str]:
    """Who commits, where nobody has told git."""
    try:
        git(root, "var", "GIT_COMMITTER_IDENT")
        return []
    except StorageError:
        return ["-c", "user.name=recompress watch", "-c", "user.email=recompress@localhost"]


def top_of(root: Path) -> Path | None:
    """The top folder of the git repository that the project is in; ``None`` where there is none, or one without a commit."""
    try:
        git(root, "rev-parse", "--verify", "HEAD")
        return Path(git(root, "rev-parse", "--show-toplevel", strip=False).removesuffix("\n")).resolve()
    except StorageError:
        return None


def tracked_and_clean(root: Path, recipe: Path) -> bool:
    """Whether git knows a file as it stands."""
    try:
        git(root, "ls-files", "--error-unmatch", str(recipe.resolve()))
        return not git(root, "status", "--porcelain", "--", str(recipe.resolve()))
    except StorageError:
        return False
