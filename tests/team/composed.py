"""compose.yaml as a test reads it: the services with their commands and environment, what is written there in braces filled in."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
COMPOSE = REPOSITORY / "compose.yaml"
EXAMPLE = REPOSITORY / "deploy" / "team.env.example"
TO_WRITE = "write-your-own"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<other>[^}]*))?\}")


@cache
def written() -> dict[str, Any]:
    """compose.yaml as it stands."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def variables_of_the_example() -> dict[str, str]:
    """What deploy/team.env.example asks for, with its own values."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def read_by_compose(text: str) -> dict[str, str]:
    """A file of variables as Docker Compose reads it (compose-go, dotenv/parser.go), of one line each and with no variable in another. Raises ``ValueError``."""
    values = dict[str, str]()
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not value.startswith(("'", '"')):
            values[name] = value.partition(" #")[0].rstrip()
            if "$" in values[name]:
                raise ValueError("a variable")
            continue
        body = re.match(r"'((?:\\\\|\\'|\\(?!['\\])|[^'\\])*)'\s*(#.*)?$", value)
        if body is None:
            raise ValueError("a quote that is not closed, or more behind it")
        values[name] = re.sub(r"\\(\\|')", lambda found: found[1] if found[1] == "'" else found[0], body[1])
    return values


def own_variables() -> dict[str, str]:
    """The example as a team fills it in: a password of its own wherever it asks for one."""
    return {name: re.sub(TO_WRITE, lambda _: secrets.token_urlsafe(24), value) for name, value in variables_of_the_example().items()}


def filled_in(text: str, variables: Mapping[str, str]) -> str:
    """A text with its variables, as Docker Compose fills them in. Raises ``KeyError`` for one that is needed and not there."""

    def value(match: re.Match[str]) -> str:
        given = variables.get(match["name"], "")
        if match["kind"] == "-":
            return given or match["other"]
        if match["kind"] == "?" and not given:
            raise KeyError(match["name"])
        return given

    return _VARIABLE.sub(value, text)


def command_of(service: str, variables: Mapping[str, str]) -> list[str]:
    return [filled_in(word, variables) for word in written()["services"][service]["command"]]


def environment_of(service: str, variables: Mapping[str, str]) -> dict[str, str]:
    return {name: filled_in(str(value), variables) for name, value in written()["services"][service].get("environment", {}).items()}


def health_of(service: str) -> str:
    """The address that the service's health check asks for; empty where it has none."""
    words: list[str] = written()["services"][service].get("healthcheck", {}).get("test", [""])
    return words[-1] if words[-1].startswith("http") else ""
