"""CoNLL with any columns: which one is the word and which the tag, in any scheme of tags, with comments.

Columns are parted by tabs where a line has one, otherwise by spaces; all lines of a file have as many.
"""

from __future__ import annotations

from recompress.data.excerpt import cut
from recompress.data.formats.reading import Reading, Row
from recompress.data.formats.tag_schemes import LOOKS, TAGS, to_iob2
from recompress.data.layout import Layout


def read_columns(reading: Reading, content: str, layout: Layout) -> None:
    """Sentences, line by line. One with a malformed line is left out whole; a word that is not there is left out alone."""
    words: list[str] = []
    tags: list[str] = []
    start, broken, columns = 0, False, 0
    for number, line in (*enumerate(content.split("\n"), 1), (0, "")):
        if not line.strip():
            if words and not broken:
                reading.add(Row(tuple(words), to_iob2(tags, layout.tags), start))
            words, tags, start, broken = [], [], 0, False
            continue
        if layout.comment and line.startswith(layout.comment):
            continue
        fields = columns_of(line)
        columns, start = columns or len(fields), start or number
        word, tag = _field(fields, layout.word_column or 1), _field(fields, layout.tag_column or -1)
        if len(fields) != columns:
            reading.report("malformed_lines", number, f"expected {columns} columns, as the lines before, got {len(fields)}: {cut(line)}")
            broken = True
        elif word is None or tag is None or not TAGS[layout.tags].fullmatch(tag):
            where = (
                f"the word in column {layout.word_column or 1} and in column {layout.tag_column or -1} a tag like {LOOKS[layout.tags]} (tags: {layout.tags})"
            )
            reading.report("malformed_lines", number, f"expected {where}, got {cut(line)}")
            broken = True
        elif not word.strip():
            reading.report("empty_words", number, f"the word is empty, only its tag {tag!r} is there")
        else:
            words.append(word)
            tags.append(tag)


def columns_of(line: str) -> list[str]:
    """The fields of a line; empty ones only where tabs part them, or where a line begins with a space (a word that is not there)."""
    if "\t" in line:
        return line.rstrip("\n").split("\t")
    fields = [field for field in line.split(" ") if field]
    return ["", *fields] if line.startswith(" ") else fields


def _field(fields: list[str], column: int) -> str | None:
    place = column - 1 if column > 0 else len(fields) + column
    return fields[place] if 0 <= place < len(fields) else None
