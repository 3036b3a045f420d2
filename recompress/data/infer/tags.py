"""In which scheme tags are written, and which columns of CoNLL are word and tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from recompress.data.formats.bio import continues_nothing
from recompress.data.formats.conll_columns import columns_of
from recompress.data.formats.tag_schemes import TAGS
from recompress.data.layout import Tags
from recompress.errors import DataRefused

DOCUMENT = "-DOCSTART-"


def infer_scheme(sentences: Sequence[Sequence[str]]) -> Tags | None:
    """The scheme that all tags fit: by letters where these tell, otherwise by whether B- begins every entity. None where no scheme fits or nothing is an entity."""
    kinds = {tag for sentence in sentences for tag in sentence}
    if "O" not in kinds or len(kinds) == 1:
        return None
    letters = {tag[0] for tag in kinds if tag[1:2] == "-" and tag[0] in "BIESLU"}
    if letters & set("ES") and not letters & set("LU"):
        return _fitting("bioes", kinds)
    if letters & set("LU") and not letters & set("ES"):
        return _fitting("bilou", kinds)
    if "B" not in letters:
        return _fitting("io", kinds)
    begun = Counter(tag[:1] for sentence in sentences for tag in sentence)["B"]
    orphans = sum(len(continues_nothing(sentence)) for sentence in sentences)
    return _fitting("iob1" if orphans > begun else "iob2", kinds)


def _fitting(scheme: Tags, kinds: set[str]) -> Tags | None:
    return scheme if all(TAGS[scheme].fullmatch(tag) for tag in kinds) else None


def infer_conll(text: str, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Dials for a CoNLL file (``word_column``, ``tag_column``, ``tags``, ``group``, ``comment``), and why. Raises ``DataRefused`` when no column is one of tags."""
    lines = text.split("\n")
    dials: dict[str, Any] = {}
    why: dict[str, str] = {}
    if any(columns_of(line)[:1] == [DOCUMENT] for line in lines if line.startswith(DOCUMENT)):
        dials["group"], why["group"] = DOCUMENT, "begins each document, so that its sentences stay in one split"
    width = Counter(len(columns_of(line)) for line in lines if line.strip() and not line.startswith(("#", DOCUMENT))).most_common(1)
    columns = width[0][0] if width else 0
    if any(line.startswith("#") and (len(columns_of(line)) != columns or line.startswith("# ")) for line in lines):
        dials["comment"], why["comment"] = "#", "lines that say something of the sentence"
    sentences = _sentences(lines, columns, dials.get("comment"))
    tag = given.get("tag_column") or _tag_column(sentences, columns)
    tag_place = tag - 1 if tag > 0 else columns + tag
    word = given.get("word_column") or next(i + 1 for i in range(columns) if i != tag_place and not _numbers(sentences, i))
    if columns != 2 or (word, tag) != (1, 2):
        dials |= {"word_column": word, "tag_column": tag}
        why["tag_column"] = f"of {columns} columns; {sentences[0][0][word - 1]!r} has the tag {sentences[0][0][tag_place]!r}"
    scheme = given.get("tags") or infer_scheme([[fields[tag_place] for fields in sentence] for sentence in sentences])
    dials["tags"] = scheme or "iob2"
    return dials, why


def _sentences(lines: list[str], columns: int, comment: str | None) -> list[list[list[str]]]:
    sentences: list[list[list[str]]] = [[]]
    for line in lines:
        if not line.strip() or line.startswith(DOCUMENT):
            sentences.append([])
        elif not (comment and line.startswith(comment)) and len(fields := columns_of(line)) == columns:
            sentences[-1].append(fields)
    return [sentence for sentence in sentences if sentence]


def _tag_column(sentences: list[list[list[str]]], columns: int) -> int:
    """The last column in which all values are tags of one scheme and some say something. Counted from 1."""
    for i in reversed(range(columns)):
        if infer_scheme([[fields[i] for fields in sentence] for sentence in sentences]) is not None:
            return i + 1
    raise DataRefused("no column holds tags of entities, O among them (tag_column: names it; parts of speech are none)")


def _numbers(sentences: list[list[list[str]]], column: int) -> bool:
    """Whether a column is a count of words, as the first of CoNLL-U."""
    return all(fields[column].isdigit() for sentence in sentences[:50] for fields in sentence)
