"""No password of a URL is ever printed, whoever wrote it into a message; and what one process raised is raised by the other as what it is."""

from __future__ import annotations

import pytest

from recompress import errors
from recompress.errors import InputError, RecompressError, as_raised, kind_of, without_passwords
from recompress.ledger.database import LedgerAway, NoLedger
from recompress.ledger.entry import LedgerBroken
from tasks.tracking.memory import ForgedStep


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


@pytest.mark.parametrize(
    "kind", [*RecompressError.__subclasses__(), RecompressError, LedgerAway, LedgerBroken, NoLedger, ForgedStep], ids=lambda kind: kind.__name__
)
def test_what_another_process_told_of_has_the_exit_code_that_it_has_there(kind: type[RecompressError]) -> None:
    error = kind.__new__(kind)
    RecompressError.__init__(error, "the value, the limit, the way out")
    again = as_raised(kind_of(error), str(error))
    assert again is not None
    assert (again.exit_code, str(again), isinstance(error, type(again))) == (error.exit_code, str(error), True)


@pytest.mark.parametrize("kind", ["KeyError", "re", "without_passwords", "PASSWORD", ""])
def test_what_is_none_of_ours_is_not_taken_for_it(kind: str) -> None:
    assert as_raised(kind, "x") is None
    assert hasattr(errors, kind) or kind in ("KeyError", "")
