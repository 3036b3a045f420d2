"""``recompress init``: look at the data, pin it and the base, choose dials, and let a project appear.

Everything is made in a folder beside the place where it belongs, data prepared and recipe read back included. Only then are the files moved there one by one, what
makes it a project last. Killed before that, nothing of a project is there; killed while they move, the next ``recompress init`` in that folder moves the rest.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recompress.data.splits import preparation
from recompress.errors import InputError, StorageError
from recompress.integrity.atomic_directory import storage_error
from recompress.integrity.durable import flush_tree
from recompress.recipe import read_recipe
from tasks.data.bring import accept
from tasks.data.pins import measure
from tasks.data.workbench import bench
from tasks.scaffold import texts
from tasks.scaffold.base import PinnedBase, pin_base
from tasks.scaffold.dials import Dials, dials_for, shares
from tasks.scaffold.inferred import Inferred, infer, store
from tasks.scaffold.place import Place, brought, place_for

STAGING = ".recompress-init"
WHOLE = "whole"
"""Stands beside the files once all of them are there."""
POINTER = "outs:\n- md5: {md5}\n  size: {size}\n  nfiles: {files}\n  hash: md5\n  path: {name}\n"
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Begun:
    """A project that was begun, and what was understood on the way."""

    folder: Path
    name: str
    inferred: tuple[str, ...]
    rows: Mapping[str, int] = field(default_factory=dict)
    place: str = ""
    """What it shares with the repository around it."""


def begin(
    folder: Path | None, here: Path, data: Path, base: str, *, benchmark: str | None = None, name: str | None = None, say: Say = lambda line: None
) -> Begun:
    """Make a project. ``here`` is where relative paths begin.

    Raises ``InputError`` for data, a base or a folder that will not do, ``DataRefused`` for data that cannot be read or prepared, and ``StorageError`` for a disk that is full or read-only.
    Nothing that is there is changed in any case.
    """
    source = here / data
    name = name or slug(source.resolve().stem if source.is_file() else source.resolve().name)
    finish_if_cut(folder or here)
    place = place_for(here / folder if folder is not None else None, here, name)
    finish_if_cut(place.folder)
    inferred = infer(source, benchmark, name)
    for line in inferred.lines:
        say(line)
    pinned = pin_base(base, place.folder, here)
    if (inferred.benchmark == "language-modelling") != pinned.causal and inferred.benchmark != "text-classification":
        raise InputError(
            f"base model {base!r} is {'a decoder' if pinned.causal else 'an encoder'}, which {inferred.benchmark} is not measured on; give another one with --base"
        )
    with staging(place) as staged:
        rows = write(staged, place, name, inferred, pinned, source.name, say)
        flush_tree(staged)
        (staged.parent / WHOLE).touch()
        move(staged, place.folder)
    return Begun(place.folder, name, tuple(inferred.lines), rows, shares_with(place))


def slug(text: str) -> str:
    """A name from the name of a file. Raises ``InputError`` where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")[:60]
    if not name:
        raise InputError(f"{text!r} gives no name for the data set; give one with --name, of small letters, digits, - and _")
    return name


def write(staged: Path, place: Place, name: str, data: Inferred, base: PinnedBase, origin: str, say: Say) -> dict[str, int]:
    """All files of the project into ``staged``, its data prepared. Gives the rows of each split."""
    for target, source in data.sources.items():
        store(source, staged / "raw" / name / target)
    for fixed in texts.FIXED:
        (staged / fixed).write_text(texts.fixed(fixed), encoding="utf-8")
    if place.is_own_repository:
        (staged / ".dvc").mkdir()
        (staged / ".dvc" / "config").write_text(DVC_CONFIG + "    no_scm = true\n" * (place.git is None), encoding="utf-8")
        (staged / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    missing = {split: split not in data.splits for split in ("dev", "test")}
    split_off = (
        shares(data.rows, dev=missing["dev"], test=missing["test"]) if data.benchmark != "language-modelling" else {s: 0.1 for s in missing if missing[s]}
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    project = f"{name}-{secrets.token_hex(3)}"
    (staged / "params.yaml").write_text(texts.params(name, project, data, split_off, origin, today), encoding="utf-8")
    pin_raw(staged, name)
    say("preparing the data and pinning it, with DVC")
    accept(staged, name)
    rows: dict[str, int] = preparation(staged / "prepared" / name)["rows"]
    lengths = base.lengths(list(data.texts))
    dials = dials_for(train=rows["train"], tested=rows["test"], lengths=lengths, layers=base.layers, width=base.width, positions=base.positions)
    write_recipe(staged, name, data, base, dials, rows["train"], lengths[int(0.99 * (len(lengths) - 1))], origin)
    shutil.rmtree(staged / ".recompress")
    return rows


def pin_raw(staged: Path, name: str) -> None:
    """As ``dvc add`` does: a pointer beside the folder, and the bytes in the cache."""
    raw = staged / "raw" / name
    with bench(staged) as work:
        work.add(raw)
    measured = measure(raw)
    pointer = POINTER.format(md5=measured.md5, size=measured.size, files=measured.files, name=name)
    raw.with_name(f"{name}.dvc").write_text(pointer, encoding="utf-8")


def write_recipe(staged: Path, name: str, data: Inferred, base: PinnedBase, dials: Dials, train: int, long: int, origin: str) -> None:
    """Recipe and policy, read back as a run would read them."""
    for folder, text in (("policies", texts.policy(name, data.benchmark, dials)), ("recipes", texts.recipe(name, data, base, dials, train, long, origin))):
        (staged / folder).mkdir()
        (staged / folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    read_recipe(staged / "recipes" / f"{name}.yaml", staged)


@contextmanager
def staging(place: Place) -> Iterator[Path]:
    """An empty folder in the project's, held by one process at a time; gone when the block ends, with folders that were made for it."""
    new = next((folder for folder in (*reversed(place.folder.parents), place.folder) if not folder.exists()), None)
    home = place.folder / STAGING
    try:
        home.mkdir(parents=True, exist_ok=True)
        with held(place.folder):
            shutil.rmtree(home, ignore_errors=True)  # what a killed process left
            (home / "files").mkdir(parents=True)
            try:
                yield home / "files"
            finally:
                if not (home / WHOLE).exists() or not any(leaf.is_file() for leaf in (home / "files").rglob("*")):
                    shutil.rmtree(home, ignore_errors=True)
    except BaseException as error:
        if new is not None and not (home / WHOLE).exists():
            shutil.rmtree(new, ignore_errors=True)
        storage = storage_error(error, place.folder)
        if storage is not None:
            raise storage from None
        raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Raises ``StorageError`` while another process begins a project in this folder. The folder itself is held, so that no file is left of it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StorageError(f"another recompress init works in {folder}; wait for it to end") from None
    finally:
        os.close(handle)


def move(staged: Path, folder: Path) -> None:
    """Each thing that a project brings to its place, ``dvc.yaml`` last. Raises ``InputError`` for what has come to stand there in the meantime."""
    for leaf in leaves(staged):
        target = folder / leaf
        if target.exists() or target.is_symlink():
            raise InputError(f"{target} was made while the project was; nothing there is overwritten. Take it away, and `recompress init` moves the rest")
        target.parent.mkdir(parents=True, exist_ok=True)
        (staged / leaf).rename(target)
    shutil.rmtree(staged.parent)


def leaves(staged: Path) -> list[str]:
    """What is still to be moved, in order."""
    [name] = [path.stem for path in (staged / "recipes").glob("*.yaml")] or [""]
    every = (".dvc", *brought(name)) if name else ("params.yaml", "dvc.lock", "dvc.yaml")
    return [leaf for leaf in every if (staged / leaf).exists()]


def finish_if_cut(folder: Path) -> None:
    """Move the rest of a project of which some was moved when its process was killed. Raises ``InputError`` that says so."""
    home = folder / STAGING
    if (home / WHOLE).exists():
        with held(folder):
            move(home / "files", folder)
        raise InputError(
            f"an earlier recompress init was cut off while its files were moved to {folder}; the rest was moved now, and the project is whole: recompress run"
        )


def shares_with(place: Place) -> str:
    """One line: which repositories it stands in, and what it shares with them."""
    git = f"in the git repository {place.git}" if place.git else "in no git repository"
    dvc = f"shares cache and remotes of the DVC repository {place.dvc}" if place.dvc else "has a DVC repository of its own"
    return f"{git}; {dvc}; nothing that was there was changed"
