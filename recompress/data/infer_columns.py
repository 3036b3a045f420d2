"""Which column is the text and which the label, from what stands in them; names only decide between columns that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from recompress.data import delimited, json_files, tables
from recompress.data.column_looks import LABELS, TEXTS, Records, all_in, best_text, by_name, distinct, inside, is_label, is_plain, is_text, mean_length
from recompress.data.infer_answers import infer_flags, infer_numbers, infer_pairs
from recompress.data.infer_files import split_column
from recompress.data.infer_tags import infer_scheme
from recompress.data.layout import DELIMITED, Layout
from recompress.data.questions import QUESTION_ANSWERING, answers_stand
from recompress.data.reading import Reading, text_of
from recompress.data.records import value_at
from recompress.data.spans import read_spans
from recompress.errors import DataRefused

SAMPLE = 5000
"""Records that are looked at."""
TOKENS, TAG_LISTS = ("tokens", "words"), ("ner_tags", "tags", "labels", "label", "ner", "entities")
SPAN_LISTS = ("spans", "entities", "label", "labels", "annotations")
SLICES, SPLIT_NAMES = ("slice", "language", "lang", "locale"), ("split", "partition", "subset", "fold", "set")
GROUPS = ("group", "document_id", "doc_id", "document", "doc", "author", "author_id", "user", "user_id", "conversation_id", "thread_id", "session_id")
KNOWN = frozenset((*TEXTS, *LABELS, *TOKENS, *TAG_LISTS, *SPAN_LISTS, *SLICES, *SPLIT_NAMES, "id"))
QUESTIONS, CONTEXTS = ("question", "query", "query_text"), ("context", "passage", "paragraph", "document", "text", "article")
ANSWERS, STARTS = ("answers", "answer", "answer_text"), ("answer_start", "start", "answer_begin")
NEEDED = {
    "pair-classification": "no two columns are texts beside a column that holds a label (text:, text_pair: and label: name them)",
    "multi-label-classification": "no column holds lists of labels or labels with something between them, and no columns say 0 or 1 (label:, separator: or label_columns: say it)",
    "text-regression": "no column holds a number for each text (text: and label: name them)",
}
"""What a benchmark that was asked for needs."""
SLICE_ROWS = 100
"""A language with fewer rows than this is no slice of its own."""


def sample(path: Path, dials: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The first records of a file, and the names that it gives to the numbers in its columns. Raises ``DataRefused`` as readers do."""
    layout = Layout.model_validate({"benchmark": "text-classification", **{key: value for key, value in dials.items() if key in Layout.model_fields}})
    if layout.format in ("parquet", "datasets"):
        schema, batches = tables.open_table(path, layout.format)
        return list(islice((record for batch in batches for record in batch.to_pylist()), SAMPLE)), tables.class_names(path, schema)
    reading = Reading(path, strict=False)
    return list(islice(_records(reading, text_of(reading, layout.encoding), layout), SAMPLE)), {}


def _records(reading: Reading, text: str, layout: Layout) -> Iterator[dict[str, Any]]:
    if layout.format in DELIMITED:
        rows = (fields for _, fields in delimited.records(reading, text, layout))
        first = next(rows, [])
        header = first if layout.header else [str(i) for i in range(1, len(first) + 1)]
        if not layout.header:
            yield dict(zip(header, first, strict=True))
        yield from (dict(zip(header, fields, strict=False)) for fields in rows if len(fields) == len(header))
    else:
        values = json_files.records(reading, text) if layout.format == "json" else json_files.line_records(text)
        yield from (record for _, record in values if isinstance(record, dict))


def infer_columns(records: Records, names: Mapping[str, Sequence[str]], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Dials for columns (``benchmark``, ``text``, ``label``, ``tags``, ``slice``, ``split``, ``rename``, ``where``), why, and notes on what was uncertain.
    Raises ``DataRefused`` when no column fits, naming those that are there."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    if not columns:
        raise DataRefused("there is no row with a column or key")
    dials, why, notes = _kind(records, columns, names, given)
    used = {*(dials.get(name) for name in ("text", "text_pair", "label", "question", "answer_start")), *dials.get("label_columns", ())}
    _sides(records, [column for column in columns if column not in used], dials, why, notes)
    return dials, why, notes


def _kind(
    records: Records, columns: list[str], names: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    wanted = given.get("benchmark")
    if wanted in (None, QUESTION_ANSWERING) and (answer := _questions(records, columns, given)):
        return answer
    if wanted == QUESTION_ANSWERING:
        names_of_three = "question:, text: and label: name them"
        raise DataRefused(f"no three columns are questions, texts and answers that stand in them; there are: {', '.join(columns)} ({names_of_three})")
    for find in (_token_lists, _spans):
        if wanted in (None, "token-classification") and (answer := find(records, columns, names, given)):
            return answer
    if wanted == "token-classification":
        raise DataRefused(f"no two columns are words and tags, and none is a list of spans; there are: {', '.join(columns)} (text: and label: name them)")
    for benchmark, look in (("pair-classification", infer_pairs), ("multi-label-classification", infer_flags), ("text-regression", infer_numbers)):
        if wanted in (None, benchmark) and (answer := look(records, columns, given, sure=wanted is None)):
            return answer
        if wanted == benchmark:
            raise DataRefused(f"{NEEDED[benchmark]}; there are: {', '.join(columns)}")
    return _texts(records, columns, names, given)


def _questions(records: Records, columns: list[str], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]] | None:
    """Three columns of which the third holds parts of the second, for nearly all rows."""
    texts = [column for column in columns if is_text(records, column)]
    starts = [given["answer_start"]] if "answer_start" in given else [column for column in columns if column.lower() in STARTS] + [None]
    for question in [given["question"]] if "question" in given else [column for column in texts if column.lower() in QUESTIONS]:
        for text in [given["text"]] if "text" in given else [column for column in by_name(texts, CONTEXTS) if column != question]:
            for label in [given["label"]] if "label" in given else [column for column in columns if column.lower() in ANSWERS]:
                for start in starts:
                    if label not in (question, text, start) and answers_stand(records[:200], question, text, label, start):
                        dials = {"benchmark": QUESTION_ANSWERING, "question": question, "text": text, "label": label}
                        why = {"question": "what is asked", "text": "what it is asked about", "label": "answers, which stand in that text"}
                        plain = any(isinstance(value_at(record, label), str) for record in records[:50])
                        return dials | ({"answer_start": start} if start and plain else {}), why, []
    return None


def _token_lists(
    records: Records, columns: list[str], names: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]] | None:
    lists = [column for column in columns if any(isinstance(value_at(record, column), list) for record in records[:50])]
    texts = [given["text"]] if "text" in given else [column for column in by_name(lists, TOKENS) if all_in(records, column, str)]
    for text in texts:
        tags = [given["label"]] if "label" in given else [column for column in by_name(lists, TAG_LISTS) if column != text]
        for label in tags:
            pairs = [(value_at(record, text), value_at(record, label)) for record in records]
            if not all(isinstance(words, list) and isinstance(marks, list) and len(words) == len(marks) for words, marks in pairs[:50]):
                continue
            known = given.get("names") or names.get(label)
            sequences = [[_tag(mark, known) for mark in marks] for _, marks in pairs if isinstance(marks, list)]
            scheme = given.get("tags") or infer_scheme(sequences)
            if scheme is None and all(tag.lstrip("-").isdigit() for sequence in sequences for tag in sequence):
                raise DataRefused(f"the tags in {label!r} are numbers, and nothing says what they mean; names: lists them, the name of 0 first")
            if scheme is not None:
                dials = {"benchmark": "token-classification", "text": text, "label": label, "tags": scheme}
                return dials, {"text": "lists of words", "label": "a tag for each word", "tags": f"how the tags look: {_shown(sequences)}"}, []
    return None


def _spans(
    records: Records, columns: list[str], _: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]] | None:
    for text in [given["text"]] if "text" in given else by_name([*columns, *inside(records, columns)], TEXTS):
        if not any(isinstance(value_at(record, text), str) for record in records[:50]):
            continue
        for label in [given["label"]] if "label" in given else by_name(columns, SPAN_LISTS):
            values = [(value_at(record, label), value_at(record, text)) for record in records]
            lists = [(value, words) for value, words in values if isinstance(value, list) and value and isinstance(words, str)]
            if lists and sum(_holds_spans(value, words) for value, words in lists) >= 0.5 * len(lists):
                dials = {"benchmark": "token-classification", "text": text, "label": label, "tags": "spans"}
                return dials, {"label": "spans of characters", "tags": "first character, the one behind the last, type"}, []
    return None


def _holds_spans(value: Any, text: str) -> bool:
    try:
        return bool(read_spans(value, text))
    except ValueError:
        return False


def _texts(
    records: Records, columns: list[str], names: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    every = [*columns, *inside(records, columns)]
    texts = [column for column in every if is_text(records, column)]
    if "text" not in given and not texts:
        raise DataRefused(f"no column is text; there are: {', '.join(columns)} (text: names one)")
    text = given.get("text") or best_text(records, texts)
    notes = []
    others = [column for column in texts if column != text and mean_length(records, column) > 20 and distinct(records, column) > len(records) / 2]
    if others and "text" not in given:
        notes.append(f"{', '.join(map(repr, others[:3]))} could be the text too; text: says which")
    if given.get("benchmark") == "language-modelling":
        return {"benchmark": "language-modelling", "text": text}, {"text": "the text"}, notes
    labels = [given["label"]] if "label" in given else [column for column in by_name(columns, LABELS) if column != text and is_label(records, column)]
    if not labels and (called := [column for column in by_name(columns, LABELS) if column.lower() in LABELS and column != text and is_plain(records, column)]):
        labels = called[:1]
        notes.append(f"{called[0]!r} is taken for the label by its name alone: its values hardly repeat, or some are missing; label: names another")
    if not labels:
        if given.get("benchmark") == "text-classification":
            raise DataRefused(f"no column holds a label for each text; there are: {', '.join(columns)} (label: names one)")
        return {"benchmark": "language-modelling", "text": text}, {"text": "the text; no column could be a label"}, notes
    label = labels[0] if labels[0].lower() in LABELS or "label" in given else min(labels, key=lambda column: distinct(records, column))
    if others := [other for other in labels if other != label and distinct(records, other) <= len(records) / 5]:
        notes.append(f"{', '.join(map(repr, others[:3]))} could be the label too; label: says which")
    kinds = distinct(records, label)
    what = f"{kinds:,} different values" + (", named by the file itself" if names.get(label) else "")
    return {"benchmark": "text-classification", "text": text, "label": label}, {"text": "the text", "label": what}, notes


def _sides(records: Records, columns: list[str], dials: dict[str, Any], why: dict[str, str], notes: list[str]) -> None:
    """Columns beside text and label: split, slice, an annotator's answer, and what might be a group."""
    for column in columns:
        counts: Counter[str] = Counter(str(value) for record in records if (value := value_at(record, column)) is not None)
        name = column.lower()
        if name in SPLIT_NAMES and (rename := split_column(counts)) is not None:
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


def _tag(mark: Any, names: Sequence[str] | None) -> str:
    tag = str(mark)
    return names[int(tag)] if names and tag.isdecimal() and int(tag) < len(names) else tag


def _shown(sequences: Sequence[Sequence[str]]) -> str:
    return ", ".join(tag for tag, _ in Counter(tag for sequence in sequences for tag in sequence).most_common(5))
