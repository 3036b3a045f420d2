"""The ways to the bytes of a pinned folder, nearest first. Each gives a folder on the bench that hashes to the pin, or a reason why it cannot."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from recompress.errors import DataRefused
from tasks.data.pins import Pin, difference, measure
from tasks.data.workbench import Bench, run_dvc, said_last

MIRROR = "RECOMPRESS_DATA_MIRROR"
"""Names a folder with local copies of raw data, one folder for each data set."""
ANSWER_WITHIN_S = 5.0
PORTS = {"https": 443, "http": 80, "git": 9418}
"""Where servers of these schemes listen, unless the URL says otherwise. Of others, ssh's above all, settings that only they read decide."""


def from_cache(work: Bench, pin: Pin) -> Path | None:
    """What DVC kept of it, if it kept all and nothing in it was altered."""
    place = work.check_out(pin)
    return place if place is not None and measure(place, legacy=pin.legacy).md5 == pin.md5 else None


def from_mirror(work: Bench, pin: Pin, name: str) -> Path | None:
    """A copy in the local mirror. Raises ``DataRefused`` when the mirror holds something else under this name."""
    mirror = os.environ.get(MIRROR)
    if not mirror or not (Path(mirror) / name).is_dir():
        return None
    directory = Path(mirror) / name
    measured = measure(directory, legacy=pin.legacy)
    if measured.md5 != pin.md5:
        raise DataRefused(f"{directory} ({MIRROR}) is not the pinned {name!r}: {difference(measured, pin)}")
    work.say(f"{name}: taking the local mirror's copy")
    return work.add(directory)


def from_network(work: Bench, pin: Pin) -> Path | str:
    """From a DVC remote, or from the git repository that the data is imported from; or the reason why not."""
    if not work.remotes and not pin.url:
        return "no DVC remote is set up, and it is not imported from a repository"
    if not work.remotes and (host := silent_host(pin.url)):
        return f"no network: {host} does not answer"
    work.say(f"{pin.path}: fetching from {pin.url or ', '.join(work.remotes)}")
    completed = run_dvc(work.root, work.root, "fetch", pin.target)
    if completed.returncode != 0:
        return said_last(completed)
    return from_cache(work, pin) or f"{pin.url or ', '.join(work.remotes)} does not hold these bytes"


def mirror_gone() -> str:
    """A word on a mirror that is named and not there; empty otherwise."""
    mirror = os.environ.get(MIRROR)
    return f"; {MIRROR} names {mirror}, which is no folder" if mirror and not Path(mirror).is_dir() else ""


def silent_host(url: str) -> str:
    """The host of a repository that cannot be reached, found out in seconds where DVC takes minutes; empty where it answers or where only DVC can tell: behind a
    proxy, by ssh, or where git is set to go elsewhere."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or getproxies().keys() - {"no"} or _goes_elsewhere():
        return ""
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), timeout=ANSWER_WITHIN_S).close()
    except (OSError, ValueError):
        return parts.hostname
    return ""


def _goes_elsewhere() -> bool:
    """Whether the user's git rewrites URLs or has a proxy of its own."""
    asked = ["git", "config", "--get-regexp", r"^(url\..*\.insteadof|http\.(.*\.)?proxy|core\.gitproxy)$"]
    try:
        return subprocess.run(asked, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


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
