"""What DVC's pointers in git say, read without DVC: which folder must have which md5.

DVC calls a folder by the md5 of the JSON list of its files, ``[{"md5": …, "relpath": …}, …]`` sorted by path, with ``.dir`` behind it. That is an identity and
no protection; the ledger records sha256 besides.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from recompress.data.version import KEY
from recompress.errors import DataRefused

LOCK = "dvc.lock"


class Pin(NamedTuple):
    """One folder that git pins."""

    path: str
    """Relative to the project."""
    md5: str
    size: int
    files: int
    pointer: str
    """The file in git that says so."""
    target: str
    """What DVC is asked for: the pointer, or the name of a stage."""
    origin: str = ""
    """Where the bytes come from, in words."""
    url: str = ""
    """The git repository that DVC imports from, where it does."""


class Measured(NamedTuple):
    """A folder as it is."""

    md5: str
    size: int
    files: int


def measure(directory: Path) -> Measured:
    """The md5 by which DVC knows a folder, its bytes and files. Raises ``DataRefused`` for a folder that is missing or empty, and for links in it."""
    files = []
    size = 0
    for path in directory.rglob("*"):
        if path.is_symlink():
            raise DataRefused(f"{path} is a link; a pinned folder holds plain files only")
        if path.is_file():
            with path.open("rb") as file:
                files.append({"md5": hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest(), "relpath": _relative(path, directory)})
            size += path.stat().st_size
    if not files:
        raise DataRefused(f"{directory} is {'empty' if directory.is_dir() else 'missing'}; expected a folder with the files of a data set")
    listing = json.dumps(sorted(files, key=lambda file: file["relpath"]), sort_keys=True)
    return Measured(hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir", size, len(files))


def tracked(root: Path) -> dict[str, Pin]:
    """The raw folders that ``*.dvc`` files pin, by their path."""
    pins = {}
    for pointer in sorted([*root.glob("*.dvc"), *root.glob("raw/*.dvc")]):
        if not pointer.is_file():
            continue
        document = _read(pointer)
        repository = ((document.get("deps") or [{}])[0]).get("repo") or {}
        for out in document["outs"]:
            path = _relative(pointer.parent / out["path"], root)
            url = str(repository.get("url", ""))
            origin = f"{url} at {repository['rev_lock'][:12]}, {document['deps'][0]['path']}" if url else str(document.get("desc", ""))
            name = _relative(pointer, root)
            pins[path] = Pin(path, out["md5"], out.get("size", 0), out.get("nfiles", 0), name, name, origin, url)
    return pins


def locked_outputs(lock: Path) -> dict[str, Pin]:
    """The folders that the stages in a ``dvc.lock`` wrote, by their path."""
    return {
        out["path"]: Pin(out["path"], out["md5"], out.get("size", 0), out.get("nfiles", 0), lock.name, stage)
        for stage, record in _stages(lock).items()
        for out in record.get("outs", [])
    }


def is_made(root: Path, path: str) -> bool:
    """Whether a stage of ``dvc.yaml`` makes this folder."""
    return any(path in (settings.get("outs") or ()) for settings in _stages(root / "dvc.yaml").values())


def locked_inputs(lock: Path, stage: str) -> dict[str, str]:
    """The md5 of everything that a stage read when it was pinned, by its path."""
    return {dep["path"]: dep["md5"] for dep in _stages(lock).get(stage, {}).get("deps", [])}


def locked_version(lock: Path, stage: str, module: str) -> str:
    """The version of the code that a stage ran with when it was pinned; empty where ``dvc.lock`` does not say."""
    return str(_stages(lock).get(stage, {}).get("params", {}).get("params.yaml", {}).get(f"{KEY}.{module}", ""))


def pins_of(root: Path, name: str, source: str) -> tuple[Pin, Pin]:
    """The pins of the raw and of the prepared folder. Raises ``DataRefused`` when there is none, or when they do not belong together."""
    outputs = locked_outputs(root / LOCK)
    raw, prepared = tracked(root).get(source) or outputs.get(source), outputs.get(f"prepared/{name}")
    if raw is None or prepared is None:
        raise DataRefused(f"data set {name!r} is not pinned in dvc.lock yet; `recompress data accept {name}` prepares it and pins what comes out")
    used = locked_inputs(root / LOCK, prepared.target).get(raw.path)
    if used != raw.md5:
        raise DataRefused(
            f"data set {name!r} changed: {raw.pointer} pins {raw.path} as {raw.md5[:12]}…, but what dvc.lock pins was prepared from {str(used)[:12]}…; "
            f"`recompress data accept {name}` prepares it again and pins what comes out"
        )
    return raw, prepared


def is_here(root: Path, pin: Pin) -> bool:
    """Whether the folder is in the project as pinned. Raises ``DataRefused`` when it holds other bytes: they are not used, and not thrown away either."""
    place = root / pin.path
    if not place.exists():
        return False
    measured = measure(place)
    if measured.md5 != pin.md5:
        raise DataRefused(f"{pin.path} was changed: {difference(measured, pin)}; move it away, and the pinned bytes are brought again")
    return True


def difference(measured: Measured, pin: Pin) -> str:
    """What tells a folder from a pin, in words."""
    differences = [f"it hashes to {measured.md5[:12]}…, {pin.pointer} pins {pin.md5[:12]}…"]
    if measured.files != pin.files:
        differences.append(f"{measured.files:,} instead of {pin.files:,} files")
    if measured.size != pin.size:
        differences.append(f"{measured.size:,} instead of {pin.size:,} bytes")
    if len(differences) == 1:
        differences.append(f"as many files ({measured.files:,}) and bytes ({measured.size:,}), but not the same")
    return ", ".join(differences)


def nearest(measured: Measured, pins: list[Pin]) -> str:
    if not pins:
        return "none: no .dvc file is here"
    pin = min(pins, key=lambda pin: (abs(pin.size - measured.size) + 1) * (abs(pin.files - measured.files) + 1))
    return f"{pin.path}: {difference(measured, pin)}"


def _stages(lock: Path) -> dict[str, Any]:
    return dict(_read(lock).get("stages") or {}) if lock.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataRefused(f"{path} cannot be read: {str(error).splitlines()[0]}; restore it from git") from None
    if not isinstance(document, dict):
        raise DataRefused(f"{path} is no pointer of DVC; restore it from git")
    return document


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
