"""What is no list of rows, no model, no measurement: one line with the value and the way out, and nothing is trained or asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import recompress
from recompress.benchmarks import Example
from recompress.errors import InputError
from recompress.library import Model
from recompress.models.checkpoint import save
from tests.six import checkpoint_of
from tests.tiny import tiny_checkpoint, tiny_examples

ROWS = [(example.words[0], example.labels[0]) for example in tiny_examples(20, "text-classification", seed=5)]
BARE = [text for text, _ in ROWS]
FRAME = SimpleNamespace(columns=["text", "label"], to_dict=dict)
LISTS: list[tuple[Any, str]] = [
    ("texts.txt", r"should be a list, got 'texts.txt'; give \[text, …\], and of a file what stands in it"),
    (Path("texts.txt"), r"should be a list, got PosixPath\('texts.txt'\)"),
    (b"texts", "should be a list, got b'texts'"),
    (None, r"should be a list, got None; give \[text, …\], or leave it out"),
    (5, "should be a list, got 5"),
    ({"text": BARE}, "should be a list, got a mapping of text; give a list of such rows"),
    (FRAME, r"gives the names of its columns; give frame\.to_dict\('records'\)"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    place = tmp_path_factory.mktemp("wrong") / "model"
    save(tiny_checkpoint("text-classification"), place)
    return recompress.load(place)


@pytest.mark.parametrize(("rows", "why"), LISTS)
def test_what_is_no_list_of_rows_is_refused_wherever_rows_are_given(rows: Any, why: str, model: Model, tmp_path: Path) -> None:
    asked: dict[str, Callable[[], object]] = {
        "calibration": lambda: recompress.compress(model, None, "wanda", sparsity=0.5, calibration=rows),
        "train": lambda: recompress.compress(model, None, "finetune", epochs=1, train=rows),
        "dev": lambda: recompress.compress(model, None, "finetune", epochs=1, train=ROWS, dev=rows),
        "unlabelled": lambda: recompress.compress(model, None, "wanda", sparsity=0.5, calibration=BARE, unlabelled=rows),
        "the rows to measure on": lambda: recompress.measure(model, rows),
        "texts": lambda: recompress.export(model, tmp_path / "out", texts=rows),
    }
    for what, do in asked.items():
        with pytest.raises(InputError, match=rf"^{what} should be a list, .*") as refused:
            do()
        assert refused.match(why)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows", ["habari", None, 5, b"habari", {"text": "habari"}, [None], [5], [b"habari"]])
def test_what_is_asked_is_a_list_of_texts(rows: Any, model: Model) -> None:
    with pytest.raises(InputError, match=r"what is asked should be a list, got|row 1 (is|has)"):
        model.predict(rows)


@pytest.mark.parametrize("bare", ["habari", {"text": "habari"}, {"text": "habari", "label": None}, Example(("habari",))])
def test_a_row_without_its_label_is_named_where_labels_are_needed(bare: Any, model: Model) -> None:
    rows = [*ROWS[:7], bare, *ROWS[7:]]
    told = r"^row 8 of {} has no label: 'habari'; give \(text, label\), or leave it out$"
    with pytest.raises(InputError, match=told.format("train")):
        recompress.compress(model, None, "finetune", epochs=1, train=rows, dev=ROWS)
    with pytest.raises(InputError, match=told.format("calibration")):
        recompress.compress(model, None, "finetune", epochs=1, calibration=rows)
    with pytest.raises(InputError, match=told.format("dev")):
        recompress.compress(model, None, "finetune", epochs=1, train=ROWS, dev=rows)
    with pytest.raises(InputError, match=told.format("the rows to measure on")):
        recompress.measure(model, rows)


def test_a_tokenizer_that_would_be_ignored_is_refused_and_its_own_is_not(model: Model, tmp_path: Path) -> None:
    given = tiny_checkpoint("text-classification")
    given.torch_network.save_pretrained(tmp_path)
    given.tokenizer.save_pretrained(tmp_path)
    other = checkpoint_of("gpt2").tokenizer
    for place in (model, model.folder, tmp_path):
        with pytest.raises(InputError, match=r"has a tokenizer of its own \(\d+ tokens\), and the one given \(\d+ tokens\) would be ignored; give None"):
            recompress.load(place, other)
        with pytest.raises(InputError, match="would be ignored"):
            recompress.compress(place, other, "wanda", sparsity=0.5, calibration=BARE)
        assert recompress.load(place, given.tokenizer).info.labels == model.info.labels


def test_what_is_no_model_is_refused(model: Model) -> None:
    network, tokenizer = model.network, model.tokenizer
    adapted = SimpleNamespace(save_pretrained=None, config=None, merge_and_unload=None)
    wrong: list[tuple[Any, Any, str]] = [
        (None, None, "a model is a folder, what recompress.load gives, or a network of transformers, got None"),
        ({}, tokenizer, r"a model is a folder, .* got \{\}"),
        (network, "bert-base", r"tokenizer should be one of transformers, got 'bert-base'; give AutoTokenizer\.from_pretrained"),
        (adapted, tokenizer, r"holds an adapter beside its weights; give model\.merge_and_unload\(\)"),
    ]
    for given, with_tokenizer, why in wrong:
        with pytest.raises(InputError, match=why):
            recompress.load(given, with_tokenizer)
    with pytest.raises(InputError, match="was made for text-classification, not for token-classification"):
        recompress.load(model, benchmark="token-classification")


def test_what_is_no_method_no_format_no_place_and_no_measurement_is_refused(model: Model, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("kept")
    nothing: Any = None
    measured = recompress.measure(model, ROWS)
    policy = {"metric": "accuracy"}
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: recompress.compress(model, None, nothing), "method should be the name of one, got None"),
        (lambda: recompress.compress(model, None, "wanda", sparsity=0.5, calibration=BARE, seed=-1), "seed should be a whole number from 0 to .* got -1"),
        (lambda: recompress.export(model, tmp_path / "out", to=nothing), "to should be the name of a format, got None; give one of onnx"),
        (lambda: recompress.export(model, nothing), "folder should be a path, got None"),
        (lambda: recompress.export(model, tmp_path / "afile" / "out"), "afile is no folder"),
        (lambda: model.save(tmp_path / "afile" / "out"), "afile is no folder"),
        (lambda: model.save(nothing), "folder should be a path, got None"),
        (lambda: recompress.judge(policy, model, measured), r"candidate should be what recompress\.measure\(model, rows\) gives, got a Model"),  # type: ignore[arg-type]
        (lambda: recompress.judge(policy, measured, nothing), "baseline should be what .* got a NoneType"),
        (lambda: recompress.judge(nothing, measured, measured), "policy should be a file or a mapping of its dials, got None"),
        (lambda: recompress.judge([policy], measured, measured), r"policy should be a file or a mapping of its dials, got \[\{"),  # type: ignore[arg-type]
    ]
    for do, why in wrong:
        with pytest.raises(InputError, match=why):
            do()
    assert (tmp_path / "afile").read_text() == "kept"
