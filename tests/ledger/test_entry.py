from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.errors import IntegrityError, StorageError
from recompress.ledger import GENESIS, Entry, Head, LedgerBroken, read_lines, verify, write_lines
from recompress.ledger.entry import make_entry
from tests.ledger.chains import chain, forge

LENGTH = 8
CHAIN = chain(LENGTH)
LINES = [entry.line().encode() + b"\n" for entry in CHAIN]
HEAD = CHAIN[-1].head
places = st.integers(0, LENGTH - 1)


def read_back(lines: list[bytes], folder: Path) -> list[Entry]:
    file = folder / "ledger.jsonl"
    file.write_bytes(b"".join(lines))
    return list(read_lines(file))


def first_bad(entries: list[Entry], **how: object) -> int:
    with pytest.raises(LedgerBroken) as error:
        verify(entries, **how)  # type: ignore[arg-type]
    assert str(error.value).startswith(f"ledger record {error.value.sequence}: ")
    assert "\n" not in str(error.value)
    return error.value.sequence


def test_the_hash_is_what_the_docstring_says() -> None:
    """Computed here by hand, so that anyone can write a checker of their own."""
    before = "0" * 64
    for entry in CHAIN:
        record = entry.as_json()
        own = record.pop("hash")
        assert record["previous"] == before
        before = hashlib.sha256(rfc8785.dumps(record)).hexdigest()
        assert own == before
        assert entry.line().encode() == rfc8785.dumps(entry.as_json())


def test_a_whole_chain_verifies_and_gives_its_head() -> None:
    assert verify(CHAIN) == HEAD == verify(iter(CHAIN), head=HEAD, anchors=[entry.head for entry in CHAIN])
    assert verify([]) == Head(0, GENESIS) == verify([], anchors=[Head(0, GENESIS)])


@settings(deadline=None, max_examples=400)
@given(place=places, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_every_single_byte_change_of_a_line_is_found_at_its_record(tmp_path_factory: pytest.TempPathFactory, place: int, at: int, byte: int) -> None:
    at %= len(LINES[place])
    if LINES[place][at] == byte:
        byte ^= 1
    changed = LINES[place][:at] + bytes([byte]) + LINES[place][at + 1 :]
    with pytest.raises(LedgerBroken) as error:
        verify(read_back([*LINES[:place], changed, *LINES[place + 1 :]], tmp_path_factory.getbasetemp()), head=HEAD)
    assert error.value.sequence == place + 1


@settings(deadline=None, max_examples=150)
@given(place=places, field=st.sampled_from(Entry._fields), value=st.text(max_size=5))
def test_every_changed_field_is_found_at_its_record(place: int, field: str, value: str) -> None:
    old = getattr(CHAIN[place], field)
    new: object = old + 1 if field == "sequence" else f'{{"x":{json.dumps(value)}}}' if field == "body_text" else value + old
    if new == old:
        new = f"{value}!{old}"
    changed = CHAIN[place]._replace(**{field: new})
    assert first_bad([*CHAIN[:place], changed, *CHAIN[place + 1 :]]) == place + 1


@given(place=st.integers(0, LENGTH - 2))
def test_a_deleted_record_is_named(place: int) -> None:
    assert first_bad(CHAIN[:place] + CHAIN[place + 1 :]) == place + 1


@given(place=st.integers(0, LENGTH), other=places)
def test_an_inserted_record_is_named(place: int, other: int) -> None:
    inserted = [*CHAIN[:place], CHAIN[other], *CHAIN[place:]]
    same = inserted[place] == CHAIN[place] if place < LENGTH else False
    assert first_bad(inserted, head=HEAD) == place + 1 + same


@given(order=st.permutations(range(LENGTH)))
def test_any_other_order_is_found_at_the_first_record_out_of_place(order: list[int]) -> None:
    wrong = [i for i, number in enumerate(order) if i != number]
    if wrong:
        assert first_bad([CHAIN[i] for i in order]) == wrong[0] + 1


@given(left=st.integers(0, LENGTH - 1))
def test_a_cut_tail_is_found_by_its_head_or_any_anchor_beyond_the_cut_and_by_nothing_else(left: int) -> None:
    cut = CHAIN[:left]
    assert first_bad(cut, head=HEAD) == left + 1
    assert first_bad(cut, anchors=[CHAIN[left].head]) == left + 1
    verify(cut, anchors=[entry.head for entry in cut])


@given(place=st.integers(0, LENGTH - 2))
def test_a_rewritten_chain_hashes_well_and_is_found_by_its_anchor(place: int) -> None:
    """Somebody with the database recomputes everything from one record on: only what is kept elsewhere shows it."""
    forged = CHAIN[:place] + chain(LENGTH, actor="eve")[place:]
    head = CHAIN[place - 1].head if place else Head(0, GENESIS)
    for i in range(place, LENGTH):
        entry = forged[i]._replace(previous=head.hash)
        forged[i] = entry._replace(hash=entry.compute_hash())
        head = forged[i].head
    assert verify(forged) == head
    assert first_bad(forged, anchors=[HEAD]) == LENGTH
    assert first_bad(forged, anchors=[CHAIN[place].head, HEAD]) == place + 1


@given(place=places, previous=st.sampled_from(["f" * 64, GENESIS[:-1] + "1", ""]))
def test_a_record_that_hashes_well_and_follows_on_another_is_named(place: int, previous: str) -> None:
    stray = CHAIN[place]._replace(previous=previous)
    assert first_bad([*CHAIN[:place], stray._replace(hash=stray.compute_hash())]) == place + 1


@pytest.mark.parametrize("number", [0, 2, 4, 9])
def test_a_record_with_another_number_is_named_though_every_hash_fits(number: int) -> None:
    """Who takes a record out and makes every hash behind it anew leaves a gap in the numbers."""
    assert first_bad(forge(CHAIN, 3, sequence=number)) == 3


def test_two_anchors_that_disagree_do_not_both_hold() -> None:
    assert first_bad(CHAIN, anchors=[CHAIN[2].head, Head(3, "f" * 64)]) == 3


def test_records_beyond_the_head_are_refused() -> None:
    assert first_bad(CHAIN, head=CHAIN[3].head) == 5


@pytest.mark.parametrize(
    "line",
    [
        b'{"actor":"ada"}',
        b"[]",
        b"null",
        b"",
        LINES[0].replace(b'"sequence":1', b'"sequence":1.0'),
        LINES[0].replace(b'"sequence":1', b'"sequence":true'),
        LINES[0].replace(b'"body":{', b'"body":{"a":NaN,'),
        LINES[0].replace(b'"body":{', b'"body":{"a":1e2,'),
        LINES[0].replace(b'"body":{', b'"body":{"a":10000000000000000000000,'),
        LINES[0].replace(b'"body":{', b'"body":{"a":1,"a":1,'),
        LINES[0].replace(b'"body":{', b'"body":{"\\ud800":1,'),
        LINES[0].replace(b",", b", ", 1),
        b"\xef\xbb\xbf" + LINES[0],
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_a_line_that_is_not_a_record_in_its_one_form_is_refused(line: bytes, tmp_path: Path) -> None:
    with pytest.raises(LedgerBroken, match="record 1: its line is not a record in canonical JSON"):
        read_back([line.rstrip(b"\n") + b"\n"], tmp_path)


def test_a_line_without_an_end_or_without_measure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerBroken, match="record 2: its line has no end"):
        read_back([LINES[0], LINES[1][:-1]], tmp_path)
    with pytest.raises(LedgerBroken, match="record 1: its line is longer than"):
        read_back([b"x" * (1 << 21)], tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def breaks() -> object:
        yield CHAIN[0]
        raise ZeroDivisionError

    file = tmp_path / "ledger.jsonl"
    file.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError):
        write_lines(breaks(), file)  # type: ignore[arg-type]
    assert file.read_bytes() == b"before"
    assert write_lines(CHAIN, file) == LENGTH
    assert file.read_bytes() == b"".join(LINES)
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"]
    with pytest.raises(StorageError, match="cannot be written to"):
        write_lines(CHAIN, tmp_path / "nowhere" / "ledger.jsonl")
    with pytest.raises(StorageError, match="cannot be read"):
        list(read_lines(tmp_path / "nowhere"))


@given(text=st.text(max_size=80))
def test_a_head_is_parsed_strictly(text: str) -> None:
    assert Head.parse(str(HEAD)) == HEAD
    with pytest.raises(IntegrityError, match="a ledger head is number:sha256"):
        Head.parse(text)


@pytest.mark.parametrize("digest", ["g" * 64, "A" * 64, " " * 64, "0" * 63 + "é", "0" * 65])
def test_what_is_as_long_as_a_hash_is_none_yet(digest: str) -> None:
    with pytest.raises(IntegrityError, match="a ledger head is number:sha256"):
        Head.parse(f"12:{digest}")


def test_keys_beyond_ascii_stand_in_the_order_of_the_standard(tmp_path: Path) -> None:
    """RFC 8785 sorts by UTF-16: the face, whose first half is 0xD83D, stands before the ligature at 0xFB01. By code point it would stand behind it."""
    entry = make_entry(Head(0, GENESIS), time="2026-11-20T12:00:00Z", actor="ada", kind="verdict", body={"\ufb01": 1, "\U0001f600": 2})
    assert entry.body_text == '{"\U0001f600":2,"\ufb01":1}'
    assert read_back([entry.line().encode() + b"\n"], tmp_path) == [entry]
    other = entry.line().replace(entry.body_text, '{"\ufb01":1,"\U0001f600":2}')
    with pytest.raises(LedgerBroken, match="not a record in canonical JSON"):
        read_back([other.encode() + b"\n"], tmp_path)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(body=st.dictionaries(st.text(max_size=6), values, max_size=4))
def test_every_body_that_json_can_say_survives_its_line(tmp_path_factory: pytest.TempPathFactory, body: dict[str, object]) -> None:
    """The fast encoder of the reader and RFC 8785 must agree, or a sound ledger would be refused."""
    text = rfc8785.dumps(body).decode()
    entry = CHAIN[0]._replace(body_text=text)
    entry = entry._replace(hash=entry.compute_hash())
    [back] = read_back([entry.line().encode() + b"\n"], tmp_path_factory.getbasetemp())
    assert back == entry
    assert verify([back]) == entry.head
