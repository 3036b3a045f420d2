"""The Python lines of a card, word for word, asked about texts that are longer than the model reads: they answer as ``recompress predict`` does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.benchmarks import benchmark_of
from recompress.export import export
from recompress.models.checkpoint import load, read_info, save
from recompress.models.tokenizer import plain_tokenizer
from recompress.predict import Predictor
from recompress.runtimes import open_runtime
from tests.six import checkpoint_of
from tests.tiny import tiny_examples

LATER = pytest.param("openvino", marks=pytest.mark.long)
LONG = " ".join(["kula na ya nyumba leo, mpira wa kazi"] * 30)


def folders(place: Path, family: str, to: str, side: str = "right") -> tuple[Path, Path]:
    """A model that reads 16 tokens, and its export."""
    if to == "openvino":
        pytest.importorskip("openvino")
    made = checkpoint_of(family)
    tokenizer = plain_tokenizer(made.tokenizer, 16)
    tokenizer.truncation_side = side
    save(replace(made, tokenizer=tokenizer, info=replace(made.info, max_length=16)), place / "model")
    export(place / "model", place / "out", to)
    return place / "model", place / "out"


def run_lines(folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str]) -> dict[str, Any]:
    [lines] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert change(lines) != lines
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    exec(change(lines), known)
    return known


def softmax(logits: Any) -> Any:
    raised = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("to", "side"), [("onnx", "right"), *(pytest.param(to, "left", marks=pytest.mark.long) for to in ("openvino", "onnx"))])
def test_a_long_text_is_cut_where_it_was_cut(to: str, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, folder = folders(tmp_path, "distilbert", to, side)
    text = f"mpira   wa leo {LONG}\tkula nyumba "
    [wanted] = Predictor(directory)([text])
    known = run_lines(folder, monkeypatch, lambda lines: lines.replace('"…"', repr(text)))
    labels = json.loads((folder / "config.json").read_text())["id2label"]
    assert wanted["truncated"]
    assert labels[str(int(np.argmax(known["logits"][0])))] == wanted["label"]
    assert float(softmax(known["logits"][0]).max()) == pytest.approx(wanted["score"], abs=1e-4)


@pytest.mark.parametrize("to", ["onnx", LATER])
def test_both_texts_of_a_pair_are_asked(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, folder = folders(tmp_path, "bert-pairs", to)
    for pair in (("mpira wa leo", LONG), (LONG, "kula nyumba"), ("kula", "na")):
        [wanted] = Predictor(directory)([pair])
        known = run_lines(folder, monkeypatch, lambda lines, pair=pair: lines.replace('("…", "…")', repr(pair)))  # type: ignore[misc]
        assert float(softmax(known["logits"][0]).max()) == pytest.approx(wanted["score"], abs=1e-4)


@pytest.mark.parametrize("to", ["onnx", LATER])
def test_words_have_the_tags_that_they_were_judged_with(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, folder = folders(tmp_path, "bert", to)
    [wanted] = Predictor(directory)([LONG])
    known = run_lines(folder, monkeypatch, lambda lines: lines.replace('["…", "…"]', repr(wanted["words"])))
    labels = read_info(directory).labels
    assert [labels[int(np.argmax(known["logits"][0][place]))] for place in known["first"]] == [tag for tag in wanted["tags"] if tag is not None]


@pytest.mark.parametrize("asked", [pytest.param("kula na nyumba", id="question"), pytest.param(LONG, id="long question", marks=pytest.mark.long)])
def test_a_long_context_is_asked_about_in_the_same_windows(asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, folder = folders(tmp_path, "bert-reader", "onnx")
    example = replace(tiny_examples(1, "question-answering", seed=5)[0], words=(asked, LONG))
    words, kept = f"{asked!r}, {LONG!r}", "    windows.append((text.ids, start_logits[0]))\n"
    known = run_lines(folder, monkeypatch, lambda lines: "windows = []\n" + lines.replace('"question", "context"', words) + kept)
    checkpoint = load(directory)
    features = benchmark_of(checkpoint.info).encode(checkpoint.tokenizer, [example], (), 16)
    assert [ids for ids, _ in known["windows"]] == [feature["input_ids"] for feature in features]
    assert len(features) > 2
    for (_, begin), logits in zip(known["windows"], open_runtime(directory).logits(features, 1), strict=True):
        np.testing.assert_allclose(begin, logits[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_a_decoder_is_asked_about_as_much_as_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = folders(tmp_path, "gpt2", "onnx")
    known = run_lines(folder, monkeypatch, lambda lines: lines.replace('"…"', repr(LONG)))
    assert known["logits"].shape[1] == 16
