"""Which code a promotion was made with: the parts whose fingerprint it names, and the commit of the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

CODE = ("recompress.recipe", "recompress.methods.runner", "recompress.training", "recompress.gate", "recompress.promotion")


def git_commit(root: Path) -> str:
    """The commit of the project, with ``-dirty`` where tracked files differ from it; empty outside git."""
    try:
        completed = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"], cwd=root, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout.strip()
