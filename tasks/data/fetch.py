"""The ways to the bytes of a pinned folder, nearest first. Each gives a folder on the bench that hashes to the pin, or a reason why it cannot."""

from __future__ import annotations

import importlib.metadata
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from recompress.errors import DataRefused
from tasks.data.pins import Pin, difference, measure
from tasks.data.workbench import Bench, run_dvc, said_last

MIRROR = "RECOMPRESS_DATA_MIRROR"
"""Names a folder with local copies of raw data, one folder for each data set."""
ANSWER_WITHIN_S = 5.0


def from_cache(work: Bench, pin: Pin) -> Path | None:
    """What DVC kept of it, if it kept all and nothing in it was altered."""
    place = work.check_out(pin)
    return place if place is not None and measure(place).md5 == pin.md5 else None


def from_mirror(work: Bench, pin: Pin, name: str) -> Path | None:
    """A copy in the local mirror. Raises ``DataRefused`` when the mirror holds something else under this name."""
    mirror = os.environ.get(MIRROR)
    if not mirror or not (Path(mirror) / name).is_dir():
        return None
    directory = Path(mirror) / name
    measured = measure(directory)
    if measured.md5 != pin.md5:
        raise DataRefused(f"{directory} ({MIRROR}) is not the pinned {name!r}: {difference(measured, pin)}")
    work.say(f"{name}: taking the local mirror's copy")
    return work.add(directory)


def from_network(work: Bench, pin: Pin) -> Path | str:
    """From a DVC remote, or from the git repository that the data is imported from; or the reason why not."""
    if not work.remotes and not pin.url:
        return "no DVC remote is set up, and it is not imported from a repository"
    if not work.remotes and (host := urlsplit(pin.url).hostname) and not answers(host):
        return f"no network: {host} does not answer"
    work.say(f"{pin.path}: fetching from {pin.url or work.remotes[0]}")
    completed = run_dvc(work.root, work.root, "fetch", pin.target)
    if completed.returncode != 0:
        return said_last(completed)
    return from_cache(work, pin) or f"{pin.url or work.remotes[0]} does not hold these bytes"


def answers(host: str) -> bool:
    """Whether a connection for https can be opened."""
    try:
        socket.create_connection((host, 443), timeout=ANSWER_WITHIN_S).close()
    except OSError:
        return False
    return True


def other_versions(root: Path) -> str:
    """Packages whose version is not the one that ``constraints.txt`` pins: they are why collected text changes."""
    path = root / "constraints.txt"
    constraints = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pinned = dict(line.strip().split("==", 1) for line in constraints if "==" in line)
    other = []
    for package, version in pinned.items():
        try:
            installed = importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed != version.strip().split("+")[0]:
            other.append(f"{package} {installed} instead of {version.strip()}")
    return f" (installed: {', '.join(other[:5])})" if other else ""
