"""A model directory is asked about plain text."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from recompress.benchmarks import Example, get_benchmark
from recompress.models.checkpoint import save
from recompress.predict import Predictor, summary
from recompress.runtimes import open_runtime
from tests.six import DECODERS, LANGUAGE, LENGTH, checkpoint_of

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
