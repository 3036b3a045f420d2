"""A text data set that needs no network: what Python packages say about themselves.

An example is the first paragraph of a docstring, its label the package that it stands in. The sources are parsed, never imported, so that nothing of them
runs. What comes out follows from the packages' versions alone: files are read in the order of the digests of their names, a paragraph that names any of the
packages is left out (the label would stand in the text), and so is one that begins like one before it.

    python -m recompress.data.pydocs        writes collected/pydocs/PACKAGE.jsonl, as params.yaml says
"""

from __future__ import annotations

import ast
import json
import logging
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from recompress.data.version import check_version
from recompress.errors import DataRefused, RecompressError
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.digest import sha256_bytes
from recompress.settings.base import Settings
from recompress.settings.file import SettingsFile

log = logging.getLogger(__name__)
OUT = Path("collected/pydocs")
LEFT_OUT = re.compile(r"(^|/)(tests?|testing|_?vendor(ed)?|_?third_party|migrations)/|(^|/)(test_|conftest)|_pb2(_grpc)?\.py$")
NO_PROSE = re.compile(r">>>|->|\(.*\)$|[\[\]{}]|^\.\. |^[:*=-]|https?://")
OPENING_WORDS = 6
"""Two paragraphs of one package whose first plain words are the same, this many, are one text with another name in it."""


class Pydocs(Settings):
    """What is collected."""

    packages: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names to import; each is a class. Pure-Python packages only: others differ from platform to platform."""
    per_package: Annotated[int, Field(ge=10)]
    """Paragraphs of each package; fewer in a package are refused, so that the classes stay equal in size."""
    min_words: Annotated[int, Field(ge=1)] = 6
    max_characters: Annotated[int, Field(ge=20)] = 400


class Paragraph(NamedTuple):
    text: str
    kind: str
    """``function``, or ``class`` for what describes a class or a module. It becomes the slice."""
    source: str


def collect(settings: Pydocs) -> dict[str, list[Paragraph]]:
    """``per_package`` paragraphs for each package. Raises ``DataRefused`` when one is not installed or has too few."""
    named = re.compile("|".join(re.escape(name).replace("_", "[ _-]?") for name in settings.packages), re.IGNORECASE)
    found: dict[str, list[Paragraph]] = {}
    taken: set[str] = set()
    for package in sorted(settings.packages):
        kept: list[Paragraph] = []
        openings: set[str] = set()
        for paragraph in paragraphs(package_folder(package)):
            if not _is_prose(paragraph.text, settings) or named.search(paragraph.text):
                continue
            opening = _opening(paragraph.text)
            if opening in openings or paragraph.text in taken:
                continue
            openings.add(opening)
            kept.append(paragraph)
            if len(kept) == settings.per_package:
                break
        if len(kept) < settings.per_package:
            raise DataRefused(f"package {package!r} has {len(kept)} paragraphs that can be used, {settings.per_package} are wanted (pydocs.per_package)")
        taken |= {paragraph.text for paragraph in kept}
        found[package] = kept
        log.info("%s: %d paragraphs", package, len(kept))
    return found


def package_folder(package: str) -> Path:
    """Where the package's sources are. Nothing is imported. Raises ``DataRefused``."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataRefused(f"package {package!r} is not installed; pydocs is made of the packages that constraints.txt pins (make setup)")
    return Path(next(iter(spec.submodule_search_locations)))


def paragraphs(folder: Path) -> Iterator[Paragraph]:
    """The first paragraph of every docstring below ``folder``; files in the order of the digests of their names, so that any number of first ones
    comes from everywhere in the package."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    for name in sorted(files, key=lambda name: sha256_bytes(name.encode())):
        if LEFT_OUT.search(name):
            continue
        for node in ast.walk(_parse(files[name])):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                text = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
                yield Paragraph(text, "class" if isinstance(node, ast.Module | ast.ClassDef) else "function", name)


def _parse(path: Path) -> ast.Module:
    """A file that this Python cannot parse holds nothing for us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's escape sequences
        try:
            return ast.parse(path.read_bytes(), feature_version=(3, 11))
        except (SyntaxError, ValueError):
            return ast.Module(body=[], type_ignores=[])


def _is_prose(text: str, settings: Pydocs) -> bool:
    words = re.findall(r"[^\W\d_]{2,}", text)
    letters = sum(map(len, words))
    return len(words) >= settings.min_words and len(text) <= settings.max_characters and letters >= 0.7 * len(text) and not NO_PROSE.search(text)


def _opening(text: str) -> str:
    """The first plain words: "Serializes the ``RunTask`` into a" and "Serializes the Job into a" open alike."""
    plain = re.findall(r"(?<![\w`])[a-z]+(?![\w`])", text[:1].lower() + text[1:])
    return " ".join(plain[:OPENING_WORDS])


def write(found: dict[str, list[Paragraph]], out: Path) -> None:
    """One JSON lines file for each package."""
    shutil.rmtree(out, ignore_errors=True)
    with new_directory(out) as folder:
        for package, kept in found.items():
            rows = ({"text": p.text, "label": package, "slice": p.kind, "source": f"{package}/{p.source}"} for p in kept)
            lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
            (folder / f"{package}.jsonl").write_bytes(lines.encode())


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        params = SettingsFile(Path("params.yaml"))
        check_version(params, "pydocs")
        write(collect(params.read_as(Pydocs, ("pydocs",))), OUT)
    except RecompressError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
