"""Which files of a folder are data, and how their paths name splits and slices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, get_args

from recompress.data.formats.tables import SIDE_FILES, saved_files
from recompress.errors import DataRefused
from recompress.records import Split

SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "valid", "validation", "val", "eval"), "dev"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
DATA_ENDINGS = frozenset(
    [
        ".csv",
        ".tsv",
        ".tab",
        ".json",
        ".jsonl",
        ".ndjson",
        ".parquet",
        ".pq",
        ".arrow",
        ".conll",
        ".conllu",
        ".conllx",
        ".bio",
        ".iob",
        ".iob2",
        ".bioes",
        ".bilou",
        ".txt",
        ".text",
    ]
)
CLOSED: dict[str, str] = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z"), "unpack it first"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV first"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".joblib"), "a pickle can run code when it is read; save the table as Parquet or CSV first"),
}
ABOUT = re.compile(r"(?i)^(readme|licen[cs]e|changelog|citation|requirements|authors|notice)\b.*|.*\.(md|rst|html?|ya?ml|py|bib|pdf)$|^\..*|.*\.dvc$")
SHARD = re.compile(r"-\d{5}-of-\d{5}")
_TOKEN = re.compile(r"[A-Za-z]+")


class Named(NamedTuple):
    """How paths name splits and slices: what ``files`` and ``rename`` of ``params.yaml`` say."""

    pattern: str
    rename: dict[str, Split]


def data_files(path: Path) -> tuple[dict[str, Path], list[str]]:
    """The files that hold data, by their path below ``path`` (a file alone by its name), and the paths of what else is there.

    Raises ``DataRefused``: nothing is there, or nothing that can be read, with the way out.
    """
    if path.is_file():
        _check_open(path)
        return {path.name: path}, []
    if not path.is_dir():
        raise DataRefused(f"{path} is not there; give a file or a folder with data")
    every = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    plain = {name: file for name, file in every.items() if not any(ABOUT.match(part) for part in PurePosixPath(name).parts) and file.name not in SIDE_FILES}
    endings = Counter(file.suffix.lower() for file in plain.values() if file.suffix.lower() in DATA_ENDINGS)
    if not endings:
        for file in plain.values():
            _check_open(file)
        raise DataRefused(f"{path} holds no file of data; expected files that end with {', '.join(sorted(DATA_ENDINGS))}")
    ending = max(endings, key=lambda ending: (endings[ending], ending != ".txt", ending))
    chosen = {name: file for name, file in plain.items() if file.suffix.lower() == ending}
    if ending == ".arrow":
        chosen = saved_files(chosen | {name: file for name, file in every.items() if file.name in SIDE_FILES})
    return chosen, [name for name in every if name not in chosen]


def _check_open(path: Path) -> None:
    if way_out := CLOSED.get(path.suffix.lower()):
        raise DataRefused(f"{path} cannot be read as it is; {way_out}")
    if not path.stat().st_size:
        raise DataRefused(f"{path} is empty")


def named_by(paths: Iterable[str]) -> Named:
    """``{slice}/{split}.txt`` of ``hau/train.txt``, ``swa/test.txt``. Raises ``DataRefused`` for paths that follow no rule."""
    names = [name for name in paths if PurePosixPath(name).name not in SIDE_FILES]
    if len(names) == 1 and not SHARD.search(names[0]):
        return Named(names[0], {})
    rename: dict[str, Split] = {}
    templates: dict[str, list[str]] = {}
    for name in names:
        template, word = _with_split(SHARD.sub("-*", name))
        templates.setdefault(template, []).append(name)
        if word and SPLIT_WORDS[word.lower()] != word:
            rename[word] = SPLIT_WORDS[word.lower()]
    if len(templates) == 1:
        return Named(next(iter(templates)), rename)
    return Named(_with_slice(list(templates)), rename)


def _with_split(name: str) -> tuple[str, str]:
    """The path with ``{split}`` in place of the last word that names one, and that word; a folder's name counts only where the file's does not."""
    words = [match for match in _TOKEN.finditer(name) if match[0].lower() in SPLIT_WORDS and match.end() <= len(name) - len(PurePosixPath(name).suffix)]
    if not words:
        return name, ""
    last = words[-1]
    return f"{name[: last.start()]}{{split}}{name[last.end() :]}", last[0]


def _with_slice(templates: list[str]) -> str:
    """One template of several that differ in one word: there stands ``{slice}``."""
    parts = [re.split(r"([/.])", template) for template in templates]
    if len({len(part) for part in parts}) == 1:
        differs = [i for i, words in enumerate(zip(*parts, strict=True)) if len(set(words)) > 1]
        if len(differs) == 1:
            words = [part[differs[0]] for part in parts]
            start, end = _shared(words), _shared([word[::-1] for word in words])
            start, end = (start, end) if all(len(word) > start + end for word in words) else (0, 0)
            first = words[0]
            slot = first[:start] + "{slice}" + first[len(first) - end :]
            middles = [word[start : len(word) - end] for word in words]
            if all(re.fullmatch(r"[A-Za-z0-9_-]+", middle) for middle in middles):
                return "".join([*parts[0][: differs[0]], slot, *parts[0][differs[0] + 1 :]])
    raise DataRefused(
        f"nobody can tell what the files are from their paths: {', '.join(sorted(templates)[:4])}; give one file, or say files: '{{slice}}/{{split}}.…'"
    )


def _shared(words: list[str]) -> int:
    """Characters that all words begin with, up to a mark between words."""
    count = 0
    for i, characters in enumerate(zip(*words, strict=False), 1):
        if len(set(characters)) > 1:
            break
        if characters[0] in "-_{}":
            count = i
    return count


def split_column(values: Mapping[str, int]) -> dict[str, Split] | None:
    """What the values of a column are called as splits, where all of them name one; ``rename`` of ``params.yaml``."""
    if not values or not all(value.lower() in SPLIT_WORDS for value in values) or len(values) < 2:
        return None
    return {value: SPLIT_WORDS[value.lower()] for value in values if value not in get_args(Split)}
