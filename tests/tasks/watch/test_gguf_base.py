"""A base in a GGUF file is seen by the digest of the file, which is what the recipe pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.integrity.digest import sha256_file
from recompress.recipe import BaseChoice
from recompress.watch.settings import WatchSettings
from tasks.watch.look import Looking
from tests.models.test_gguf import write
from tests.six import checkpoint_of

pytest.importorskip("gguf")


def test_another_file_is_another_base(tmp_path: Path) -> None:
    pinned = sha256_file(write(checkpoint_of("llama"), tmp_path / "tiny.gguf"))
    looking, choice = Looking(tmp_path, WatchSettings(), {}), BaseChoice(model="tiny.gguf", sha256=pinned)
    seen = looking.model("base", choice)
    assert (seen.digest, seen.moved, seen.away) == (pinned, False, "")
    fresh = sha256_file(write(checkpoint_of("llama", seed=7), tmp_path / "tiny.gguf"))
    moved = looking.model("base", choice)
    assert (moved.digest, moved.moved, dict(moved.pins)) == (fresh, True, {"sha256": fresh})
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    assert "is no whole GGUF file" in looking.model("base", choice).away
