"""llama.cpp as a runtime: it answers as torch does, whatever the order and the chunks, and what it cannot do is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.benchmarks import get_benchmark
from recompress.errors import InputError, IntegrityError
from recompress.measure.size import parameters
from recompress.methods.quantization.gguf_file import apart
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from recompress.runtimes import llama_cpp, open_runtime, runtime_of
from recompress.runtimes.llama_cpp import LlamaModel
from tests.six import DECODERS, LANGUAGE, checkpoint_of, features_of, inputs_of, texts

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


def served(family: str, place: Path, **dials: Any) -> Path:
    """A tiny model, and the same as a file."""
    save(checkpoint_of(family), place / "source")
    run_step("gguf", get_method("gguf").config(**dials), place / "source", place / "served", inputs_of(family, place / "work"))
    return place / "served"


@pytest.mark.parametrize("family", DECODERS)
def test_it_answers_as_torch_does_in_the_order_that_it_is_asked(family: str, tmp_path: Path) -> None:
    runtime = open_runtime(served(family, tmp_path, weights="f32"))
    assert runtime.name == "gguf"
    checkpoint = load(tmp_path / "source")
    features = features_of(checkpoint, family, count=9)
    expected, answered = runtime_of(checkpoint).logits(features), runtime.logits(features, 4)
    assert [rows.shape for rows in answered] == [rows.shape for rows in expected]
    for was, now in zip(expected, answered, strict=True):
        assert apart([was], [now]) < 0.01
    again = runtime.logits([*reversed(features)])
    assert all(np.array_equal(was, now) for was, now in zip(answered, reversed(again), strict=True)), "something of the text before was left in the cache"


def test_texts_that_are_read_in_chunks_are_answered_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = served("llama", tmp_path, weights="f32")
    tokens = [{"input_ids": np.random.default_rng(0).integers(0, 280, 60).tolist()}]
    whole = open_runtime(place).logits(tokens)
    monkeypatch.setattr(llama_cpp, "CHUNK", 7)
    assert apart(whole, open_runtime(place).logits(tokens)) < 1e-3
    assert apart(whole, runtime_of(load(tmp_path / "source")).logits(tokens)) < 0.01


def test_a_text_is_scored_token_by_token_in_the_same_windows(tmp_path: Path) -> None:
    """Tokens and bytes are the same; what they cost is what torch says, as nearly as numbers of 16 bits allow."""
    benchmark, rows = get_benchmark(LANGUAGE), texts(30, seed=8)
    place = served("gpt2", tmp_path, weights="f16")
    source = load(tmp_path / "source")
    read: Any = benchmark
    expected = np.array(read.read(runtime_of(source), source.tokenizer, rows, 16, "torch"), dtype=np.int64)
    answered = np.array(read.read(open_runtime(place), load(place).tokenizer, rows, 16, "gguf"), dtype=np.int64)
    assert (expected[:, 1:] == answered[:, 1:]).all()
    assert expected[:, 1].sum() > 200
    np.testing.assert_allclose(answered[:, 0], expected[:, 0], rtol=5e-3)


def test_it_needs_neither_torch_nor_the_library_that_writes(tmp_path: Path) -> None:
    place = served("llama", tmp_path)
    code = (
        "import sys; from pathlib import Path; from recompress.predict import Predictor; sys.modules['gguf'] = None; "
        "print(Predictor(Path(sys.argv[1]))(['nyumba ya asha'])); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "perplexity" in done.stdout
    assert not done.stderr, "llama.cpp talks on the terminal"


def test_numbers_in_a_file_are_counted(tmp_path: Path) -> None:
    place = served("llama", tmp_path, weights="q4_0")
    assert parameters(place) == parameters(tmp_path / "source")


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = served("llama", tmp_path)
    llama_cpp.library.cache_clear()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    try:
        with pytest.raises(InputError, match=r"package xllamacpp is not installed: pip install 'recompress\[gguf\]'"):
            open_runtime(place)
    finally:
        llama_cpp.library.cache_clear()


def test_a_library_without_a_function_or_with_other_settings_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = LlamaModel(served("llama", tmp_path) / "model.gguf", 1)

    class Moved:
        """Settings in which a new number stands before the others."""

        def __getattr__(self, name: str) -> Any:
            function = getattr(llama_cpp.library(), name)
            return (lambda context: 7) if name == "llama_n_seq_max" else function

    monkeypatch.setattr(model, "_library", Moved())
    with pytest.raises(InputError, match=r"understands \(256, 16, 16, 7\) where \(16, 16, 16, 1\) was meant"):
        model.begin(16)
    monkeypatch.setitem(llama_cpp.FUNCTIONS, "llama_of_tomorrow", (None, []))
    llama_cpp.library.cache_clear()
    with pytest.raises(InputError, match="xllamacpp has no function llama_of_tomorrow"):
        llama_cpp.library()
    llama_cpp.library.cache_clear()


def test_a_longer_text_than_there_are_positions_is_refused(tmp_path: Path) -> None:
    runtime = open_runtime(served("llama", tmp_path))
    with pytest.raises(InputError, match="65 tokens are more than the 64 that the model reads"):
        runtime.logits([{"input_ids": [1] * 65}])
    assert runtime.logits([{"input_ids": [1] * 64}])[0].shape[0] == 64
    assert runtime.logits([{"input_ids": []}])[0].shape[0] == 0


def test_a_file_that_is_cut_off_or_lacks_something_is_refused(tmp_path: Path) -> None:
    place = served("llama", tmp_path)
    data = (place / "model.gguf").read_bytes()
    (place / "model.gguf").write_bytes(data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(IntegrityError, match=r"model.gguf is not opened by llama.cpp"):
        open_runtime(place)
    (place / "model.gguf").write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match=r"model.gguf is cut off or broken: it is .* bytes long"):
        load(place)
    (place / "model.gguf").unlink()
    with pytest.raises(InputError, match="has no model.gguf"):
        open_runtime(place)
