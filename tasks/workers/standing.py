"""How a run and its workers stand: by which commit, which pinned packages, which that are installed."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from functools import cache
from pathlib import Path

from recompress.integrity.digest import sha256_file, sha256_json
from tasks.running.code import git_commit
from tasks.running.threads import threads_of_a_step

CONSTRAINTS = "constraints.txt"


def standing_of(root: Path) -> dict[str, str]:
    """Commit of the project, digest of its ``constraints.txt``, digest of the installed packages that this one asks for, and threads of a step."""
    constraints = root / CONSTRAINTS
    return {
        "commit": git_commit(root, lambda _: None),
        CONSTRAINTS: sha256_file(constraints) if constraints.is_file() else "",
        "packages": sha256_json(packages()),
        "threads": str(threads_of_a_step()),
    }


@cache
def packages() -> dict[str, str]:
    """Python and the packages that this one asks for, without extras, by the versions that are installed."""
    asked = [line for line in importlib.metadata.requires("recompress") or () if "extra ==" not in line]
    names = sorted({match[0].lower() for line in asked if (match := re.match(r"[A-Za-z0-9._-]+", line))})
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""
