"""Ledgers that earlier versions wrote must read and verify for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recompress.errors import IntegrityError
from recompress.integrity.signing import read_public_key
from recompress.ledger import Ledger, read_lines, verify
from recompress.ledger.anchor import check_head
from recompress.promotion import progress_of

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("ledger-*"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


def test_there_is_one() -> None:
    assert GOLDEN


def test_it_verifies_up_to_its_signed_head(golden: Path) -> None:
    signed = json.loads((golden / "signed-head.json").read_text())
    head = check_head(signed, read_public_key(golden / "public.pem"))
    assert verify(read_lines(golden / "ledger.jsonl"), head=head) == head
    with pytest.raises(IntegrityError):
        check_head(signed | {"sequence": signed["sequence"] - 1}, read_public_key(golden / "public.pem"))


def test_its_plans_stand_where_they_stood(golden: Path, where: Path | str) -> None:
    ledger = Ledger(where)
    ledger.import_entries(read_lines(golden / "ledger.jsonl"))
    states = json.loads((golden / "states.json").read_text())
    assert {digest: progress_of(ledger, digest).state for digest in states} == states
    assert ledger.verify().sequence == len((golden / "ledger.jsonl").read_bytes().splitlines())
