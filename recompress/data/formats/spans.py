"""Entities as annotation tools export them: first character, the one behind the last, and a type. They become words and IOB2 tags.

Text is cut into words by the rule by which served text is cut (``recompress.benchmarks.text``), so that a model is asked what it was trained on. A span that
begins or ends inside a word cannot be written as tags, and neither can one that overlaps another: both are named, never rounded.

Understood: ``[0, 4, "PER"]`` (doccano), ``{"start_offset": 0, "end_offset": 4, "label": "PER"}`` (doccano with relations), ``{"start": 0, "end": 4, "label":
"PER"}`` (Prodigy), ``{"start": 0, "end": 4, "text": "Asha", "labels": ["PER"]}`` (Label Studio, small), and Label Studio's whole export, where a task has
``annotations`` with a ``result`` each. Offsets count characters (code points); where a span brings its text and only UTF-16 units fit it, they are those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recompress.benchmarks.text import places_of_words

STARTS, ENDS = ("start", "start_offset", "begin"), ("end", "end_offset")
TYPES = ("label", "labels", "type", "tag", "entity", "entity_group")


class Span(NamedTuple):
    start: int
    end: int
    type: str


def words_and_tags(text: str, spans: Sequence[Span]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of ``text`` and their IOB2 tags. Raises ``ValueError`` for a span that is no row of whole words, and for two that overlap."""
    places = places_of_words(text)
    starts, ends = {start: i for i, (start, _) in enumerate(places)}, {end: i for i, (_, end) in enumerate(places)}
    tags = ["O"] * len(places)
    for span in sorted(set(spans)):
        start, end = _without_spaces(text, span)
        if start not in starts or end not in ends:
            cut = next((text[a:b] for a, b in places if a < start < b or a < end < b), None)
            where = f"begins or ends inside the word {cut!r}" if cut else "is no row of whole words"
            raise ValueError(f"the span {span.start} to {span.end} ({span.type}) {where}")
        first, last = starts[start], ends[end]
        if any(tag != "O" for tag in tags[first : last + 1]):
            raise ValueError(f"the span {span.start} to {span.end} ({span.type}) overlaps another; a word has one tag")
        tags[first : last + 1] = [f"B-{span.type}", *[f"I-{span.type}"] * (last - first)]
    return tuple(text[start:end] for start, end in places), tuple(tags)


def _without_spaces(text: str, span: Span) -> tuple[int, int]:
    marked = text[span.start : span.end]
    return span.start + len(marked) - len(marked.lstrip()), span.end - len(marked) + len(marked.rstrip())


def read_spans(value: Any, text: str) -> list[Span]:
    """Spans in any of the forms above. Raises ``ValueError`` that says which one cannot be read, and why."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError("expected a list of spans")
    if value and all(isinstance(item, Mapping) and "result" in item for item in value):
        value = _of_one_annotator(value)
    return [_read_span(item, text) for item in value if not (isinstance(item, Mapping) and item.get("type") == "relation")]


def _of_one_annotator(annotations: Sequence[Mapping[str, Any]]) -> Any:
    done = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    if len(done) != 1:
        raise ValueError(f"{len(done)} annotations; one is expected, because nobody knows which of several is right")
    return done[0]["result"]


def _read_span(item: Any, text: str) -> Span:
    if isinstance(item, Mapping):
        inner = item["value"] if isinstance(item.get("value"), Mapping) else item
        start, end, kind = (_first(inner, keys) for keys in (STARTS, ENDS, TYPES))
        marked = inner.get("text")
    elif isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 3:
        (start, end, kind), marked = item, None
    else:
        raise ValueError(f"{_cut(item)} is no span; expected start, end and label")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        if len(kind) != 1:
            raise ValueError(f"the span {_cut(item)} has {len(kind)} labels; a word has one tag")
        kind = kind[0]
    try:
        first, last = int(start), int(end)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{_cut(item)} is no span; expected start and end as numbers of characters") from None
    if not isinstance(kind, str) or not kind.strip() or any(character.isspace() for character in kind):
        raise ValueError(f"the span {_cut(item)} has no type that can be part of a tag: one word")
    first, last = _as_characters(text, first, last, marked if isinstance(marked, str) else None)
    if not 0 <= first < last <= len(text) or not text[first:last].strip():
        raise ValueError(f"the span {start} to {end} ({kind}) holds nothing of a text of {len(text)} characters")
    return Span(first, last, kind)


def _as_characters(text: str, start: int, end: int, marked: str | None) -> tuple[int, int]:
    """Offsets in characters. Browsers count UTF-16 units, in which an emoji is two."""
    if marked is None or text[start:end] == marked:
        return start, end
    units = text.encode("utf-16-le", "surrogatepass")
    first, last = (len(units[: 2 * place].decode("utf-16-le", errors="replace")) for place in (start, end))
    if text[first:last] == marked:
        return first, last
    raise ValueError(f"the span {start} to {end} says {_cut(marked)}, but the text has {_cut(text[start:end])} there")


def _first(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
