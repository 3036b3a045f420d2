"""No password of a URL is ever printed, whoever wrote it into a message."""

from __future__ import annotations

import pytest

from recompress.errors import InputError, RecompressError, without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://alice:S3cret@127.0.0.1:1/api", "http://alice:***@127.0.0.1:1/api"),
        ("postgresql+psycopg://alice:S3@cret@host/db", "postgresql+psycopg://alice:***@host/db"),
        ("redis://:S3cret@host", "redis://:***@host"),
        ("two: https://S3cret@host/x and http://u:S3cret@h", "two: https://***@host/x and http://u:***@h"),
        ("postgresql://host/db?user=u&password=S3cret&x=1", "postgresql://host/db?user=u&password=***&x=1"),
        ("ssh://git@host/x, ner@champion, http://127.0.0.1:5000/a@b", "ssh://git@host/x, ner@champion, http://127.0.0.1:5000/a@b"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert without_passwords(text) == shown == without_passwords(shown)
    assert str(RecompressError(text)) == str(InputError(text)) == shown
