"""Which files of a folder are data, and how their paths name splits and slices."""

from __future__ import annotations

import os
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
SHARD = re.compile(r"-\d{5}-of-\d{5}(?:-[0-9a-f]{16}(?![0-9a-z]))?")
"""Behind the split in names of a hub; until 2023 with a digest."""
PART = re.compile(r"(?<![A-Za-z0-9])part-(?:r-)?\d{5}(?:-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?(?:[-.]c\d{3})?")
"""How Spark calls the parts of a table."""
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
    every = _every(path)
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


def _every(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their path; folders that are links are followed as files that are links are.

    Raises ``DataRefused`` for a link that leads nowhere or to a folder around it, and for a folder that may not be read: what lies there would vanish unsaid.
    """

    def refuse(error: OSError) -> None:
        raise DataRefused(f"{error.filename} cannot be read: {error.strerror}; let it be read, or take it away")

    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        folders.sort()
        for name in (*folders, *names):
            path = Path(place) / name
            if not path.is_symlink() or ABOUT.match(name):
                continue
            if not path.exists():
                raise DataRefused(f"{path} is a link to {path.readlink()}, which is not there; bring what it leads to, or take the link away")
            if path.is_dir() and path.resolve() in (Path(place).resolve(), *Path(place).resolve().parents):
                raise DataRefused(f"{path} is a link to a folder that it lies in ({path.readlink()}); take the link away")
        folders[:] = [name for name in folders if not ((path := Path(place) / name).is_symlink() and ABOUT.match(name))]
        found |= {path.relative_to(folder).as_posix(): path for name in names if (path := Path(place) / name).is_file()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(found.values())}


def check_together(chosen: Iterable[str], others: Iterable[str], splits: Mapping[str, Split]) -> None:
    """Raises ``DataRefused`` where a split stands in a file of another format than that which is read, or in one that has to be unpacked: it would vanish.

    ``splits``: words beside the usual that name a split.
    """
    words = SPLIT_WORDS | {word.lower(): split for word, split in splits.items()}
    names = list(chosen)
    read = {words[word.lower()] for name in names if (word := _with_split(name, splits)[1])}
    for name in others:
        path = PurePosixPath(name)
        ending, word = path.suffix.lower(), _with_split(name.removesuffix(path.suffix) if path.suffix.lower() in CLOSED else name, splits)[1]
        if not word or words[word.lower()] in read or any(ABOUT.match(part) for part in path.parts):
            continue
        if ending in CLOSED:
            raise DataRefused(f"{name} holds the {words[word.lower()]} split, and cannot be read as it is; {CLOSED[ending]}")
        if ending in DATA_ENDINGS:
            raise DataRefused(
                f"{name} holds the {words[word.lower()]} split, but {names[0]} is of another format, and a data set has one; save all splits in one format with one ending"
            )


def _check_open(path: Path) -> None:
    if way_out := CLOSED.get(path.suffix.lower()):
        raise DataRefused(f"{path} cannot be read as it is; {way_out}")
    if not path.stat().st_size:
        raise DataRefused(f"{path} is empty")


def named_by(paths: Iterable[str], splits: Mapping[str, Split] | None = None, *, alone: bool = False) -> Named:
    """``{slice}/{split}.txt`` of ``hau/train.txt``, ``swa/test.txt``; ``splits``: words beside the usual that name a split.
    ``alone``: somebody gave this one file, so that its name says nothing of others.

    Raises ``DataRefused`` for paths that follow no rule.
    """
    names, splits = [name for name in paths if PurePosixPath(name).name not in SIDE_FILES], splits or {}
    if len(names) == 1 and not SHARD.search(names[0]) and (alone or not is_held_out(names[0], splits)):
        return Named(names[0], {})
    rename: dict[str, Split] = {}
    templates: dict[str, list[str]] = {}
    for name in names:
        template, word = _with_split(PART.sub("part-*", SHARD.sub("-*", name)), splits)
        templates.setdefault(template, []).append(name)
        if word and word not in splits and SPLIT_WORDS[word.lower()] != word:
            rename[word] = SPLIT_WORDS[word.lower()]
    if len(templates) == 1:
        return Named(next(iter(templates)), rename)
    return Named(_with_slice(list(templates)), rename)


def is_held_out(name: str, splits: Mapping[str, Split]) -> bool:
    """Whether a path below a folder says with a whole name (``test.csv``, ``test/part.csv``) that it is not for training."""
    words = {word: split for word, split in (SPLIT_WORDS | dict(splits)).items() if split != "train"}
    path = PurePosixPath(name)
    return any(part.lower() in words or part in words for part in (*path.parts[:-1], path.stem))


def said_of(name: str, splits: Mapping[str, Split] | None = None) -> str:
    """The split that the path of a file speaks of, if any."""
    word = _with_split(name, splits or {})[1]
    return ((splits or {}).get(word) or SPLIT_WORDS[word.lower()]) if word else ""


def _with_split(name: str, splits: Mapping[str, Split]) -> tuple[str, str]:
    """The path with ``{split}`` in place of the last word that names one, and that word; a folder's name counts only where the file's does not."""
    end = len(name) - len(PurePosixPath(name).suffix)
    token = "|".join([*(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])" for word in splits), _TOKEN.pattern])
    words = [match for match in re.finditer(token, name) if (match[0].lower() in SPLIT_WORDS or match[0] in splits) and match.end() <= end]
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
            middles = [word[start : len(word) - end] for word in words]
            slot = first[:start] + ("*" if _are_parts(middles) else "{slice}") + first[len(first) - end :]
            if all(re.fullmatch(r"[A-Za-z0-9_-]+", middle) for middle in middles):
                return "".join([*parts[0][: differs[0]], slot, *parts[0][differs[0] + 1 :]])
    raise DataRefused(
        f"nobody can tell what the files are from their paths: {', '.join(sorted(templates)[:4])}; give one file, or say files: '{{slice}}/{{split}}.…'"
    )


def _are_parts(words: list[str]) -> bool:
    """Whether words count the parts of a table, from 0 or 1, or are digests: then they name no slices."""
    if all(re.fullmatch(r"(?=.*\d)[0-9a-f-]{8,}", word) for word in words) and not all(word.isdecimal() for word in words):
        return True
    return all(word.isdecimal() for word in words) and sorted(map(int, words)) in (list(range(len(words))), list(range(1, len(words) + 1)))


def _shared(words: list[str]) -> int:
    """Characters that all words begin with, up to a mark between words."""
    count = 0
    for i, characters in enumerate(zip(*words, strict=False), 1):
        if len(set(characters)) > 1:
            break
        if characters[0] in "-_{}":
            count = i
    return count


def split_column(values: Mapping[str, int], splits: Mapping[str, Split] | None = None) -> dict[str, Split] | None:
    """What the values of a column are called as splits, where all of them name one; ``rename`` of ``params.yaml``. ``splits``: what is known of it already."""
    named = {value: split for value in values if (split := (splits or {}).get(value) or SPLIT_WORDS.get(value.lower()))}
    if len(named) < len(values) or len(values) < 2:
        return None
    return {value: split for value, split in named.items() if value not in get_args(Split)}
