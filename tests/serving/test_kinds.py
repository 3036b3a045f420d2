"""Every kind of model answers over HTTP what it answers at hand, whatever a row of it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recompress.models.checkpoint import save
from recompress.predict import Predictor
from recompress.serving.loaded import load_version
from tests.serving.servers import running
from tests.six import LANGUAGE, checkpoint_of
from tests.tiny import tiny_checkpoint

ROWS: dict[str, list[Any]] = {
    "text-classification": ["leo kula", "juma cheza jana"],
    "token-classification": ["asha alikwenda nairobi .", ""],
    "pair-classification": [{"text": "leo", "text_pair": "juma kula"}, {"text": "", "text_pair": "kazi"}],
    "multi-label-classification": ["leo kula kazi", ""],
    "text-regression": ["kula kula cheza"],
    "question-answering": [{"question": "kwa", "context": "leo asha otieno alikwenda mto  kaskazini ."}, {"question": "ya", "context": "leo"}],
    LANGUAGE: ["leo kula", "leo kula jana nyumba kwa cheza " * 5],
}


@pytest.mark.parametrize("benchmark", ROWS)
def test_what_is_served_is_what_the_model_says(benchmark: str, tmp_path: Path) -> None:
    save(checkpoint_of("gpt2") if benchmark == LANGUAGE else tiny_checkpoint(benchmark), tmp_path / "model")
    rows = ROWS[benchmark]
    alone = [json.loads(json.dumps(Predictor(tmp_path / "model")([row])[0])) for row in rows]
    with running(load_version("toy", "1", "0" * 64, tmp_path / "model")) as server:
        for row, expected in zip(rows, alone, strict=True):
            assert server.ask({"inputs": [row]}).json == {"predictions": [expected]}
        if isinstance(rows[0], dict):
            assert server.ask({"dataframe_records": rows[:1]}).json == {"predictions": alone[:1]}
            refused = server.ask({"inputs": ["a text alone"]})
            assert (refused.status, "row 1 is a text and not an object with" in refused.json["message"]) == (400, True)
