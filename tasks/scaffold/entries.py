"""One more entry under ``datasets:`` of somebody's ``params.yaml``, of which not a character changes otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from recompress.errors import InputError
from recompress.settings.file import SettingsFile

KEY = "datasets"


def with_entry(path: Path, name: str, entry: Sequence[str]) -> str:
    """The text of ``path`` with the entry ``name``: its lines, each indented by two (``entry_lines`` of ``texts``). Comments and order stay.

    Raises ``InputError`` for a file that cannot be read, and for entries in braces, among which no line can be put.
    """
    values = SettingsFile(path).values
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {type(values).__name__}, not settings")
    text = path.read_text(encoding="utf-8")
    text += "\n" * (not text.endswith("\n"))
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    lines, pairs = text.splitlines(keepends=True), node.value
    place = next((i for i, (key, _) in enumerate(pairs) if key.value == KEY), None)
    if place is None:
        return f"{text}\n{KEY}:\n{_indented(entry, 2)}"
    key, value = pairs[place]
    if not values[KEY]:  # {} or nothing
        first = key.start_mark.line
        _, hash_, comment = lines[first].partition("#")
        head = f"{KEY}:{f'  # {comment.strip()}' if hash_ else ''}\n"
        return _checked("".join([*lines[:first], head, _indented(entry, 2), *lines[first + 1 :]]), name, path)
    if value.flow_style:
        raise InputError(
            f"{KEY} is written in braces ({path}:{key.start_mark.line + 1}), and no line is put among them; write an entry a line, as `recompress init` does"
        )
    end = _end(lines, pairs[place + 1][0].start_mark.line if place + 1 < len(pairs) else len(lines))
    made = "".join([*lines[:end], _indented(entry, value.value[0][0].start_mark.column), *lines[end:]])
    return _checked(made, name, path)


def _end(lines: Sequence[str], end: int) -> int:
    """Comments and empty lines at the margin before the next key belong to that."""
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end


def _checked(text: str, name: str, path: Path) -> str:
    """What was there must be there as it was, and the new entry beside it."""
    before, after = yaml.safe_load(path.read_text(encoding="utf-8")), yaml.safe_load(text)
    others = {key: value for key, value in after[KEY].items() if key != name}
    if name not in after[KEY] or {**after, KEY: others} != {**before, KEY: before[KEY] or {}}:
        raise InputError(f"no entry can be put into {path} as it is written; write it there yourself: recompress data explain shows it")
    return text


def _indented(entry: Sequence[str], by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" if line else "\n" for line in entry)
