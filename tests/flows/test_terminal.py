"""What commands read from stdin."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from flows.terminal import read_lines
from recompress.errors import InputError


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (b"\xef\xbb\xbfkula\xe2\x80\xa8cheza\nkazi\x0ckula\nna\xc2\x85ya\n", ("kula\u2028cheza", "kazi\x0ckula", "na\x85ya")),
        (b"leo\r\n\r\nkesho", ("leo", "", "kesho")),
        (b"leo\x1cna\x0bkesho\xe2\x80\xa9\n\n", ("leo\x1cna\x0bkesho\u2029", "")),
        (b"", ()),
    ],
)
def test_a_line_ends_with_a_line_feed_and_with_nothing_else(given: bytes, lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(given)))
    assert read_lines() == lines


def test_no_stdin_and_no_text_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="stdin is closed; give the texts"):
        read_lines()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"ab\xff")))
    with pytest.raises(InputError, match="byte 2 is 0xff"):
        read_lines()
