"""The folder that was judged is the folder that is handed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recompress.errors import InputError
from recompress.export import check_export, export
from recompress.integrity.digest import sha256_file
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import save
from tests.six import checkpoint_of, inputs_of, texts

library = pytest.importorskip("onnxruntime_genai")


def test_the_folder_is_handed_over_as_it_is_and_nothing_else_becomes_one(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("llama")
    save(checkpoint, tmp_path / "source")
    run_step("onnx_genai", get_method("onnx_genai").config(), tmp_path / "source", tmp_path / "made", inputs_of("llama", tmp_path / "work"))
    done = export(tmp_path / "made", tmp_path / "out", "genai", examples=texts(4))
    assert done.agreement.texts >= 4
    assert done.agreement.largest_change == 0
    for name in ("model.onnx", "genai_config.json", "tokenizer.json"):
        assert sha256_file(tmp_path / "out" / name) == sha256_file(tmp_path / "made" / name)
    check_export(tmp_path / "out", None)
    assert "generator.generate_next_token()" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    model = library.Model(str(tmp_path / "out"))
    text = "nyumba ya asha"
    assert library.Tokenizer(model).encode(text).tolist() == checkpoint.tokenizer(text)["input_ids"]
    settings = library.GeneratorParams(model)
    settings.set_search_options(max_length=30)
    generator = library.Generator(model, settings)
    generator.append_tokens(np.array(checkpoint.tokenizer(text)["input_ids"], dtype=np.int32))
    generator.generate_next_token()
    with pytest.raises(InputError, match="source is on the torch runtime, and a graph with a cache is made anew; end the variant with onnx_genai"):
        export(tmp_path / "source", tmp_path / "other", "genai")
    for to in ("onnx", "transformers", "openvino"):
        with pytest.raises(InputError, match="export it --to genai"):
            export(tmp_path / "made", tmp_path / "other", to)
    assert not (tmp_path / "other").exists()
