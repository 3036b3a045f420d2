"""A recipe's text with another pin: the value behind ``revision:`` or ``sha256:`` of one section, and not a character more."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from recompress.errors import InputError
from recompress.settings.file import as_plain


def move_pins(text: str, section: str, pins: Mapping[str, str]) -> str:
    """The text of a recipe in which the pins below ``section`` (``base`` or ``baseline``) have new values; keys that the recipe does not have are left out.

    Raises ``InputError`` where none of them stands there, or where the text would then say anything else than it did.
    """
    before = as_plain(text)
    settings = before.get(section) if isinstance(before, dict) else None
    known = {key: value for key, value in pins.items() if isinstance(settings, dict) and key in settings}
    if not isinstance(settings, dict) or not known:
        raise InputError(f"the recipe pins nothing under {section}: that could be moved ({', '.join(pins)})")
    moved = text
    for key, value in known.items():
        moved = _replace(moved, section, key, str(settings[key]), value)
    wanted = {**before, section: {**settings, **known}}
    if as_plain(moved) != wanted:
        raise InputError(f"the pins below {section}: cannot be moved by changing their values alone; write {known} there by hand")
    return moved


def move_pins_since(before: str, text: str, section: str, pins: Mapping[str, str]) -> str:
    """``text``, the recipe as it stands now, with the new pins, whatever else was edited in it since it was ``before``.

    Raises ``InputError`` where ``section`` says anything else than it did then: whoever wrote that decides. Where the new pins stand there already, nothing is moved.
    """
    then, now = _section(before, section), _section(text, section)
    wanted = then | {key: value for key, value in pins.items() if key in then}
    if now == wanted:
        return text
    if now != then:
        written = ", ".join(sorted(key for key in {*then, *now} if then.get(key) != now.get(key)))
        raise InputError(f"{section}: was changed while the run went on ({written}), so its pin stays as it was written; the run's pin is {dict(pins)}")
    return move_pins(text, section, pins)


def _section(text: str, section: str) -> dict[str, Any]:
    try:
        document = as_plain(text)
    except InputError:
        raise InputError(f"the recipe is no YAML any more, so the pin below {section}: stays as it is; mend it") from None
    settings = document.get(section) if isinstance(document, dict) else None
    return settings if isinstance(settings, dict) else {}


def changed_lines(before: str, after: str) -> list[str]:
    """The lines that a diff would show as removed or added."""
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[:2] in ("- ", "+ ")]


def _replace(text: str, section: str, key: str, old: str, new: str) -> str:
    """The one place inside the section's lines where the old value stands behind the key."""
    begin = re.search(rf"^{re.escape(section)}:", text, re.MULTILINE)
    if begin is None:
        raise InputError(f"the recipe has no section {section}: at the beginning of a line")
    following = re.search(r"^\w", text[begin.end() :], re.MULTILINE)
    end = begin.end() + following.start() if following else len(text)
    pattern = re.compile(rf"(\b{re.escape(key)}:\s*)([\"']?){re.escape(old)}")
    mark = "" if isinstance(as_plain(new), str) else '"'  # 40 hex digits may look like a number
    part, count = pattern.subn(lambda found: f"{found[1]}{found[2]}{new}" if found[2] else f"{found[1]}{mark}{new}{mark}", text[begin.start() : end], count=1)
    if not count:
        raise InputError(f"the recipe's {section}.{key} is not written out as {old!r}; write {new!r} there by hand")
    return text[: begin.start()] + part + text[end:]
