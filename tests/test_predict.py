"""A model directory is asked about plain text."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recompress.benchmarks import Example, get_benchmark
from recompress.data.clean import clean
from recompress.models.checkpoint import save
from recompress.predict import Predictor, as_prepared, softmax, summary
from recompress.runtimes import open_runtime
from tests.six import DECODERS, LANGUAGE, LENGTH, checkpoint_of
from tests.tiny import TAGS, TOPICS, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = "leo kula jana nyumba kwa cheza " * 5


@pytest.mark.parametrize("family", DECODERS)
def test_a_model_of_language_says_how_well_it_foresees_each_text(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family)
    save(checkpoint, tmp_path / "model")
    short, long, alone, nothing = Predictor(tmp_path / "model")(["leo kula", LONG, "a", ""])
    assert long["tokens"] > LENGTH, "a text of several windows is read to its end"
    assert Predictor(tmp_path / "model")([LONG]) == [long], "what stands beside a text changes nothing"
    for answer, text in ((short, "leo kula"), (long, LONG), (alone, "a")):
        benchmark = get_benchmark(LANGUAGE)
        [row] = benchmark.read(open_runtime(tmp_path / "model"), checkpoint.tokenizer, [Example(benchmark.split(text))], LENGTH, "")  # type: ignore[attr-defined]
        cost, tokens, size = map(int, row)
        assert (answer["tokens"], answer["bytes"]) == (tokens, size)
        assert answer["perplexity"] == pytest.approx(math.exp(cost / 1e6 / tokens), rel=1e-4)
        assert answer["bits_per_byte"] == pytest.approx(cost / 1e6 / math.log(2) / size, rel=1e-4)
        assert summary(answer) == f"{answer['bits_per_byte']:.2f} bits per byte, perplexity {answer['perplexity']:.4g}"
    assert nothing == {"tokens": 0, "bytes": 0, "bits_per_byte": None, "perplexity": None}
    assert summary(nothing) == "too short to be foreseen"
    assert Predictor(tmp_path / "model")([]) == []
    assert np.isfinite([short["perplexity"], alone["bits_per_byte"]]).all()


def test_scores_are_shares_of_each_unit() -> None:
    shares = softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]]))
    np.testing.assert_allclose(shares, [[0.25, 0.75], [0.5, 0.5]])


def test_a_text_gets_its_likeliest_label_and_that_labels_share(tmp_path: Path) -> None:
    save(tiny_checkpoint("text-classification"), tmp_path / "model")
    texts = ["leo kula na asha", "cheza"]
    benchmark, tokenizer = get_benchmark("text-classification"), tiny_checkpoint("text-classification").tokenizer
    logits = open_runtime(tmp_path / "model").logits(benchmark.encode(tokenizer, [Example((text,)) for text in texts], TOPICS, 32))
    for answer, row in zip(Predictor(tmp_path / "model")(texts), logits, strict=True):
        shares = np.exp(row) / np.exp(row).sum()
        assert answer == {"label": TOPICS[int(row.argmax())], "score": pytest.approx(float(shares.max()), abs=1e-5)}


def test_an_entity_holds_all_of_its_words_and_is_as_certain_as_the_least_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tiny_checkpoint(), tmp_path / "model")
    predictor = Predictor(tmp_path / "model")
    rows = {"O": [5.0, 0, 0, 0, 0], "B-PER": [0, 0, 0, 2.0, 0], "I-PER": [0, 0, 0, 0, 1.0]}
    words = np.array([rows[tag] for tag in ("O", "B-PER", "I-PER", "O")])
    monkeypatch.setattr(predictor.benchmark, "unit_logits", lambda *_: words, raising=False)
    [answer] = predictor(["leo asha otieno ."])
    assert answer["tags"] == ["O", "B-PER", "I-PER", "O"]
    least = float(np.exp(1) / (np.exp(1) + 4))
    assert answer["entities"] == [{"type": "PER", "text": "asha otieno", "start": 1, "end": 3, "score": pytest.approx(least, abs=1e-5)}]
    assert summary(answer) == "PER asha otieno"
    assert set(answer["tags"]) <= set(TAGS)


@pytest.mark.parametrize("raw", [unicodedata.normalize("NFD", "Ẹ̀kọ́ nípa ọ̀rọ̀ ajé"), "kula\u200b  leo\n na  kazi", "mouth\x9d na", "cafe\u0301\u00ad leo"])
@pytest.mark.parametrize("benchmark", ["text-classification", "token-classification"])
def test_a_text_is_answered_as_preparation_would_have_left_it(raw: str, benchmark: str, tmp_path: Path) -> None:
    """The test split was prepared, so that no measure of quality sees a difference."""
    save(tiny_checkpoint(benchmark), tmp_path / "model")
    tagged = benchmark == "token-classification"
    words = tuple(raw.split()) if tagged else (raw,)
    [row] = clean([Example(words, ("O",) * len(words) if tagged else ("food",))], None, Counter(), tagged=tagged)
    assert as_prepared(raw) == " ".join(row.words)
    ask = Predictor(tmp_path / "model")
    assert ask([raw]) == ask([" ".join(row.words)])


def test_half_a_character_is_a_lost_one(tmp_path: Path) -> None:
    for benchmark in ("text-classification", "token-classification"):
        save(tiny_checkpoint(benchmark), tmp_path / benchmark)
        ask = Predictor(tmp_path / benchmark)
        assert ask(["kula \ud83d leo"]) == ask(["kula \ufffd leo"])
    assert as_prepared(json.loads('"\\ud83d\\ude00 leo"')) == "😀 leo", "two halves that JSON has put together"


def test_an_answer_says_what_was_not_read(tmp_path: Path) -> None:
    for benchmark in ("text-classification", "token-classification"):
        save(tiny_checkpoint(benchmark), tmp_path / benchmark)
    long, fits = " ".join(["na"] * 60), " ".join(["na"] * 30)  # the model reads 32 tokens, two of them around the text
    [cut, whole] = Predictor(tmp_path / "token-classification")([long, fits])
    assert (cut["truncated"], cut["tags"].count(None), cut["tags"][30:], len(cut["words"])) == (True, 30, [None] * 30, 60)
    assert "truncated" not in whole
    assert None not in whole["tags"]
    [cut, whole] = Predictor(tmp_path / "text-classification")([long, fits])
    assert cut["truncated"] is True
    assert "truncated" in summary(cut)
    assert set(whole) == {"label", "score"}
