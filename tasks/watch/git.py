"""A look at the git repository of a DVC import: what is imported, at the branch's present commit and at the pinned one. Asked of git, without a checkout.

What is imported may be files of git, or files that DVC tracks there: then git has their digests alone, in a pointer (``tickets.dvc``) or in a ``dvc.lock``.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from recompress.errors import without_passwords
from recompress.integrity.digest import sha256_json
from recompress.watch.sources import Sight, Source

TIMEOUT_S = 30.0
ZERO = "0" * 40
COMMIT = re.compile(r"[0-9a-f]{7,40}")
DIGESTS = ("md5", "checksum", "etag", "version_id", "files")
"""What DVC writes of an output that changes with what is in it."""
MOST_POINTERS = 200


def look_at_import(source: Source, url: str, path: str, branch: str = "", rev: str = "") -> Sight:
    """``url`` is the repository's, which may hold a password, ``source.pinned`` the commit that is imported, ``path`` what of it. Looked at is ``branch``; where none is
    named, the ``rev`` that the import was made with, or else HEAD."""
    try:
        head = _commit_at(url, branch, rev, source.pinned)
        with tempfile.TemporaryDirectory(prefix="recompress-look-") as place:
            _git(place, "init", "--quiet", "--bare")
            pinned = _imported(place, url, source.pinned, path)
            if pinned == ZERO:
                raise NotThere(
                    f"what {path} was at the pinned commit {source.pinned[:12]} cannot be told: git has no such path there, and no DVC file names it"
                )
            if head == source.pinned:
                return Sight(source, digest=pinned, pinned_digest=pinned, revision=head)
            present = _imported(place, url, head, path)
            seen = Sight(source, digest=present, pinned_digest=pinned, revision=head)
    except NotThere as error:
        return Sight(source, away=str(error))
    if not seen.moved:
        return seen
    way_out = f"look at it, then: dvc update{f' --rev {branch}' if branch else ''}, and recompress data accept"
    return Sight(source, present, pinned, head, waits=f"its repository holds other files of {path} than are pinned ({head[:12]}); {way_out}")


class NotThere(Exception):
    """Git gives no answer, and says why."""


def _commit_at(url: str, branch: str, rev: str, pinned: str) -> str:
    """The commit that is looked at. A name is meant as a whole: ``main`` is not ``exp/main``. A commit that an import was made with never moves."""
    name = branch or rev or "HEAD"
    there = dict(line.split("\t")[::-1] for line in _git(None, "ls-remote", "--", url).splitlines() if "\t" in line)
    kinds = ("refs/heads/", "refs/tags/") if branch else ("refs/tags/", "refs/heads/")  # DVC, too, takes a tag before a branch
    for full in (name,) if name == "HEAD" or name.startswith("refs/") else tuple(f"{kind}{name}" for kind in kinds):
        if full in there:
            return str(there.get(f"{full}^{{}}", there[full]))  # the commit that a tag with a message names
    if not branch and COMMIT.fullmatch(name) and pinned.startswith(name):
        return pinned
    raise NotThere(f"there is no branch {branch}" if branch else f"there is no branch, tag or commit {name}")


def _imported(place: str, url: str, commit: str, path: str) -> str:
    """The digest of a path at a commit: of git's object, and of what DVC tracks at it, above it or below it. Zeros where neither has it."""
    _git(place, "fetch", "--quiet", "--depth=1", "--filter=blob:none", url, commit)
    wanted = posixpath.normpath(path.strip("/"))
    try:
        tree = _git(place, "rev-parse", "--verify", f"{commit}:{wanted if wanted != '.' else ''}")
    except NotThere:
        tree = ""
    outs = _tracked(place, commit, wanted)
    return sha256_json({"tree": tree, "outs": outs}) if outs else tree or ZERO


def _tracked(place: str, commit: str, wanted: str) -> dict[str, Any]:
    """What DVC's files say of the path, by the outputs that are it, hold it, or lie in it."""
    names = _git(place, "ls-tree", "-r", "-z", "--name-only", commit).split("\0")
    pointers = [name for name in names if name.endswith(".dvc") and _meet(posixpath.dirname(name), wanted)]
    pointers.sort(key=lambda name: (name != f"{wanted}.dvc", name))
    locks = [name for name in names if posixpath.basename(name) == "dvc.lock"]
    outs = dict[str, Any]()
    for name in [*pointers, *locks][:MOST_POINTERS]:
        for out, digests in _outs(name, _git(place, "cat-file", "blob", f"{commit}:{name}")):
            if digests and _meet(out, wanted):
                outs[out] = digests
        if wanted in outs:
            break
    return outs


def _outs(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The outputs of a pointer or of the stages of a lock: their paths in the repository, and their digests. What cannot be read names none."""
    try:
        document = yaml.safe_load(text)
        stages = list((document.get("stages") or {}).values()) if posixpath.basename(name) == "dvc.lock" else [document]
        for stage in stages:
            folder = posixpath.join(posixpath.dirname(name), str(stage.get("wdir") or "."))
            for out in stage.get("outs") or ():
                yield posixpath.normpath(posixpath.join(folder, out["path"])), {key: out[key] for key in DIGESTS if out.get(key)}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return


def _meet(one: str, other: str) -> bool:
    """Whether one of two paths holds the other, or both are the same."""
    inside = (f"{one}/".startswith(f"{other}/"), f"{other}/".startswith(f"{one}/"))
    return any(inside) or one in ("", ".") or other == "."


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
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotThere(f"git cannot be asked ({type(error).__name__})") from None
    if completed.returncode:
        lines = completed.stderr.strip().splitlines()
        raise NotThere(without_passwords(lines[0]) if lines else f"git ends with exit code {completed.returncode}")
    return completed.stdout.strip()
