"""Begun with ``recompress init`` and run without a change, on real data: a model of language from lines of text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.toy_project import run

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def begin_and_run(folder: Path, data: Path, base: str, name: str) -> dict[str, object]:
    folder.mkdir()
    begun = run(folder, "init", "--data", str(data), "--base", base)
    assert begun["name"] == name
    outcome = run(folder, "run")
    assert f"is champion of {name} (version 1)" in outcome["summary"]
    assert run(folder, "audit", "verify")["troubles"] == []
    assert run(folder, "run")["done"] == [], "the second run repeats nothing"
    return outcome


def test_lines_of_text_and_a_decoder(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_bytes((mirror / "stories260k" / "stories.txt").read_bytes())
    folder = tmp_path / "project"
    outcome = begin_and_run(folder, tmp_path / "stories.txt", str(mirror / "stories260k"), "stories")
    assert "bits per byte 0." in str(outcome["summary"]), "a cost is no share: it is not shown in percent"
    assert "negative bits per byte -9" not in str(outcome["summary"])
    [answer] = run(folder, "predict", "stories@champion", "Once upon a time, there was a little girl")["predictions"]
    assert 0 < answer["bits_per_byte"] < 2, "it knows these stories"
