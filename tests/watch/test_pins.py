"""The one-line change of a pin: nothing else of the recipe's text moves."""

from __future__ import annotations

import pytest

from recompress.errors import InputError
from recompress.settings.file import as_plain
from recompress.watch.pins import changed_lines, move_pins

OLD, NEW, SHA, OTHER = "1a" * 20, "2b" * 20, "a" * 64, "b" * 64
FLOW = (
    f"# base: {{revision: {OLD}}}\nname: toy\nbase: {{model: some/encoder, revision: {OLD}, sha256: {SHA}}}  # the pin\nbaseline: {{epochs: 1}}\nnote: {OLD}\n"
)
BLOCK = f'name: toy\nbase:\n  model: some/encoder\n  # where it stands\n  revision: "{OLD}"\n  sha256: {SHA}\nbaseline: {{epochs: 1}}\n'
PINS = {"revision": NEW, "sha256": OTHER}


def test_a_pin_on_one_line_is_a_change_of_one_line() -> None:
    moved = move_pins(FLOW, "base", PINS)
    assert changed_lines(FLOW, moved) == [f"- {FLOW.splitlines()[2]}", f"+ {moved.splitlines()[2]}"]
    assert moved == FLOW.replace(f"revision: {OLD}, sha256: {SHA}", f"revision: {NEW}, sha256: {OTHER}")


def test_a_pin_in_a_block_keeps_its_quotes_and_comments() -> None:
    moved = move_pins(BLOCK, "base", PINS)
    assert moved == BLOCK.replace(OLD, NEW).replace(SHA, OTHER)
    assert as_plain(moved)["base"] == {"model": "some/encoder", **PINS}


def test_a_key_that_is_not_there_is_left_out() -> None:
    text = f"base: {{model: some/encoder, revision: {OLD}}}\n"
    assert move_pins(text, "base", PINS) == text.replace(OLD, NEW)


@pytest.mark.parametrize("commit", ["2" * 40, "12e4" + "5" * 36])
def test_a_commit_that_looks_like_a_number_is_quoted(commit: str) -> None:
    moved = move_pins(FLOW, "base", {"revision": commit})
    assert f'revision: "{commit}", sha256' in moved
    assert as_plain(moved)["base"]["revision"] == commit


def test_another_section_with_the_same_pin_stays() -> None:
    text = FLOW.replace("{epochs: 1}", f"{{model: some/encoder, revision: {OLD}}}")
    assert as_plain(move_pins(text, "base", PINS))["baseline"]["revision"] == OLD
    assert as_plain(move_pins(text, "baseline", {"revision": NEW}))["base"]["revision"] == OLD


@pytest.mark.parametrize(
    ("text", "section", "message"),
    [
        ("base: {model: some/encoder}\n", "base", "pins nothing under base"),
        ("name: toy\n", "base", "pins nothing under base"),
        ("base: {model: m, revision: !!str 0x11}\n", "base", "cannot be moved|written out"),
    ],
)
def test_what_cannot_be_moved_is_refused(text: str, section: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        move_pins(text, section, {"revision": NEW})
