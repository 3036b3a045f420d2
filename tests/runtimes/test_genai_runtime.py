"""ONNX Runtime GenAI as a runtime: it answers as torch does, reads on and goes back, and what it cannot do is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.benchmarks import get_benchmark
from recompress.errors import InputError, IntegrityError
from recompress.measure.size import parameters
from recompress.methods.full_precision import in_full_precision
from recompress.methods.quantization.gguf_file import apart
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, read_info, save
from recompress.predict import Predictor
from recompress.runtimes import open_runtime, runtime_of
from recompress.runtimes.generation import can_continue, continued, following
from tests.six import DECODERS, LANGUAGE, checkpoint_of, features_of, inputs_of, texts

pytest.importorskip("onnxruntime_genai")
pytestmark = pytest.mark.usefixtures("one_thread")


def served(family: str, place: Path, **dials: Any) -> Path:
    """A tiny model, and the same as a folder."""
    save(checkpoint_of(family), place / "source")
    run_step("onnx_genai", get_method("onnx_genai").config(**dials), place / "source", place / "served", inputs_of(family, place / "work"))
    return place / "served"


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in floats, beside what it was made from; nobody changes it."""
    return served("llama", tmp_path_factory.mktemp("floats"), weights="fp32")


def tokens_of(count: int, seed: int = 0) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, 280, count).tolist()
    return tokens


@pytest.mark.parametrize("family", DECODERS)
def test_it_answers_as_torch_does_in_the_order_that_it_is_asked(family: str, tmp_path: Path) -> None:
    runtime = open_runtime(served(family, tmp_path, weights="fp32"))
    assert runtime.name == "genai"
    checkpoint = load(tmp_path / "source")
    features = features_of(checkpoint, family, count=9)
    expected, answered = runtime_of(checkpoint).logits(features), runtime.logits(features, 4)
    assert [rows.shape for rows in answered] == [rows.shape for rows in expected]
    for was, now in zip(expected, answered, strict=True):
        assert apart([was], [now]) < 1e-5
    again = runtime.logits([*reversed(features)])
    assert all(np.array_equal(was, now) for was, now in zip(answered, reversed(again), strict=True)), "something of the text before was left in the cache"


def test_reading_on_is_reading_the_whole(floats: Path) -> None:
    """In one piece, in pieces of any length, and behind what was forgotten: the logits behind each token are the same."""
    runtime: Any = open_runtime(floats)
    whole = tokens_of(40)
    [expected] = runtime.logits([{"input_ids": whole}])
    np.testing.assert_allclose(runtime.prefill(whole[:7], 60), expected[6], atol=1e-5)
    for place in range(7, 12):
        np.testing.assert_allclose(runtime.decode(whole[place]), expected[place], atol=1e-5)
    np.testing.assert_allclose(runtime.read_on(whole[12:40]), expected[12:], atol=1e-5)
    other = tokens_of(9, seed=1)
    [apart_from_12] = runtime.logits([{"input_ids": whole[:12] + other}])
    runtime.prefill(whole, 60)
    runtime.rewind(12)
    np.testing.assert_allclose(runtime.read_on(other), apart_from_12[12:], atol=1e-5)
    runtime.rewind(21)
    runtime.rewind(0)
    np.testing.assert_allclose(runtime.read_on(whole), expected, atol=1e-5)
    with pytest.raises(InputError, match="40 tokens were read, and behind the first 41 nothing can be forgotten"):
        runtime.rewind(41)
    with pytest.raises(InputError, match="61 tokens are more than the 60 that there is room for"):
        runtime.read_on(tokens_of(21))


@pytest.mark.parametrize("weights", ["fp32", "int4"])
def test_the_librarys_own_loop_writes_what_ours_does(weights: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of("llama", tie_word_embeddings=False)
    checkpoint.torch_network.get_output_embeddings().weight.data.mul_(8)
    save(checkpoint, tmp_path / "source")
    run_step("onnx_genai", get_method("onnx_genai").config(weights=weights), tmp_path / "source", tmp_path / "served", inputs_of("llama", tmp_path / "work"))
    runtime: Any = open_runtime(tmp_path / "served")
    assert runtime.stops == {0}
    for seed in range(8):
        ours = continued(runtime, tokens_of(9, seed), 20, runtime.stops)
        assert list(ours.tokens) == runtime.written_by_the_library(tokens_of(9, seed), 20)
        if weights == "fp32":
            torch_writes = list(following(can_continue(runtime_of(checkpoint)), tokens_of(9, seed), len(ours.tokens)))
            assert list(ours.tokens) == torch_writes


def test_a_text_is_scored_token_by_token_in_the_same_windows(floats: Path) -> None:
    benchmark, rows = get_benchmark(LANGUAGE), texts(30, seed=8)
    source = load(floats.with_name("source"))
    read: Any = benchmark
    expected = np.array(read.read(runtime_of(source), source.tokenizer, rows, 16, "torch"), dtype=np.int64)
    answered = np.array(read.read(open_runtime(floats), load(floats).tokenizer, rows, 16, "genai"), dtype=np.int64)
    assert (expected[:, 1:] == answered[:, 1:]).all()
    assert expected[:, 1].sum() > 200
    np.testing.assert_allclose(answered[:, 0], expected[:, 0], rtol=1e-4)


def test_it_needs_neither_torch_nor_onnx_and_leaves_nothing_at_home(floats: Path, tmp_path: Path) -> None:
    """What the library and ONNX Runtime would note down about this machine, and what they were asked, stands nowhere."""
    code = (
        "import sys; from pathlib import Path; from recompress.predict import Predictor; sys.modules['onnx'] = None; model = Predictor(Path(sys.argv[1])); "
        "print(model(['nyumba ya asha']), model.continue_text(['nyumba'], 4)); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    plain = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    done = subprocess.run([sys.executable, "-c", code, str(floats)], capture_output=True, text=True, check=False, env=plain | home)
    assert done.returncode == 0, done.stderr
    assert "perplexity" in done.stdout
    assert not done.stderr, "the library talks on the terminal"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_numbers_in_a_folder_are_counted(tmp_path: Path) -> None:
    assert parameters(served("llama", tmp_path, symmetric=False)) == parameters(tmp_path / "source")


def test_it_writes_in_the_predictor(floats: Path) -> None:
    one, other = Predictor(floats), Predictor(floats.with_name("source"))
    assert one.writes
    assert not one.in_parallel
    assert one.continue_text(["nyumba", "kula leo"], 9) == other.continue_text(["nyumba", "kula leo"], 9)
    with pytest.raises(InputError, match="the prompt has .* tokens, and the model reads 64"):
        one.continue_text(["kula " * 99], 5)


def test_several_who_ask_at_once_get_what_each_would_get_alone(floats: Path) -> None:
    predictor = Predictor(floats)
    prompts = ["nyumba ya", "kula leo jana", "asha", "kazi na kwa"] * 4
    alone = [predictor.continue_text([prompt], 12) for prompt in prompts]
    foreseen = [predictor([prompt]) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        both = [pool.submit(predictor, [prompt]) if i % 2 else pool.submit(predictor.continue_text, [prompt], 12) for i, prompt in enumerate(prompts)]
        assert [one.result() for one in both] == [foreseen[i] if i % 2 else alone[i] for i in range(len(prompts))]


def test_the_baseline_in_full_precision_answers_in_the_same_runtime(floats: Path, tmp_path: Path) -> None:
    others = in_full_precision(floats.with_name("source"), ["torch", "genai"], texts(20), tmp_path)
    assert others.keys() == {"genai"}
    assert read_info(others["genai"]).onnx["weights"] == "fp32"
    assert open_runtime(others["genai"]).name == "genai"


def test_a_longer_text_than_there_are_positions_is_refused(floats: Path) -> None:
    runtime = open_runtime(floats)
    with pytest.raises(InputError, match="65 tokens are more than the 64 that the model reads"):
        runtime.logits([{"input_ids": [1] * 65}])
    assert runtime.logits([{"input_ids": [1] * 64}])[0].shape[0] == 64
    assert runtime.logits([{"input_ids": []}])[0].shape == (0, 290)


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, floats: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(InputError, match=r"package onnxruntime-genai, which is not installed: pip install 'recompress\[genai\]'"):
        open_runtime(floats)
    with pytest.raises(InputError, match="which is not installed"):
        served("llama", tmp_path)


def test_files_that_are_cut_off_or_missing_are_refused(tmp_path: Path) -> None:
    place = served("llama", tmp_path)
    graph, config = place / "model.onnx", place / "genai_config.json"
    whole, said = graph.read_bytes(), config.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match=r"model.onnx is not opened by ONNX Runtime GenAI: it is cut off or broken"):
        open_runtime(place)
    with pytest.raises(IntegrityError, match="model.onnx is cut off or broken"):
        load(place)
    graph.write_bytes(whole)
    config.write_bytes(said[: len(said) // 2])
    for opened in (open_runtime, load):
        with pytest.raises(IntegrityError, match=r"genai_config.json is cut off, broken, or says what is not said here"):
            opened(place)
    config.unlink()
    for opened in (open_runtime, load):
        with pytest.raises(InputError, match=r"has no genai_config.json"):
            opened(place)
    config.write_bytes(said)
    graph.unlink()
    with pytest.raises(InputError, match=r"has no model.onnx"):
        open_runtime(place)
