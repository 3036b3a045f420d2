"""What DVC's pointers in git say, read without DVC: which folder must have which md5.

DVC calls a folder by the md5 of the JSON list of its files, ``[{"md5": …, "relpath": …}, …]`` sorted by path, with ``.dir`` behind it. That is an identity and
no protection; the ledger records sha256 besides.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from recompress.data.ignored import ignored_in
from recompress.data.version import KEY
from recompress.errors import DataRefused, without_passwords
from tasks.data.dvc_config import is_kept

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
    legacy: bool = False
    """Pinned by DVC 2, which hashed text as if its lines ended as on Unix."""


class Measured(NamedTuple):
    """A folder as it is."""

    md5: str
    size: int
    files: int


def measure(directory: Path, *, legacy: bool = False, root: Path | None = None) -> Measured:
    """The md5 by which DVC knows a folder, its bytes and files; what ``.dvcignore`` names is not counted, as DVC does not.

    Raises ``DataRefused`` for a folder that is missing or empty, and for links in it; with ``root``, links into that project's cache are what DVC put there.
    """
    files = []
    size = 0
    ignored = ignored_in(directory)
    for path in directory.rglob("*"):
        if ignored(path):
            continue
        if path.is_symlink() and (root is None or not is_kept(path, root)):
            raise DataRefused(f"{path} is a link; a pinned folder holds plain files only")
        if path.is_file():
            files.append({"md5": _md5(path, legacy), "relpath": _relative(path, directory)})
            size += path.stat().st_size
    if not files:
        raise DataRefused(f"{directory} is {'empty' if directory.is_dir() else 'missing'}; expected a folder with the files of a data set")
    listing = json.dumps(sorted(files, key=lambda file: file["relpath"]), sort_keys=True)
    return Measured(hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir", size, len(files))


def _md5(path: Path, legacy: bool) -> str:
    with path.open("rb") as file:
        if not legacy:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        from dvc_data.hashfile.hash import fobj_md5

        return str(fobj_md5(file, name="md5-dos2unix"))


def pointers(root: Path) -> Iterator[Path]:
    """Every ``.dvc`` file of the project, wherever it stands; not those of other projects inside it, and nothing inside what a pointer pins."""
    for place, folders, files in os.walk(root):
        names = sorted(name for name in files if name.endswith(".dvc"))
        yield from (Path(place) / name for name in names)
        folders[:] = sorted(name for name in folders if f"{name}.dvc" not in names and _is_searched(place, name))


def _is_searched(place: str, name: str) -> bool:
    """Not what is hidden, another project, or an environment of Python or node. A command asks this of each folder several times, so that no ``Path`` is made for it."""
    if name.startswith(".") or name == "node_modules":
        return False
    return not os.path.isdir(f"{place}/{name}/.dvc") and not os.path.isfile(f"{place}/{name}/pyvenv.cfg")  # noqa: PTH112, PTH113


def tracked(root: Path) -> dict[str, Pin]:
    """The raw folders that ``*.dvc`` files pin, by their path."""
    pins = {}
    for pointer in pointers(root):
        document = _read(pointer)
        repository = ((document.get("deps") or [{}])[0]).get("repo") or {}
        for out in document.get("outs") or ():
            place = Path(os.path.normpath(pointer.parent / document.get("wdir", ".") / out["path"]))
            if "md5" not in out or not place.is_relative_to(root):  # imported without its bytes, or outside the project
                continue
            path = _relative(place, root)
            url = str(repository.get("url", ""))
            origin = f"{without_passwords(url)} at {repository['rev_lock'][:12]}, {document['deps'][0]['path']}" if url else str(document.get("desc", ""))
            name = _relative(pointer, root)
            pins[path] = Pin(path, out["md5"], out.get("size", 0), out.get("nfiles", 0), name, name, origin, url, out.get("hash") != "md5")
    return pins


def pin_of_source(root: Path, source: str) -> Pin | None:
    """The pin of a data set's raw folder; ``None`` where no pointer speaks of it. Raises ``DataRefused`` where one pins a folder around it."""
    pins = tracked(root)
    around = next((pin for path, pin in pins.items() if Path(path) in Path(source).parents), None)
    if source not in pins and around is not None:
        raise DataRefused(
            f"{source} lies in {around.path}, which {around.pointer} pins as a whole, but a data set has a pin of its own: "
            f"`dvc remove {around.pointer}`, then `dvc add {source}`"
        )
    return pins.get(source)


def locked_outputs(lock: Path) -> dict[str, Pin]:
    """The folders that the stages in a ``dvc.lock`` wrote, by their path."""
    return {
        out["path"]: Pin(out["path"], out["md5"], out.get("size", 0), out.get("nfiles", 0), lock.name, stage, legacy=out.get("hash") != "md5")
        for stage, record in _stages(lock).items()
        for out in record.get("outs", [])
    }


def check_stages(root: Path) -> None:
    """Raises ``DataRefused`` for a ``dvc.yaml`` that cannot be read; DVC says so in many lines, and not where."""
    _stages(root / "dvc.yaml")


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
    raw, prepared = pin_of_source(root, source) or outputs.get(source), outputs.get(f"prepared/{name}")
    if raw is None or prepared is None:
        raise DataRefused(f"data set {name!r} is not pinned in dvc.lock yet; `recompress data accept {name}` prepares it and pins what comes out")
    used = locked_inputs(root / LOCK, prepared.target).get(raw.path)
    if used != raw.md5 and not _is_same_in_other_words(root, raw, used):
        raise DataRefused(
            f"data set {name!r} changed: {raw.pointer} pins {raw.path} as {raw.md5[:12]}…, but what dvc.lock pins was prepared from {str(used)[:12]}…; "
            f"`recompress data accept {name}` prepares it again and pins what comes out"
        )
    return raw, prepared


def _is_same_in_other_words(root: Path, raw: Pin, used: str | None) -> bool:
    """Whether a folder that DVC 2 pinned is what a stage of DVC 3 read, which calls the same bytes otherwise."""
    return raw.legacy and (root / raw.path).exists() and measure(root / raw.path, root=root).md5 == used


def is_here(root: Path, pin: Pin) -> bool:
    """Whether the folder is in the project as pinned. Raises ``DataRefused`` when it holds other bytes: they are not used, and not thrown away either."""
    place = root / pin.path
    if not place.exists():
        return False
    measured = measure(place, legacy=pin.legacy, root=root)
    if measured.md5 != pin.md5:
        older = "; the pin is one of DVC 2 (`dvc cache migrate --dvc-files` brings those up to date)" if pin.legacy else ""
        raise DataRefused(f"{pin.path} was changed: {difference(measured, pin)}{older}; move it away, and the pinned bytes are brought again")
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
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise DataRefused(f"{place} cannot be read: {getattr(error, 'problem', None) or str(error).splitlines()[0]}; restore it from git") from None
    if not isinstance(document, dict):
        raise DataRefused(f"{path} is no pointer of DVC; restore it from git")
    return document


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
