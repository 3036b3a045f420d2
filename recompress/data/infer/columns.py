"""Which column is the text and which the label, from what stands in them; names only decide between columns that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from recompress.data.formats.records import value_at
from recompress.data.infer.answers import infer_flags, infer_numbers, infer_pairs
from recompress.data.infer.files import split_column
from recompress.data.infer.looks import LABELS, TEXTS, Records
from recompress.data.infer.questions import infer_questions
from recompress.data.infer.texts import infer_texts
from recompress.data.infer.words import SPAN_LISTS, TAG_LISTS, TOKENS, infer_spans, infer_token_lists
from recompress.data.questions import QUESTION_ANSWERING
from recompress.errors import DataRefused

SLICES, SPLIT_NAMES = ("slice", "language", "lang", "locale"), ("split", "partition", "subset", "fold", "set")
GROUPS = ("group", "document_id", "doc_id", "document", "doc", "author", "author_id", "user", "user_id", "conversation_id", "thread_id", "session_id")
KNOWN = frozenset((*TEXTS, *LABELS, *TOKENS, *TAG_LISTS, *SPAN_LISTS, *SLICES, *SPLIT_NAMES, "id"))
NEEDED = {
    "pair-classification": "no two columns are texts beside a column that holds a label (text:, text_pair: and label: name them)",
    "multi-label-classification": "no column holds lists of labels or labels with something between them, and no columns say 0 or 1 (label:, separator: or label_columns: say it)",
    "text-regression": "no column holds a number for each text (text: and label: name them)",
}
"""What a benchmark that was asked for needs."""
SLICE_ROWS = 100
"""A language with fewer rows than this is no slice of its own."""


def infer_columns(records: Records, names: Mapping[str, Sequence[str]], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Dials for columns (``benchmark``, ``text``, ``label``, ``tags``, ``slice``, ``split``, ``rename``, ``where``), why, and notes on what was uncertain.
    Raises ``DataRefused`` when no column fits, naming those that are there."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    if not columns:
        raise DataRefused("there is no row with a column or key")
    dials, why, notes = _kind(records, columns, names, given)
    used = {*(dials.get(name) for name in ("text", "text_pair", "label", "question", "answer_start")), *dials.get("label_columns", ())}
    _sides(records, [column for column in columns if column not in used], dials, why, notes, given)
    return dials, why, notes


def _kind(
    records: Records, columns: list[str], names: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    wanted = given.get("benchmark")
    if wanted in (None, QUESTION_ANSWERING) and (answer := infer_questions(records, columns, given)):
        return answer
    if wanted == QUESTION_ANSWERING:
        names_of_three = "question:, text: and label: name them"
        raise DataRefused(f"no three columns are questions, texts and answers that stand in them; there are: {', '.join(columns)} ({names_of_three})")
    for find in (infer_token_lists, infer_spans):
        if wanted in (None, "token-classification") and (answer := find(records, columns, names, given)):
            return answer
    if wanted == "token-classification":
        raise DataRefused(f"no two columns are words and tags, and none is a list of spans; there are: {', '.join(columns)} (text: and label: name them)")
    for benchmark, look in (("pair-classification", infer_pairs), ("multi-label-classification", infer_flags), ("text-regression", infer_numbers)):
        if wanted in (None, benchmark) and (answer := look(records, columns, given, sure=wanted is None)):
            return answer
        if wanted == benchmark:
            raise DataRefused(f"{NEEDED[benchmark]}; there are: {', '.join(columns)}")
    return infer_texts(records, columns, names, given)


def _sides(records: Records, columns: list[str], dials: dict[str, Any], why: dict[str, str], notes: list[str], given: Mapping[str, Any]) -> None:
    """Columns beside text and label: split, slice, an annotator's answer, and what might be a group."""
    for column in columns:
        counts: Counter[str] = Counter(str(value) for record in records if (value := value_at(record, column)) is not None)
        name = column.lower()
        if name in SPLIT_NAMES and (rename := split_column(counts, given.get("rename"))) is not None:
            dials |= {"split": column, **({"rename": rename} if rename else {})}
            why["split"] = f"its values are {', '.join(counts)}"
        elif name in SLICES and 1 < len(counts) <= 60 and min(counts.values()) >= SLICE_ROWS:
            dials["slice"], why["slice"] = column, f"{len(counts)} values: {', '.join(list(counts)[:5])}"
        elif name == "answer" and counts.keys() <= {"accept", "reject", "ignore"}:
            dials["where"], why["where"] = {column: "accept"}, f"what the annotator said of each row: {', '.join(counts)}"
        elif name in GROUPS and 1 < len(counts) < sum(counts.values()):
            notes.append(
                f"{column!r} names {len(counts):,} different things in {sum(counts.values()):,} rows; group: {column} keeps the rows of each in one split"
            )
