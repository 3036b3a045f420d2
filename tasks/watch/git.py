"""A look at the git repository of a DVC import: the tree that is imported, at the branch's present commit and at the pinned one. Asked of git, without a checkout."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from recompress.errors import without_passwords
from recompress.watch.sources import Sight, Source

TIMEOUT_S = 30.0
ZERO = "0" * 40


def look_at_import(source: Source, url: str, path: str, branch: str = "HEAD") -> Sight:
    """``url`` is the repository's, which may hold a password, ``source.pinned`` the commit that is imported, ``path`` what of it."""
    try:
        head = _git(None, "ls-remote", "--exit-code", url, branch).split()[0]
        with tempfile.TemporaryDirectory(prefix="recompress-look-") as place:
            _git(place, "init", "--quiet", "--bare")
            pinned = _tree(place, url, source.pinned, path)
            if head == source.pinned:
                return Sight(source, digest=pinned, pinned_digest=pinned, revision=head)
            present, moved_at = _tree(place, url, head, path), _git(place, "log", "-1", "--format=%cI", head)
            seen = Sight(source, digest=present, pinned_digest=pinned, revision=head, moved_at=moved_at)
    except NotThere as error:
        return Sight(source, away=str(error))
    if not seen.moved:
        return seen
    way_out = "look at it, then: dvc update, and recompress data accept"
    return Sight(source, present, pinned, head, moved_at, waits=f"its repository holds other files of {path} than are pinned ({head[:12]}); {way_out}")


class NotThere(Exception):
    """Git gives no answer, and says why."""


def _tree(place: str, url: str, commit: str, path: str) -> str:
    """The object that a path is at a commit; of a path that is not there, zeros."""
    _git(place, "fetch", "--quiet", "--depth=1", "--filter=blob:none", url, commit)
    try:
        return _git(place, "rev-parse", "--verify", f"{commit}:{path.strip('/')}")
    except NotThere:
        return ZERO


def _git(place: str | None, *question: str) -> str:
    """Raises ``NotThere`` with the line by which git refuses. It never asks for a password."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
    try:
        completed = subprocess.run(
            ["git", *question],
            cwd=Path(place) if place else None,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotThere(f"git cannot be asked ({type(error).__name__})") from None
    if completed.returncode:
        lines = completed.stderr.strip().splitlines()
        raise NotThere(without_passwords(lines[0]) if lines else f"git ends with exit code {completed.returncode}")
    return completed.stdout.strip()
