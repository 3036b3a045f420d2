"""A data set into a project: looked at, copied and pinned, prepared, and, where a base is named, with a recipe and a policy that fit both."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from recompress.data.infer.looking import look_at
from recompress.data.infer.understood import Understood
from recompress.data.splits import draw, read_split
from recompress.errors import DataRefused, InputError
from recompress.models.heads import head_of
from recompress.recipe import read_recipe
from tasks.data.explain import as_dials
from tasks.data.pins import measure
from tasks.data.workbench import bench
from tasks.scaffold import texts
from tasks.scaffold.base import PinnedBase, pin_base
from tasks.scaffold.cutting import Filling, cut
from tasks.scaffold.dials import dials_for
from tasks.scaffold.shown import lines_of

LENGTHS_OF = 2_000
"""Training texts whose tokens are counted."""
SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
NUMBER = re.compile(r"[0-9][0-9_]*(e-?[0-9]+)?|0o[0-7_]+|0x[0-9a-f_]+")
"""What YAML 1.2 has for numbers, among the names that a slug may have; ``1e4`` is a word in YAML 1.1."""
POINTER = "outs:\n- md5: {md5}\n  size: {size}\n  nfiles: {files}\n  hash: md5\n  path: {name}\n"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What somebody brings, as they name it on the command line."""

    data: Path
    base: str | None = None
    benchmark: str | None = None
    name: str | None = None
    dials: tuple[str, ...] = ()
    """``key=value`` of the entry, for what cannot be told from the data."""

    def called(self, here: Path) -> str:
        """What data set, recipe and model are called. Raises ``InputError`` for a name that is unsafe in a path, a tag or a URL."""
        if self.name is not None:
            if not SLUG.fullmatch(self.name):
                raise InputError(f"--name is of at most 60 small letters, digits, - and _, and begins with a letter or a digit, got {self.name!r}")
            if not is_word(self.name):
                raise InputError(f"--name {self.name!r} is no word in YAML, where it will stand, but {_kind(self.name)}; begin it with a word")
            return self.name
        source = (here / self.data).resolve()
        return slug(source.stem if source.is_file() else source.name)


def look(wanted: Wanted, name: str, folder: Path, here: Path, say: Say) -> Filling:
    """Look at the data and at the base, and say what was understood. ``folder`` is the project's, ``here`` where relative paths begin.

    Raises ``InputError`` for what is not there or does not fit together, and ``DataRefused`` for data that cannot be read.
    """
    source = here / wanted.data
    dials = as_dials(wanted.dials) | ({} if wanted.benchmark is None else {"benchmark": wanted.benchmark})
    understood = look_at(source, name=name, **dials)
    for line in lines_of(understood):
        say(line)
    base = None if wanted.base is None else pin_base(wanted.base, folder, here)
    if base is not None:
        check_labels(understood)
        check_fits(base, understood)
    return Filling(name, understood, base, source.resolve().name, dials)


def check_fits(base: PinnedBase, data: Understood) -> None:
    """Raises ``InputError`` for a decoder where words are tagged or answers are found, and for an encoder where text is to be continued."""
    head = head_of(data.benchmark)
    if head.pretrained and not base.causal:
        unlabelled = f"no column of {', '.join(data.columns)} tells two or more labels apart, so " if data.columns else ""
        way_out = "say which column is the label (--set label=COLUMN), or " if data.columns else ""
        raise InputError(
            f"{unlabelled}the data is for {data.benchmark}, and base model {base.model!r} is an encoder; {way_out}give a decoder with --base, or other data"
        )
    if (head.tagged or head.finds_spans) and base.causal:
        raise InputError(f"base model {base.model!r} is a decoder, and the data is for {data.benchmark}; give an encoder with --base, or other data")


def check_labels(data: Understood) -> None:
    """Raises ``DataRefused`` where there is nothing to learn from, or nothing to tell apart."""
    if not data.rows.get("train"):
        way_out = "--set 'rename={NAME: train}' or --set split=COLUMN says which rows are which split"
        raise DataRefused(f"{data.path} has no rows to train on, only {', '.join(data.rows)}; bring some, or {way_out}")
    if data.benchmark == "text-classification" and len(data.labels) < 2:
        raise DataRefused(f"{data.path} has {'one label, ' + repr(*data.labels) if data.labels else 'no label'}; a classifier needs two to tell apart")


def fill(staged: Path, filling: Filling, describe: Callable[[Filling], None], say: Say) -> tuple[Filling, Mapping[str, int]]:
    """Raw files, pin, prepared data, recipe and policy into ``staged``, into whose ``params.yaml`` ``describe`` writes the data's entry. Gives how the data was cut
    at last, and the rows of each split.

    Raises ``DataRefused`` for data that cannot be prepared, is too little, or would not pass the data check of a run.
    """
    name, base = filling.name, filling.base
    for target, source in filling.data.files.items():
        (staged / "raw" / name / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, staged / "raw" / name / target)
    pin_raw(staged, name)
    say("preparing the data and pinning it, with DVC")
    filling, rows = cut(staged, filling, describe, say)
    if base is not None:
        write_recipe(staged, filling, base, rows)
    shutil.rmtree(staged / ".recompress")
    return filling, rows


def pin_raw(staged: Path, name: str) -> None:
    """As ``dvc add`` does: a pointer beside the folder, and the bytes in the cache."""
    raw = staged / "raw" / name
    with bench(staged) as work:
        work.add(raw)
    measured = measure(raw)
    pointer = POINTER.format(md5=measured.md5, size=measured.size, files=measured.files, name=name)
    raw.with_name(f"{name}.dvc").write_text(pointer, encoding="utf-8")


def write_recipe(staged: Path, filling: Filling, base: PinnedBase, rows: Mapping[str, int]) -> None:
    """Recipe and policy with dials that fit data and base, read back as a run would read them."""
    name, data = filling.name, filling.data
    lengths = base.lengths([" ".join(example.words) for example in draw(read_split(staged / "prepared" / name, "train"), LENGTHS_OF, 0)])
    dials = dials_for(
        train=rows["train"],
        tested=rows["test"],
        lengths=lengths,
        layers=base.layers,
        width=base.width,
        positions=base.positions,
        in_bits=head_of(data.benchmark).answer == "nothing",
        in_words=texts.asked_in_words(data.benchmark),
        spans=head_of(data.benchmark).finds_spans,
    )
    long = lengths[int(0.99 * (len(lengths) - 1))]
    recipe = texts.recipe(name, data, base, dials, rows["train"], long, filling.origin)
    for folder, text in (("policies", texts.policy(name, data.benchmark, dials)), ("recipes", recipe)):
        (staged / folder).mkdir(exist_ok=True)
        (staged / folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    read_recipe(staged / "recipes" / f"{name}.yaml", staged)


def slug(text: str) -> str:
    """A name from the name of a file. Raises ``InputError`` where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")[:60]
    if not name:
        raise InputError(f"{text!r} gives no name for the data set; give one with --name, of small letters, digits, - and _")
    return name if is_word(name) else f"data-{name}"[:60]


def is_word(name: str) -> bool:
    """Whether YAML reads a name as text, and not as a number, a date, or nothing: as Python's does it (YAML 1.1), and as DVC does (1.2)."""
    return bool(yaml.safe_load(name) == name) and not NUMBER.fullmatch(name)


def _kind(name: str) -> str:
    value = yaml.safe_load(name)
    return "a number" if value == name else type(value).__name__
