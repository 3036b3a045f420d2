"""How commands speak: results on stdout, as text or as one JSON object; progress on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click

STARTED = time.monotonic()


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "json_", is_flag=True, help="One JSON object on stdout.")(command)


def say(line: str) -> None:
    """A line of progress, with the time since the command began."""
    click.echo(f"{click.style(f'{time.monotonic() - STARTED:6.1f} s', dim=True)}  {line}", err=True)


def show(value: Any, json_: bool, text: Callable[[], str]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str) if json_ else text())
