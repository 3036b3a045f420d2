"""Blank rows prove nothing and calibrate nothing: they are passed over, and counted."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from recompress.benchmarks import Example
from recompress.errors import DataRefused, InputError
from recompress.methods import runner
from recompress.methods.calibration import calibration_features
from recompress.methods.examples import is_blank, telling, with_text
from recompress.methods.pruning.wanda import Wanda
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import save
from tests.six import checkpoint_of, inputs_of

BLANKS = ("", " ", "\t\n", "\u00a0\u3000", "\u200b\ufeff", "\x00", "\ufe0f")
TEXTS = ("a", "7", "?", "😀", "ŋ", " ẹ̀kọ́ ", "\ue000")


def example(text: str) -> Example:
    return Example((text,), ("food",))


def with_blanks(inputs: Inputs) -> Inputs:
    """The first rows of each split are blank, as many as would fill any draw."""
    blank = [example(text) for text in BLANKS * 20]
    return replace(inputs, train=[*blank, *inputs.train], dev=[*blank, *inputs.dev])


@pytest.mark.parametrize("text", BLANKS)
def test_what_is_blank(text: str) -> None:
    assert is_blank(example(text))
    assert is_blank(Example((text, text), ("O", "O")))
    assert is_blank(Example(()))


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_not(text: str) -> None:
    assert not is_blank(example(text))
    assert not is_blank(Example(("", text), ("O", "O")))


def test_those_that_tell_are_different_and_not_short() -> None:
    rows = [example(text) for text in ("", "bb", "bb", "a", "cccc", "dddd", "e", "ffff", "g", "hhhhh")]
    assert [one.words[0] for one in telling(rows, 3)] == ["cccc", "dddd", "ffff"]
    assert [one.words[0] for one in telling(rows, 6)] == ["bb", "a", "cccc", "dddd", "e", "ffff"]
    assert [one.words[0] for one in telling(rows, 99)] == ["bb", "a", "cccc", "dddd", "e", "ffff", "g", "hhhhh"]
    assert telling(rows[:1], 3) == []


def test_the_probe_of_the_runner_has_text(tmp_path: Path) -> None:
    checkpoint, inputs = checkpoint_of("roberta"), inputs_of("roberta", tmp_path)
    probe = runner._probe(checkpoint, with_blanks(inputs))
    assert len(probe) == len({tuple(feature["input_ids"]) for feature in probe}) == runner.PROBE
    assert min(len(feature["input_ids"]) for feature in probe) > 2, "more than the tokens around an empty text"
    only_blank = replace(inputs, dev=with_blanks(inputs).dev[:40])
    assert runner._probe(checkpoint, only_blank) == runner._probe(checkpoint, replace(inputs, dev=[])), "then the training text has to do"
    with pytest.raises(InputError, match="at least one example that is not blank"):
        runner._probe(checkpoint, replace(only_blank, train=only_blank.dev))


def test_calibration_leaves_blank_rows_out_and_says_how_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint, inputs = checkpoint_of("roberta"), inputs_of("roberta", tmp_path)
    with caplog.at_level(logging.WARNING):
        assert calibration_features(checkpoint, inputs, 5) == calibration_features(checkpoint, with_blanks(inputs), 5)
    assert caplog.messages == [f"calibration: 140 of {140 + len(inputs.train)} training examples are blank and left out"]
    with pytest.raises(DataRefused, match="all 140 examples are blank"):
        calibration_features(checkpoint, replace(inputs, train=with_blanks(inputs).train[:140]), 5)


def test_a_step_on_data_that_begins_with_blank_rows(tmp_path: Path) -> None:
    save(checkpoint_of("roberta"), tmp_path / "source")
    inputs = inputs_of("roberta", tmp_path / "work")
    assert with_text(with_blanks(inputs).train) == inputs.train
    reports = [
        runner.run_step("wanda", Wanda(calibration_examples=8), tmp_path / "source", tmp_path / name, replace(given, workdir=tmp_path / f"work-{name}"))
        for name, given in (("plain", inputs), ("blank", with_blanks(inputs)))
    ]
    assert [report.blank_examples for report in reports] == [0, 140]
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() == (tmp_path / "blank" / "model.safetensors").read_bytes()
