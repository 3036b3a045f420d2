"""How commands speak: results on stdout, as text or as one JSON object; progress on stderr."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from flows.stdout import write_result
from recompress.errors import InputError, RecompressError, without_passwords
from tasks.running.home import check_project

if TYPE_CHECKING:
    from tasks.running.project import Project

STARTED = time.monotonic()
FILE = click.Path(path_type=Path)
DIALS = click.option(
    "--set", "dials", multiple=True, metavar="KEY=VALUE", help="A dial of the entry that is known already, e.g. --set text=body --set encoding=cp1252."
)


class Terminated(BaseException):
    """SIGTERM, where the process stands."""


@contextmanager
def clearing_up() -> Iterator[None]:
    """While the block runs, SIGTERM is raised as ``Terminated``, as Ctrl-C is as ``KeyboardInterrupt``: whoever has made something half takes it away again. Runs and
    servers have handlers of their own."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "json_", is_flag=True, help="One JSON object on stdout.")(command)


def say(line: str) -> None:
    """A line of progress, with the time since the command began."""
    click.echo(f"{click.style(f'{time.monotonic() - STARTED:6.1f} s', dim=True)}  {without_passwords(line)}", err=True)


def show(value: Any, json_: bool, text: Callable[[], str]) -> None:
    write_result(json.dumps(value, indent=2, ensure_ascii=False, default=str) if json_ else text())


def fail(error: RecompressError, json_: bool) -> NoReturn:
    """End with the error's line and exit code. Where the result stands on stdout as JSON already, no second object follows it."""
    if not json_:
        raise error
    click.echo(f"recompress: {error}", err=True)
    sys.exit(error.exit_code)


def project(root: Path) -> Project:
    from tasks.running.project import Project

    return Project(root)


def check_text(args: tuple[str, ...]) -> None:
    """Raises ``InputError`` for an argument with bytes that are not UTF-8: no record, no name and no text can hold them."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise InputError(f"the argument {arg[:80]!r} is not UTF-8 text; write it again, or convert it with iconv") from None


def read_lines() -> tuple[str, ...]:
    """The lines of stdin: what ends with a line feed, with or without a carriage return, and nothing else (a text may hold U+2028 or a form feed). A byte order
    mark is no part of the first one. Raises ``InputError`` for bytes that are not UTF-8, and where stdin is closed."""
    if sys.stdin is None:
        raise InputError("stdin is closed; give the texts as arguments, or a file with one text in each line (< texts.txt)")
    try:
        lines = sys.stdin.buffer.read().decode("utf-8-sig").split("\n")
        return tuple(line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1]))
    except UnicodeDecodeError as error:
        raise InputError(
            f"stdin is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}; convert it first, with iconv for example"
        ) from None


def need_project(context: click.Context) -> None:
    """Raises ``InputError`` outside of a project, unless help is all that was asked for."""
    if not context.meta["help"]:
        check_project(context.obj)
