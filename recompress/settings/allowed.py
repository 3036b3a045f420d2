"""What a setting may be, in words: ``a share in [0, 1)``, ``a whole number of at least 1``, ``'none' or 'required'``.

The words are made from the JSON schema of the settings class, so that they cannot say anything else than what is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from recompress.settings.base import Settings

Schema = Mapping[str, Any]
KEY = "[key]"
"""What pydantic writes behind a name that is wrong itself."""


def allowed_at(kind: type[Settings], location: Iterable[int | str]) -> str | None:
    """What may stand at ``location`` in ``kind``; ``None`` where the location leads nowhere. A location that ends with ``KEY`` is the name before it."""
    whole, steps = _schema(kind), tuple(location)
    here: Schema | None = whole
    for step in (*steps[:-2], KEY) if steps and steps[-1] == KEY else steps:
        here = next((child for branch in _branches(whole, here) if (child := _below(branch, step)) is not None), None) if here is not None else None
    return None if here is None else _words(whole, here)


@cache
def _schema(kind: type[Settings]) -> Schema:
    return kind.model_json_schema(by_alias=True)


def _branches(whole: Schema, schema: Schema) -> list[Schema]:
    """The schemas that a value may follow, references resolved; nothing is said for a setting that may be left out."""
    if "$ref" in schema:
        return _branches(whole, whole["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return [branch for option in schema["anyOf"] for branch in _branches(whole, option) if branch.get("type") != "null"]
    return [schema]


def _below(schema: Schema, step: int | str) -> Schema | None:
    if isinstance(step, int):
        return schema.get("items") or None
    if step == KEY:
        return schema.get("propertyNames")
    others = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
    child = schema.get("properties", {}).get(step, others)
    return child if isinstance(child, Mapping) else None


def _words(whole: Schema, schema: Schema) -> str:
    return _joined([_one(branch) for branch in _branches(whole, schema)])


def _one(schema: Schema) -> str:
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return _joined([repr(value) if isinstance(value, str) else str(value) for value in schema["enum"]])
    if "in_words" in schema:
        return str(schema["in_words"])
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number":
            return _number(schema)
        case "string":
            return f"text of at least {schema['minLength']} characters" if "minLength" in schema else "text"
        case "array":
            return "a list"
        case "object":
            return "keys and values"
    return "something else"


def _number(schema: Schema) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    whole = schema["type"] == "integer"
    bottom, top = (above if low is None else low), (below if high is None else high)
    kind = "a whole number" if whole else "a share" if below == 1 and bottom is not None and bottom >= 0 else "a number"
    opening, closing = "[" if above is None else "(", "]" if below is None else ")"
    match bottom, top:
        case None, None:
            return kind
        case _, None:
            return f"{kind} {'of at least' if above is None else 'above'} {_plain(bottom)}"
        case None, _:
            return f"{kind} {'of at most' if below is None else 'below'} {_plain(top)}"
    if whole and above is None and below is None:
        return f"{kind} from {_plain(bottom)} to {_plain(top)}"
    return f"{kind} in {opening}{_plain(bottom)}, {_plain(top)}{closing}"


def _plain(limit: Any) -> str:
    return f"{int(limit):,}" if limit == int(limit) else f"{limit:g}"


def _joined(words: list[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} or {last}" if rest else last
