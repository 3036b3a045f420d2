"""Perplexity and bits per byte against torch's own cross-entropy, token by token; decoders through saving and loading."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from recompress.benchmarks import Example, get_benchmark
from recompress.benchmarks.language_modelling import LanguageModelling, surprise
from recompress.errors import DataRefused, InputError, IntegrityError
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.pretrained import from_base
from recompress.runtimes import open_runtime, runtime_of
from tests.six import DECODERS, LANGUAGE, LENGTH, byte_tokenizer, checkpoint_of, config_of, features_of, inputs_of, texts
from tests.tiny import tiny_tokenizer

LM = LanguageModelling()


def read(checkpoint: Checkpoint, examples: list[Example], length: int = LENGTH) -> np.ndarray:
    answers = LM.read(runtime_of(checkpoint), checkpoint.tokenizer, examples, length, "reading")
    return LM.counts([example.labels for example in examples], answers, ())


@pytest.mark.parametrize("family", DECODERS)
def test_costs_are_those_of_torch_window_by_window(family: str) -> None:
    checkpoint, examples = checkpoint_of(family), texts(30)
    network: Any = checkpoint.torch_network
    cost = tokens = 0.0
    for name in ("yor", "swa"):
        text = "".join(f"{example.words[0]}\n" for example in examples if example.slice == name)
        ids = checkpoint.tokenizer(text, verbose=False)["input_ids"]
        for start in range(0, len(ids), LENGTH):
            window = torch.tensor([ids[start : start + LENGTH]])
            if window.shape[1] > 1:
                with torch.no_grad():
                    cost += float(torch.nn.functional.cross_entropy(network(window).logits[0, :-1].double(), window[0, 1:], reduction="sum"))
                tokens += window.shape[1] - 1
    counts = read(checkpoint, examples)
    assert counts.sum(0)[1] == tokens
    assert counts.sum(0)[0] * 1e-6 == pytest.approx(cost, rel=1e-5)
    metrics = LM.metrics(counts.sum(0), ())
    assert metrics["perplexity"] == pytest.approx(math.exp(cost / tokens), rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(cost / math.log(2) / counts.sum(0)[2], rel=1e-5)
    assert metrics["negative_bits_per_byte"] == -metrics["bits_per_byte"]


def test_each_row_pays_for_its_own_bytes() -> None:
    """With a window over everything only the first token's bytes are not scored, and every row has its own and its line end's."""
    checkpoint, examples = checkpoint_of("llama", max_position_embeddings=4096), [replace(example, slice="one") for example in texts(20)]
    counts = read(checkpoint, examples, 4096)
    sizes = np.array([len(example.words[0].encode()) + 1 for example in examples])
    first = checkpoint.tokenizer(examples[0].words[0], return_offsets_mapping=True)["offset_mapping"][0][1]
    sizes[0] -= len(examples[0].words[0][:first].encode())
    assert counts[:, 2].tolist() == sizes.tolist()


@settings(max_examples=30, deadline=None)
@given(lines=st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30), min_size=1, max_size=5), length=st.integers(3, 40))
def test_any_text_is_counted_whole(lines: list[str], length: int) -> None:
    """Bytes of scored tokens and of the first token of each window are together all bytes of the text."""
    tokenizer = _tokenizer
    examples = [Example((line,)) for line in lines]

    class Even:
        name, threads = "torch", 1

        def logits(self, features: Any, batch_size: int = 32) -> list[np.ndarray]:
            return [np.zeros((len(feature["input_ids"]), len(tokenizer)), dtype=np.float32) for feature in features]

    answers = LM.read(Even(), tokenizer, examples, length, "reading")  # type: ignore[arg-type]
    cost, tokens, size = LM.counts([()] * len(lines), answers, ()).sum(0)
    text = "".join(f"{line}\n" for line in lines)
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ends = np.maximum.accumulate([end for _, end in encoded["offset_mapping"]])
    count = len(encoded["input_ids"])
    firsts = sum(len(text[ends[i - 1] if i else 0 : ends[i]].encode()) for i in range(0, count, length))
    assert tokens == count - -(-count // length)
    assert size + firsts == len(text.encode())
    assert cost * 1e-6 == pytest.approx(tokens * math.log(len(tokenizer)), rel=1e-6)


_tokenizer = byte_tokenizer()


def test_rows_alone_agree_with_reading_one_row() -> None:
    checkpoint = checkpoint_of("gpt2")
    features = features_of(checkpoint, "gpt2")
    for feature, logits in zip(features, runtime_of(checkpoint).logits(features), strict=True):
        rows = LM.unit_logits(logits, feature)
        following = torch.tensor(feature["input_ids"][1:])
        expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits[:-1]).double(), following, reduction="none")
        np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-5, atol=1e-6)
        assert LM.decide(rows, ())[1:] == (str(len(following)), str(sum(feature["bytes"])))
        assert feature["labels"] == [*feature["input_ids"][1:], -100]


def test_counts_add_up_to_the_same_metrics_in_any_order_and_batch() -> None:
    examples = texts(30)
    counts = read(checkpoint_of("llama"), examples)
    totals = np.stack([counts.sum(0), counts[::-1].sum(0)])
    metrics = LM.metrics(totals, ())
    assert metrics["perplexity"].shape == (2,)
    assert metrics["perplexity"][0] == metrics["perplexity"][1]
    assert np.isnan(LM.metrics(np.zeros(3), ())["bits_per_byte"])
    assert LM.metrics(np.array([10**15, 1, 1]), ())["perplexity"] == np.inf


def test_what_is_refused() -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(DataRefused, match="shorter than a window of 999 tokens"):
        LM.windows(tokenizer, texts(3), 999)
    with pytest.raises(DataRefused, match="three whole numbers"):
        LM.counts([()], [("1", "x", "3")], ())
    with pytest.raises(DataRefused):
        LM.counts([()], [("-1", "2", "3")], ())
    with pytest.raises(IntegrityError, match="not finite"):
        surprise(np.array([[0.0, np.nan]]), np.array([0]))
    with pytest.raises(InputError, match="language-modelling"):
        get_benchmark("language-modeling")


def test_windows_are_full_and_follow_on_each_other() -> None:
    tokenizer, examples = byte_tokenizer(), [replace(example, slice="one") for example in texts(30)]
    windows = LM.windows(tokenizer, examples, LENGTH)
    assert {len(feature["input_ids"]) for feature in windows} == {LENGTH}
    assert all(feature["labels"] == [*feature["input_ids"][1:], -100] for feature in windows)
    text = "".join(f"{example.words[0]}\n" for example in examples)
    assert text.startswith(tokenizer.decode([token for feature in windows for token in feature["input_ids"]]))


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_is_saved_and_read_back_with_its_head_tied(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family)
    save(checkpoint, tmp_path / "model")
    loaded = load(tmp_path / "model")
    network: Any = loaded.torch_network
    assert network.lm_head.weight is network.get_input_embeddings().weight
    assert np.array_equal(read(loaded, texts(12)), read(checkpoint, texts(12)))
    features = features_of(checkpoint, family)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        expected = plain(torch.tensor([features[0]["input_ids"]])).logits[0].numpy()
    np.testing.assert_allclose(open_runtime(tmp_path / "model").logits(features[:1])[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", DECODERS)
def test_a_base_decoder_keeps_its_head(family: str, tied: bool, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family, tie_word_embeddings=tied)
    checkpoint.torch_network.save_pretrained(tmp_path / "base")
    checkpoint.tokenizer.pad_token = None
    checkpoint.tokenizer.save_pretrained(tmp_path / "base")
    base = from_base(tmp_path / "base", LANGUAGE, (), LENGTH, seed=0)
    assert base.tokenizer.pad_token == "<end>"
    assert np.array_equal(read(base, texts(12)), read(checkpoint, texts(12)))
    save(base, tmp_path / "model")
    again = from_base(tmp_path / "model", LANGUAGE, (), LENGTH, seed=0)
    assert np.array_equal(read(again, texts(12)), read(checkpoint, texts(12)))


def test_bases_that_cannot_model_language(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    AutoModelForMaskedLM.from_config(config_of("bert", len(tokenizer))).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="needs a decoder"):
        from_base(tmp_path / "bert", LANGUAGE, (), LENGTH, seed=0)
    with pytest.raises(InputError, match="has no labels, got O"):
        from_base(tmp_path / "bert", LANGUAGE, ("O",), LENGTH, seed=0)


def test_a_real_decoder_reads_its_own_stories(mirror: Path) -> None:
    checkpoint = from_base(mirror / "stories260k", LANGUAGE, (), 256, seed=0)
    lines = (mirror / "stories260k" / "stories.txt").read_text().splitlines()[400:]
    counts = read(checkpoint, [Example((line,)) for line in lines], 256)
    assert LM.metrics(counts.sum(0), ())["perplexity"] == pytest.approx(4.24545, abs=1e-4)


def test_quality_is_measured_on_the_rows_of_the_data(tmp_path: Path) -> None:
    from recompress.measure.quality import evaluate_quality

    checkpoint, examples = checkpoint_of("llama"), texts(30)
    save(checkpoint, tmp_path / "model")
    quality = evaluate_quality(tmp_path / "model", examples, tmp_path / "predictions.parquet")
    expected = LM.metrics(read(checkpoint, examples).sum(0), ())
    assert quality.metrics["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-4)
    assert quality.slices.keys() == {"swa", "yor"}


def test_calibration_takes_windows(tmp_path: Path) -> None:
    from recompress.methods.calibration import calibration_features

    checkpoint, inputs = checkpoint_of("llama"), inputs_of("llama", tmp_path)
    windows = calibration_features(checkpoint, inputs, 5)
    assert [len(feature["input_ids"]) for feature in windows] == [LENGTH] * 5
    assert windows == calibration_features(checkpoint, inputs, 5)
    with pytest.raises(DataRefused, match="shorter than a window"):
        calibration_features(checkpoint, replace(inputs, train=[Example(("na",))]), 5)
