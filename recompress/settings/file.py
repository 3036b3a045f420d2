"""Read a YAML file into a settings class, and say what is wrong with it by line.

sparsity is a share in [0, 1), got 1.5 (recipes/x.yaml:14)
unknown key 'polcy' (recipes/x.yaml:9); did you mean 'policy'?
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from recompress.errors import InputError
from recompress.settings.allowed import KEY, allowed_at
from recompress.settings.base import Settings

Location = tuple[int | str, ...]
S = TypeVar("S", bound=Settings)
MAX_CHARACTERS = 1 << 20


LARGEST = (1 << 53) - 1
"""The largest whole number that has a digest (RFC 8785)."""
DEEPEST = 40
"""So many lists and keys inside each other: far more than any settings have."""


class _Alias(Exception):
    """Something in the text stands for what was written elsewhere in it."""

    def __init__(self, line: int) -> None:
        self.line = line


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-4`` as a word and ``2026-11-20`` as a date; people who write recipes mean a number and a name."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise _Alias(alias.start_mark.line + 1)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


class SettingsFile:
    """A YAML file as plain values that remembers the line of every key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Location, int] = {}
        self.values: Any = self._construct(self._compose(), ())

    def where(self, location: Location) -> str:
        """``file:line`` of the key at ``location``, or of the nearest key above it."""
        while location and location not in self.lines:
            location = location[:-1]
        return f"{self.path}:{self.lines.get(location, 1)}"

    def read_as(self, kind: type[S], location: Location = ()) -> S:
        """The value at ``location`` as settings. Raises ``InputError`` that names the key, the value, the limit and the line."""
        values = self.values
        for step in location:
            values = values[step]
        try:
            return kind.model_validate_json(json.dumps(values))
        except ValidationError as error:
            problems = [*dict.fromkeys(self._explain(kind, problem, location) for problem in error.errors())]  # each branch of a union says the same
            raise InputError("; ".join(problems[:3])) from None

    def _explain(self, kind: type[Settings], problem: ErrorDetails, above: Location) -> str:
        inside = _value_at(kind, problem)
        location = (*above, *inside)
        where = self.where(location)
        if problem["type"] == "extra_forbidden":
            return unknown("key", str(location[-1]), _keys_at(kind, inside[:-1]), where)
        if problem["type"] == "missing":
            return f"{_name(location)} is missing ({where})"
        name, given = _name(location) or "the file", _given(problem["input"])
        if problem["type"] == "value_error":
            return f"{name} {problem['msg'].removeprefix('Value error, ')}, got {given} ({where})"
        if problem["type"] == "too_short":
            return f"{name} needs {problem['ctx']['min_length']} or more, got {given} ({where})"
        if (words := allowed_at(kind, inside)) is not None:
            return f"{name.removesuffix(f'.{KEY}')} is {words}, got {given} ({where})"
        return f"{name} {problem['msg'].removeprefix('Input ')}, got {given} ({where})"

    def _compose(self) -> yaml.Node:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"{self.path} does not exist") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} cannot be read as UTF-8 text: {error}") from None
        if len(text) > MAX_CHARACTERS:
            raise InputError(f"{self.path} is {len(text):,} characters long, the limit is {MAX_CHARACTERS:,}")
        try:
            node = _composed(text)
        except _Alias as alias:
            raise InputError(f"{self.path} uses a YAML alias (*name); write the value out ({self.path}:{alias.line})") from None
        except RecursionError:
            raise InputError(f"{self.path} is nested deeper than {DEEPEST} lists and keys") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise InputError(f"not valid YAML: {getattr(error, 'problem', None) or error} ({self.path}:{line})") from None
        if node is None:
            raise InputError(f"{self.path} is empty")
        return node

    def _construct(self, node: yaml.Node, location: Location) -> Any:
        self.lines.setdefault(location, node.start_mark.line + 1)
        if len(location) > DEEPEST:
            raise InputError(f"nested deeper than {DEEPEST} lists and keys ({self.path}:{node.start_mark.line + 1})")
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key, line = str(key_node.value), key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode) or not _is_text(key):
                    raise InputError(f"a key is a word, and here stands something else ({self.path}:{line})")
                if key in mapping:
                    raise InputError(f"{key!r} is given twice ({self.path}:{line})")
                self.lines[(*location, key)] = line
                mapping[key] = self._construct(value_node, (*location, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self._construct(child, (*location, i)) for i, child in enumerate(node.value)]
        loader = _Loader("")
        try:
            value = loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"{node.value!r} cannot be read: {error} ({self.path}:{node.start_mark.line + 1})") from None
        finally:
            loader.dispose()
        if why := _no_setting(value):
            raise InputError(f"{_given(node.value)} {why} ({self.path}:{node.start_mark.line + 1})")
        return value


def _no_setting(value: Any) -> str:
    """Why no setting can be such a value, which JSON or a digest has no form for; empty where one can."""
    if isinstance(value, str) and not _is_text(value):
        return "holds half a character"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"is a number beyond {LARGEST:,}, which no setting can be; put it into quotes where it is a name"
    return "" if value is None or isinstance(value, str | int | float) else f"is {type(value).__name__} to YAML; write it as text, a number, true or false"


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=32)
def _composed(text: str) -> yaml.Node | None:
    """The nodes of a text. A command asks the same few files of a project again and again, and YAML takes its time."""
    node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    return node


def as_plain(text: str) -> Any:
    """One value as YAML writes it, as settings files read it. Raises ``InputError``."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} is no value of YAML: {str(error).splitlines()[0]}") from None


def read_settings(path: Path, kind: type[S]) -> S:
    """The whole file as settings. Raises ``InputError``."""
    return SettingsFile(path).read_as(kind)


class _Values(SettingsFile):
    """Values that were given in Python: where there are no lines, the call is named."""

    def __init__(self, values: Mapping[str, Any], call: str) -> None:
        self.lines, self.values, self._call = {}, dict(values), call

    def where(self, location: Location) -> str:
        return self._call


def read_values(kind: type[S], values: Mapping[str, Any], call: str) -> S:
    """Values from Python as settings; ``call`` says where they were given. Raises ``InputError``."""
    try:
        return _Values(values, call).read_as(kind)
    except TypeError as error:  # what JSON has no form for
        raise InputError(f"{call}: {error}; settings are numbers, texts, lists and true or false") from None


def unknown(what: str, given: str, known: Iterable[str], where: str) -> str:
    """The line that refuses a word which is not known, with the nearest one that is."""
    words = sorted(known)
    near = difflib.get_close_matches(given, words, n=1, cutoff=0.5)
    way_out = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(words)}" if words else "none is known here"
    return f"unknown {what} {given!r} ({where}); {way_out}"


def _given(value: Any) -> str:
    """A value as a person would write it, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _name(location: Location) -> str:
    return ".".join(str(step) for step in location)


def _value_at(kind: type[Settings], problem: ErrorDetails) -> Location:
    """Where the value stands that is wrong: of a union, pydantic names a branch behind it."""
    location = problem["loc"]
    if problem["type"] in ("extra_forbidden", "missing") or allowed_at(kind, location) is not None:
        return location
    return location[:-1] if allowed_at(kind, location[:-1]) is not None else location


def _keys_at(kind: type[Settings], location: Location) -> list[str]:
    """The keys that the settings class at ``location`` knows; empty where the walk leaves settings classes."""
    here: Any = kind
    for step in location:
        field = _fields(here).get(str(step))
        here = _settings_in(field.annotation) if field is not None else here
    return list(_fields(here))


def _fields(kind: Any) -> dict[str, FieldInfo]:
    """The fields of a settings class by the names that people write."""
    return {field.alias or name: field for name, field in getattr(kind, "model_fields", {}).items()}


def _settings_in(annotation: Any) -> Any:
    """The settings class inside ``X``, ``X | None``, ``tuple[X, ...]`` or ``dict[str, X]``."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        nested = _settings_in(inner)
        if nested is not None:
            return nested
    return None


def place_in(root: Path, recipe: Path) -> str:
    """What a recipe's file is called, however it is written and whatever links lead to it: relative to the project where it lies in it."""
    home, resolved = root.resolve(), (root / recipe).resolve()
    return resolved.relative_to(home).as_posix() if resolved.is_relative_to(home) else str(resolved)
