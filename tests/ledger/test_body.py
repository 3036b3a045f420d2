"""Records whose hashes fit, written by somebody who can write the database, that say what no record of their kind can say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recompress.errors import InputError
from recompress.integrity.digest import canonical_json
from recompress.ledger import GENESIS, KINDS, Head, LedgerBroken, verify
from recompress.ledger.body import NEEDED
from recompress.ledger.entry import make_entry
from tests.ledger.chains import BACK, LOOK, PLAN, body_of, chain, forge

CHAIN = chain(len(KINDS))
PLACE = {entry.kind: entry.sequence for entry in CHAIN}


def refused(number: int, **change: Any) -> str:
    """What is said of a chain that fits, but whose record ``number`` is malformed."""
    forged = forge(CHAIN, number, **change)
    with pytest.raises(LedgerBroken) as error:
        verify(forged)
    assert error.value.sequence == number
    assert str(error.value).startswith(f"ledger record {number}: its ")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_every_kind_says_verifies() -> None:
    assert {entry.kind for entry in CHAIN} == KINDS.keys()
    assert verify(forge(CHAIN, 3)) == verify(CHAIN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["[1]", "null", '"x"', "3", "", "{", "no JSON", '{"a":NaN}', '{"a":"\\ud800"}', "[" * 50_000])
def test_a_body_that_is_no_object_is_refused_by_its_number(kind: str, text: str) -> None:
    number = PLACE[kind]
    refusal = refused(number, body_text=text)
    assert "is not JSON" in refusal or "not an object" in refusal
    with pytest.raises(LedgerBroken, match=f"ledger record {number}: its body"):
        _ = forge(CHAIN, number, body_text=text)[number - 1].body


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in NEEDED.items() for key in keys])
def test_a_key_that_is_missing_renamed_or_of_another_type_is_refused(kind: str, key: str) -> None:
    body = body_of(kind)
    less = {name: value for name, value in body.items() if name != key}
    for changed in (less, less | {f"{key}s": body[key]}):
        assert refused(PLACE[kind], body_text=canonical_json(changed).decode()).endswith(f"its body lacks {key!r}, which every {kind} record says")
    for value in (7, True, [body[key]], {} if type(body[key]) is str else "x" if key in ("content", "expected") else 1.5):
        assert f"says {key!r} as" in refused(PLACE[kind], body_text=canonical_json(body | {key: value}).decode())
    with pytest.raises(InputError, match=f"the body of a {kind} record lacks '{key}'"):
        make_entry(Head(0, GENESIS), time="2026-11-20T12:00:00Z", actor="ada", kind=kind, body=less)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("promotion-proposed", {"content": {}}, "holds no plan: model: Field required"),
        ("promotion-proposed", {"content": PLAN.as_json() | {"model_sha256": "x"}}, "holds no plan: model_sha256"),
        ("promotion-proposed", {"content": PLAN.as_json() | {"digests": {}}}, "holds no plan: content: Value error, a promotion names"),
        ("promotion-proposed", {"content": BACK.as_json()}, "holds the plan of a rollback of 'ner', which is not what the record says"),
        ("rollback", {"model": "other"}, "holds the plan of a rollback of 'ner', which is not what the record says"),
        ("approval", {"expires": "tomorrow"}, "expires at a time that says 'tomorrow', which is no time"),
        ("approval", {"expires": "2026-11-21T12:00:00"}, "which is no time of RFC 3339"),
        ("approval", {"key": None}, "says 'key' as null"),
        ("finalists-named", {"content": {}}, "holds no list of finalists"),
        ("finalists-named", {"content": {"finalists": ["int8"]}}, "holds no list of finalists with their names and digests"),
        ("finalists-named", {"content": {"finalists": [{"name": "int8", "sha256": 7}]}}, "holds no list of finalists"),
        ("test-look", {"content": {}}, "holds no look: key: Field required"),
        ("test-look", {"content": LOOK.as_json() | {"level": "much"}}, "holds no look: level"),
        ("test-look", {"key": "1" * 64}, "holds another look than the one that the record names"),
        ("test-look-result", {"outcome": "maybe"}, "says the outcome 'maybe'; a look is proven or refused"),
        ("promotion-judged", {"score": "0.75"}, "says 'score' as text"),
        ("promotion-judged", {"spent_loss_after": True}, "says 'spent_loss_after' as true or false"),
    ],
)
def test_what_is_inside_counts_too(kind: str, change: dict[str, Any], message: str) -> None:
    assert message in refused(PLACE[kind], body_text=canonical_json(body_of(kind) | change).decode())


def test_a_signature_without_its_key_is_refused() -> None:
    body = {name: value for name, value in body_of("approval").items() if name != "key"}
    assert "is signed, but names no key" in refused(PLACE["approval"], body_text=canonical_json(body).decode())


def test_what_a_later_version_adds_still_verifies() -> None:
    content = PLAN.as_json() | {"colour": "blue"}
    verify(forge(CHAIN, PLACE["promotion-proposed"], body_text=json.dumps(body_of("promotion-proposed") | {"content": content, "more": 1})))
    verify(forge(CHAIN, 4, kind="moon-phase", body_text='{"plan":7}'))


@pytest.mark.parametrize("time", ["", "now", "2026-13-01T00:00:00Z", "2026-11-20", "2026-11-20T12:00:00"])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    assert "which is no time of RFC 3339" in refused(5, time=time)
