"""An entry more in somebody's ``params.yaml``: it is there, and nothing else of the file is otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from recompress.errors import InputError
from tasks.scaffold.entries import with_entry

ENTRY = ["new:          # looked at", '  format: csv     # why: "so"', "  # malformed: leave_out"]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("a: 1  # one\n", "a: 1  # one\n\ndatasets:\n  {}\n"),
        ("a: 1\ndatasets: {}  # none yet\nb: 2\n", "a: 1\ndatasets:  # none yet\n  {}\nb: 2\n"),
        ("datasets:\n\n# about b\nb: 2\n", "datasets:\n  {}\n\n# about b\nb: 2\n"),
        ("datasets:\n  old: {format: csv}   # mine\n  # more: later\n", "datasets:\n  old: {format: csv}   # mine\n  # more: later\n  {}\n"),
        ("datasets:\n    old:\n        format: csv\n\n# about b\nb: 2", "datasets:\n    old:\n        format: csv\n    {}\n\n# about b\nb: 2\n"),
    ],
)
def test_it_stands_where_it_belongs_and_not_a_character_changes_otherwise(tmp_path: Path, before: str, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(before)
    text = with_entry(path, "new", ENTRY)
    by = "    " if "    old" in before else "  "
    assert text == expected.replace("{}", f"\n{by}".join(ENTRY), 1)
    values = yaml.safe_load(text)
    assert values["datasets"].pop("new") == {"format": "csv"}
    kept = yaml.safe_load(before)
    assert values == kept | {"datasets": kept.get("datasets") or {}}
    assert path.read_text() == before


def test_what_has_no_room_for_a_line_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: 1\ndatasets: {old: {format: csv}}\n")
    with pytest.raises(InputError, match=r"written in braces \(.*params\.yaml:2\)"):
        with_entry(path, "new", ENTRY)
    path.write_text("- a\n")
    with pytest.raises(InputError, match="holds list, not settings"):
        with_entry(path, "new", ENTRY)
    path.write_text("a: [\n")
    with pytest.raises(InputError, match="not valid YAML"):
        with_entry(path, "new", ENTRY)
