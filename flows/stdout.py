"""Nothing but a command's result stands on stdout: what libraries and child processes print there goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO

from recompress.errors import StorageError

_results: list[IO[str]] = []
"""Where results go while a command runs."""


@contextmanager
def only_results() -> Iterator[None]:
    """While the block runs, stdout is what ``write_result`` writes and nothing else. Descriptor 1 itself leads to stderr, so a child's words go there too."""
    number = _number_of(sys.stdout)
    if number is None:
        _results.append(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            _results.pop()
        return
    sys.stdout.flush()
    copy = os.dup(number)
    out = os.fdopen(copy, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(sys.stderr.fileno(), number)
    _results.append(out)
    try:
        yield
    finally:
        _results.pop()
        with suppress(OSError):
            sys.stdout.flush()
        os.dup2(copy, number)
        with suppress(OSError):  # what could not be written was said
            out.close()


def _number_of(stream: IO[str] | None) -> int | None:
    """The descriptor of a stream that has one, where stderr has one to lead to as well."""
    try:
        return None if stream is None or sys.stderr is None or sys.stderr.fileno() < 0 else stream.fileno()
    except (OSError, ValueError):  # a test's
        return None


def write_result(text: str) -> None:
    """A line on the stdout of this command. Raises ``StorageError`` where it cannot be written; a reader that has gone away (``| head``) is told nothing."""
    out = _results[-1] if _results else sys.stdout
    if out is None:
        raise StorageError("stdout is closed, so there is no place for the result; send it to a file (> result.json)")
    try:
        out.write(f"{text}\n")
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if not _results:
            with suppress(OSError):
                out.close()  # or Python tries to write it once more at the end, with a traceback
        raise StorageError(f"stdout cannot be written: {error.strerror}; the result was not delivered, make space and ask again") from None
