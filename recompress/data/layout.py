"""How rows stand in raw files: the dials of ``params.yaml`` that every reader is told."""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from recompress.models.heads import Head, head_of
from recompress.settings.base import Settings

Format = Literal["conll", "tsv", "quoted_tsv", "csv", "json", "jsonl", "parquet", "datasets", "lines", "squad"]
Tags = Literal["iob2", "iob1", "io", "bioes", "bilou", "spans"]
DELIMITED: tuple[Format, ...] = ("tsv", "quoted_tsv", "csv")
WITHOUT_COLUMNS: tuple[Format, ...] = ("conll", "lines", "squad")
"""Formats whose rows have no column or key that has to be named."""


def _quoted(value: Any) -> Any:
    """YAML reads an unquoted 1, yes or null as a number, a boolean or nothing, and nobody can tell afterwards what was written."""
    if value is None or isinstance(value, bool | int | float):
        raise ValueError("is text, so a number, yes, no, true, false or null stands in quotes")
    return value


Name = Annotated[str, BeforeValidator(_quoted)]
"""A label as text: "1", "true", "NA" and "null" are labels like any other."""


class Layout(Settings):
    """How the rows of one file are found in it."""

    benchmark: str
    format: Format
    """``conll``: a word and its tag a line, a blank line after each sentence. ``tsv``: tabs, where quotes are characters like any other. ``quoted_tsv`` and
    ``csv``: RFC 4180, with quotes around fields that hold a delimiter, a quote or a line end. ``json``: one document. ``jsonl``: an object a line.
    ``parquet``. ``datasets``: the Arrow files that ``save_to_disk`` of the datasets library writes. ``lines``: a text a line. ``squad``: the JSON of
    SQuAD, articles with paragraphs and questions about them."""
    encoding: str = "utf-8"
    """How characters are written in text files, in Python's name for it: utf-8, utf-16, cp1252, shift_jis. Nothing but UTF-8 is read without being named."""
    text: str = "text"
    """Column or key of the text, or of the list of words; dots lead inside: ``data.text``, ``result.0.value``."""
    text_pair: str | None = None
    """Pairs of texts: column or key of the second text; ``text_pair`` when nothing is set."""
    label: str = "label"
    """Column or key of the label, of the list of tags or labels, of the number, or of the spans."""
    label_columns: tuple[str, ...] | None = None
    """Several labels a text, with a column or key for each: those whose label holds say 1, true or yes, the others 0, false, no or nothing."""
    separator: str | None = Field(default=None, min_length=1, max_length=8)
    """Several labels a text, in one field of text: what stands between them, e.g. ``;``. Lists, also as JSON in a field, need none."""
    question: str = "question"
    """Question answering: column or key of the question. ``text`` names that of the text which it is asked about, ``label`` that of its answers."""
    answer_start: str | None = None
    """Question answering, in tables whose answers are plain text: the column of an answer's first character, counted from 0."""
    group: str | None = None
    """What rows belong to (a document, an author, a conversation): the column or key that names it, or (CoNLL) the word that begins the line before each
    document, e.g. ``-DOCSTART-``. A group stays in one split, and has one name in all files. Without it every row stands for itself; questions stand with those about the same
    article (``title``), or about the same text."""
    slice: str | None = None
    """Column or key that names the slice (a language, a region) of a row, where the path does not. In JSON lines ``slice`` when nothing is set; ``""`` tells
    none apart."""
    split: str | None = None
    """Column or key that names the split of a row, where one file holds several."""
    where: dict[str, Name] = {}
    """Rows are read only where these columns or keys have these values, e.g. ``{answer: accept}``; the others are counted as ``not_chosen``."""
    names: tuple[Name, ...] | None = None
    """What labels or tags that are numbers mean: 0 is the first name. Parquet and datasets folders often bring these names themselves."""
    tags: Tags = "iob2"
    """How entities are written: ``iob2`` (B- begins each), ``iob1`` (B- only where two of a type touch), ``io`` (no B-), ``bioes``, ``bilou``, or ``spans``: a
    list of first character, character behind the last, and type, as annotation tools export. All become iob2; the text of spans is cut into words as served text is."""
    word_column: int | None = None
    """CoNLL: the column of the word, counted from 1, or from the end: -1 is the last. The first, where only ``tag_column`` is set; with neither a line has
    two columns, the word and its tag."""
    tag_column: int | None = None
    """CoNLL: the column of the tag, counted in the same way. The last, where only ``word_column`` is set."""
    comment: str | None = None
    """CoNLL: lines that begin with this are no words, e.g. ``#``."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """CSV: what stands between fields, where it is not a comma."""
    header: bool = True
    """CSV and TSV: whether the first row names the columns. Without it they are called "1", "2", "3" …"""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            return codecs.lookup(encoding).name
        except (LookupError, ValueError):
            raise ValueError("should be an encoding that Python knows, like utf-8, utf-16, cp1252 or shift_jis") from None

    @field_validator("group")
    @classmethod
    def _where_groups_are_named(cls, group: str | None, info: Any) -> str | None:
        if group is not None and (not group.strip() or info.data.get("format") == "lines"):
            raise ValueError("names a column, a key or a mark; plain text (format: lines) has none of these")
        return group

    @field_validator("word_column", "tag_column")
    @classmethod
    def _from_one(cls, column: int | None) -> int | None:
        if column == 0:
            raise ValueError("counts from 1, or from the end: -1 is the last column")
        return column

    @property
    def head(self) -> Head:
        """What the data is for, as far as its rows are concerned. Raises ``InputError`` for a benchmark that is not known."""
        return head_of(self.benchmark)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of the texts of a row."""
        return (self.text, self.question if self.finds_spans else self.text_pair or "text_pair")[: self.head.texts]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns or keys that have to be there."""
        labels = (self.label_columns or (self.label,)) if self.labelled else ()
        start = (self.answer_start,) if self.finds_spans and self.format in DELIMITED else ()
        return (*self.texts, *labels, *(column for column in (self.group, self.slice, self.split, *start) if column), *self.where)

    @property
    def tagged(self) -> bool:
        """Whether each word has a label of its own."""
        return self.head.tagged

    @property
    def finds_spans(self) -> bool:
        """Whether rows are questions, answered by parts of a text."""
        return self.head.finds_spans

    @property
    def two_columns(self) -> bool:
        """Whether a CoNLL file is nothing but words and IOB2 tags."""
        return self.word_column is None and self.tag_column is None and self.tags == "iob2" and self.comment is None

    @property
    def labelled(self) -> bool:
        return self.head.labelled
