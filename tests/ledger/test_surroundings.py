"""A ledger that may only be read, and databases that cannot hold every name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recompress.errors import StorageError
from recompress.ledger import Ledger
from tests.ledger.stores import new_database

BODY = {"recipe": "r", "policy_sha256": "0" * 64, "policy": {}, "reason": "日本語の理由"}


def test_whoever_may_only_read_can_ask_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a b?#%" / "ledger.db"
    Ledger(place).append("policy-recorded", BODY, actor="josé")
    before, usual = sorted(path.name for path in place.parent.iterdir()), os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: False if Path(path) == place.parent and mode == os.W_OK else usual(path, mode, **more))
    ledger = Ledger(place, create=False)
    assert (ledger.verify().sequence, ledger.entries()[0].actor) == (1, "josé")
    assert sorted(path.name for path in place.parent.iterdir()) == before
    with pytest.raises(StorageError, match="attempt to write a readonly database"):
        ledger.append("policy-recorded", BODY, actor="josé")


def test_what_a_killed_writer_left_in_the_log_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "ledger.db"
    writer = Ledger(place)
    writer.append("policy-recorded", BODY, actor="josé")
    with writer._database.engine.connect():  # the last to close takes the log with it
        writer.append("policy-recorded", BODY, actor="josé")
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in tmp_path.glob("ledger.db*"):
            (copy / path.name).write_bytes(path.read_bytes())
    assert (copy / "ledger.db-wal").stat().st_size > 0
    monkeypatch.setattr(os, "access", lambda path, mode, **_: mode != os.W_OK)
    assert Ledger(copy / "ledger.db", create=False).verify().sequence == 2


@pytest.mark.parametrize(("encoding", "refused"), [("UTF8", False), ("LATIN1", True), ("SQL_ASCII", True)])
def test_a_database_that_cannot_hold_every_name_is_refused_when_it_is_opened(encoding: str, refused: bool) -> None:
    url = new_database(encoding)
    if refused:
        with pytest.raises(StorageError, match=f"is {encoding}, a ledger needs UTF8: createdb -E UTF8"):
            Ledger(url)
    else:
        assert Ledger(url).append("policy-recorded", BODY, actor="josé").sequence == 1
