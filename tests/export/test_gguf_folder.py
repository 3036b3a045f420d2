"""The file that was judged is the file that is handed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.errors import InputError
from recompress.export import check_export, export
from recompress.integrity.digest import sha256_file
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import save
from tests.six import checkpoint_of, inputs_of, texts

pytest.importorskip("xllamacpp")


def test_the_file_is_handed_over_as_it_is_and_nothing_else_becomes_one(tmp_path: Path) -> None:
    save(checkpoint_of("llama"), tmp_path / "source")
    run_step("gguf", get_method("gguf").config(), tmp_path / "source", tmp_path / "made", inputs_of("llama", tmp_path / "work"))
    done = export(tmp_path / "made", tmp_path / "out", "gguf", examples=texts(4))
    assert done.agreement.texts >= 4
    assert done.agreement.largest_change == 0
    assert sha256_file(tmp_path / "out" / "model.gguf") == sha256_file(tmp_path / "made" / "model.gguf")
    check_export(tmp_path / "out", None)
    assert "llama-server -m model.gguf" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="source is on the torch runtime, and a GGUF file is rounded anew; end the variant with gguf"):
        export(tmp_path / "source", tmp_path / "other", "gguf")
    for to in ("onnx", "transformers"):
        with pytest.raises(InputError, match="export it --to gguf"):
            export(tmp_path / "made", tmp_path / "other", to)
    assert not (tmp_path / "other").exists()
