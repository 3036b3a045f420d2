"""The rows that a request asks about. Its body is JSON in one of the four forms that MLflow's server takes:

    {"inputs": ["leo kula"]}      {"inputs": [{"question": …, "context": …}]}      {"inputs": {"text": […], "text_pair": […]}}      and "instances" likewise
    {"dataframe_records": [{"text": …}]}
    {"dataframe_split": {"columns": ["text"], "data": [["leo kula"]]}}

A row is text. A number, a boolean or null is refused and never read as if it were one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from recompress.serving.limits import Limits
from recompress.serving.refusal import Refusal

Row = str | dict[str, str]
"""A text, or the texts by the names of the model's columns."""
FORMS = ("inputs", "instances", "dataframe_records", "dataframe_split")
KINDS = {bool: "a boolean", int: "a number", float: "a number", type(None): "null", list: "a list", dict: "an object", str: "a text"}
"""What JSON calls what Python has read."""


def rows_of(body: bytes, columns: Sequence[str], limits: Limits) -> list[Row]:
    """The rows of a request to a model with these columns, in order. Raises ``Refusal``: 400 for what is no such body, 413 for too many or too long rows."""
    value = _parsed(body)
    if not isinstance(value, dict):
        raise Refusal(400, f"the body is {KINDS[type(value)]} and not an object; send {_example(columns)}")
    given = [form for form in FORMS if form in value]
    if len(given) != 1:
        raise Refusal(400, f"the body names {' and '.join(given) or 'none of ' + ', '.join(FORMS)}; send {_example(columns)}")
    if value.get("params"):
        raise Refusal(400, "this model takes no params; leave them out")
    form = given[0]
    rows = _split(value[form], columns, limits) if form == "dataframe_split" else _listed(value[form], form, columns, limits)
    return [_checked(row, number, columns, limits) for number, row in enumerate(rows, 1)]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply; a row is a text, or an object of texts") from None
    except ValueError:  # of more digits than Python reads
        raise Refusal(400, "a number in the body has too many digits; rows are texts") from None


def _no_number(name: str) -> NoReturn:
    raise Refusal(400, f"{name} is not JSON; rows are texts")


def _listed(value: Any, form: str, columns: Sequence[str], limits: Limits) -> Sequence[Any]:
    """Rows as a list, one text alone, or lists by the names of columns."""
    if isinstance(value, str) and len(columns) == 1 and form != "dataframe_records":
        return [value]
    if isinstance(value, dict) and form != "dataframe_records":
        return _by_column(value, columns, limits)
    if not isinstance(value, list):
        raise Refusal(400, f"{form} is {KINDS[type(value)]} and not a list of rows; send {_example(columns)}")
    _check_count(len(value), limits)
    return value


def _by_column(value: Mapping[str, Any], columns: Sequence[str], limits: Limits) -> Sequence[Any]:
    _check_columns(value, columns, "inputs")
    lists = [value[name] for name in columns]
    if all(isinstance(one, str) for one in lists):
        return [{name: value[name] for name in columns}]
    if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists}) != 1:
        raise Refusal(400, f"each of {', '.join(columns)} is a list, and all of them are as long; send {_example(columns)}")
    _check_count(len(lists[0]), limits)
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _split(value: Any, columns: Sequence[str], limits: Limits) -> Sequence[Any]:
    """The rows of a table whose columns are named beside it; the only column of a model of texts may have a number for a name."""
    names, data = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(names, list) or not isinstance(data, list):
        raise Refusal(400, f'dataframe_split is {{"columns": […], "data": [[…], …]}}; or send {_example(columns)}')
    if len(columns) == len(names) == 1 and not isinstance(names[0], str):
        names = list(columns)
    _check_columns([name for name in names if isinstance(name, str)], columns, "columns")
    _check_count(len(data), limits)
    places = [names.index(name) for name in columns]
    rows = []
    for number, row in enumerate(data, 1):
        if not isinstance(row, list) or len(row) != len(names):
            raise Refusal(400, f"row {number} of data is no list with a value for each of the {len(names)} columns")
        rows.append({name: row[place] for name, place in zip(columns, places, strict=True)})
    return rows


def _checked(row: Any, number: int, columns: Sequence[str], limits: Limits) -> Row:
    if isinstance(row, str) and len(columns) == 1:
        _check_text(row, f"row {number}", limits)
        return row
    if not isinstance(row, dict):
        wanted = "a text" if len(columns) == 1 else f"an object with {' and '.join(columns)}"
        raise Refusal(400, f"row {number} is {KINDS[type(row)]} and not {wanted}")
    _check_columns(row, columns, f"row {number}")
    texts: dict[str, str] = {name: row[name] for name in columns}
    for name, text in texts.items():
        _check_text(text, f"{name} of row {number}", limits)
    return texts


def _check_text(text: Any, where: str, limits: Limits) -> None:
    if not isinstance(text, str):
        raise Refusal(400, f"{where} is {KINDS[type(text)]} and not a text")
    if len(text) > limits.characters:
        raise Refusal(
            413,
            f"{where} has {len(text):,} characters, and this server takes {limits.characters:,} at most; send a shorter text, or start it with --max-characters",
        )


def _check_columns(names: Any, columns: Sequence[str], where: str) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise Refusal(400, f"{where} has no {' and no '.join(missing)}; this model is asked with {' and '.join(columns)}")


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.rows:
        raise Refusal(413, f"the request has {count:,} rows, and this server takes {limits.rows:,} at most; send several requests, or start it with --max-rows")


def _example(columns: Sequence[str]) -> str:
    row = '"…"' if len(columns) == 1 else f"{{{', '.join(f'{chr(34)}{name}{chr(34)}: …' for name in columns)}}}"
    return f'{{"inputs": [{row}, …]}}'
