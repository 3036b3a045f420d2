"""``recompress init``: look at the data, pin it and the base, choose dials, and let a project appear.

Everything is made in a folder beside the place where it belongs, data prepared and recipe read back included. Only then are the files moved there one by one, what
makes it a project last. Killed before that, nothing of a project is there; killed while they move, the next ``recompress init`` in that folder moves the rest.
"""

from __future__ import annotations

import datetime
import re
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recompress.data.looking import Understood, look_at
from recompress.data.splits import draw, preparation, read_split
from recompress.errors import InputError
from recompress.models.heads import head_of
from recompress.recipe import read_recipe
from tasks.data.bring import accept
from tasks.data.pins import measure
from tasks.data.workbench import bench
from tasks.scaffold import texts
from tasks.scaffold.base import PinnedBase, pin_base
from tasks.scaffold.dials import Dials, check_enough, dials_for, shares
from tasks.scaffold.place import Place, place_for
from tasks.scaffold.shown import lines_of
from tasks.scaffold.staging import finish_if_cut, move, staging

LENGTHS_OF = 2_000
"""Training texts whose tokens are counted."""
SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
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
    name = named(name) if name is not None else slug(source.resolve().stem if source.is_file() else source.resolve().name)
    finish_if_cut(here / folder if folder is not None else here)
    place = place_for(here / folder if folder is not None else None, here, name)
    finish_if_cut(place.folder)
    understood = look_at(source, name=name, **({} if benchmark is None else {"benchmark": benchmark}))
    for line in lines_of(understood):
        say(line)
    pinned = pin_base(base, place.folder, here)
    check_fits(pinned, understood.benchmark)
    with staging(place.folder) as staged:
        rows = write(staged, place, name, understood, pinned, source.resolve().name, say)
        move(staged, place.folder)
    return Begun(place.folder, name, tuple(lines_of(understood)), rows, shares_with(place))


def named(name: str) -> str:
    """A name that was given. Raises ``InputError`` for one that is unsafe in a path, a tag or a URL."""
    if not SLUG.fullmatch(name):
        raise InputError(f"--name is of at most 60 small letters, digits, - and _, and begins with a letter or a digit, got {name!r}")
    return name


def slug(text: str) -> str:
    """A name from the name of a file. Raises ``InputError`` where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")[:60]
    if not name:
        raise InputError(f"{text!r} gives no name for the data set; give one with --name, of small letters, digits, - and _")
    return name


def write(staged: Path, place: Place, name: str, data: Understood, base: PinnedBase, origin: str, say: Say) -> dict[str, int]:
    """All files of the project into ``staged``, its data prepared. Gives the rows of each split."""
    for target, source in data.files.items():
        (staged / "raw" / name / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, staged / "raw" / name / target)
    for fixed in texts.FIXED:
        (staged / fixed).write_text(texts.fixed(fixed), encoding="utf-8")
    if place.is_own_repository:
        (staged / ".dvc").mkdir()
        (staged / ".dvc" / "config").write_text(DVC_CONFIG + "    no_scm = true\n" * (place.git is None), encoding="utf-8")
        (staged / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    project = f"{name}-{secrets.token_hex(3)}"
    (staged / "params.yaml").write_text(texts.params(name, project, data, entry_of(data), origin, today), encoding="utf-8")
    pin_raw(staged, name)
    say("preparing the data and pinning it, with DVC")
    accept(staged, name)
    rows: dict[str, int] = preparation(staged / "prepared" / name)["rows"]
    check_enough(rows)
    lengths = base.lengths([" ".join(example.words) for example in draw(read_split(staged / "prepared" / name, "train"), LENGTHS_OF, 0)])
    dials = dials_for(train=rows["train"], tested=rows["test"], lengths=lengths, layers=base.layers, width=base.width, positions=base.positions)
    write_recipe(staged, name, data, base, dials, rows["train"], lengths[int(0.99 * (len(lengths) - 1))], origin)
    shutil.rmtree(staged / ".recompress")
    return rows


def entry_of(data: Understood) -> dict[str, Any]:
    """The entry of ``params.yaml``, with shares for the splits that are missing that leave enough to judge by. Raises ``DataRefused`` for too few rows."""
    missing = data.entry.get("split_off", {})
    if not missing or not head_of(data.benchmark).labelled:
        return data.entry
    chosen = shares(data.rows["train"], dev="dev" in missing, test="test" in missing)
    return data.entry | {"split_off": {split: {**missing[split], "share": share} for split, share in chosen.items()}}


def check_fits(base: PinnedBase, benchmark: str) -> None:
    """Raises ``InputError`` for a decoder where words are tagged or answers are found, and for an encoder where text is to be continued."""
    head = head_of(benchmark)
    if (head.pretrained and not base.causal) or ((head.tagged or head.finds_spans) and base.causal):
        kind = "a decoder" if base.causal else "an encoder"
        raise InputError(f"base model {base.model!r} is {kind}, and the data is for {benchmark}; give another model with --base, or other data")


def pin_raw(staged: Path, name: str) -> None:
    """As ``dvc add`` does: a pointer beside the folder, and the bytes in the cache."""
    raw = staged / "raw" / name
    with bench(staged) as work:
        work.add(raw)
    measured = measure(raw)
    pointer = POINTER.format(md5=measured.md5, size=measured.size, files=measured.files, name=name)
    raw.with_name(f"{name}.dvc").write_text(pointer, encoding="utf-8")


def write_recipe(staged: Path, name: str, data: Understood, base: PinnedBase, dials: Dials, train: int, long: int, origin: str) -> None:
    """Recipe and policy, read back as a run would read them."""
    for folder, text in (("policies", texts.policy(name, data.benchmark, dials)), ("recipes", texts.recipe(name, data, base, dials, train, long, origin))):
        (staged / folder).mkdir()
        (staged / folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    read_recipe(staged / "recipes" / f"{name}.yaml", staged)


def shares_with(place: Place) -> str:
    """One line: which repositories it stands in, and what it shares with them."""
    git = f"in the git repository {place.git}" if place.git else "in no git repository"
    dvc = f"shares cache and remotes of the DVC repository {place.dvc}" if place.dvc else "has a DVC repository of its own"
    return f"{git}; {dvc}; nothing that was there was changed"
