"""A new folder in a place that cannot hold it: one line, and nothing is left there."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.errors import InputError, RecompressError, StorageError
from recompress.integrity.atomic_directory import new_directory, refuse_existing


@pytest.mark.parametrize("below", ["out", "deep/out", "deep/deeper/out"])
def test_below_a_file_is_no_place(below: str, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("kept")
    with pytest.raises(InputError, match=r"afile is no folder, so .*out cannot lie below it; choose another place"):
        refuse_existing(tmp_path / "afile" / below)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"link is no folder"), new_directory(tmp_path / "link" / below):
        pass
    assert (tmp_path / "afile").read_text() == "kept"


@pytest.mark.parametrize(("name", "why"), [("x" * 230, "its name is too long"), ("loop/out", "no folder|Too many levels")])
def test_what_the_disk_has_no_name_for_is_one_line(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RecompressError, match=why) as refused, new_directory(tmp_path / name):
        pass
    assert isinstance(refused.value, InputError | StorageError)
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]
