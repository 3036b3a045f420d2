"""Which code a promotion was made with: the parts whose fingerprint it names, and the commit of the project."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

CODE = ("recompress.recipe", "recompress.methods.runner", "recompress.training", "recompress.gate", "recompress.promotion")


log = logging.getLogger(__name__)


def git_commit(root: Path, say: Callable[[str], None] = log.warning) -> str:
    """The commit of the project, with ``-dirty`` where tracked files differ from it; empty where git gives none, and ``say`` is told why in git's own words."""
    commit, reason = ask_git(root, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    if reason:
        say(f"no git commit is recorded: {reason}")
    return commit


def ask_git(root: Path, *question: str) -> tuple[str, str]:
    """What git answers in the project, and the line by which it refuses; one of them is empty. It is asked in the user's own settings, but in plain English."""
    try:
        completed = subprocess.run(
            ["git", *question], cwd=root, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"git cannot be asked ({error})"
    if completed.returncode == 0:
        return completed.stdout.strip(), ""
    return "", next(iter(completed.stderr.strip().splitlines()), f"git ends with exit code {completed.returncode}")
