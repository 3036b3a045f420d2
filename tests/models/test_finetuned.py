"""A model that is fine-tuned already is taken as it is, and what differs from the data is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import InputError, IntegrityError
from recompress.methods.runner import run_step
from recompress.methods.slimming.onnx_fp32 import OnnxFp32
from recompress.models.checkpoint import load, save
from recompress.models.finetuned import from_finetuned
from tests.six import checkpoint_of, inputs_of
from tests.tiny import TAGS, TOPICS, tiny_checkpoint

TEXT, TOKENS = "text-classification", "token-classification"
TURNED = ("work", "food", "sport")


def write_given(place: Path) -> Path:
    """A classifier as transformers writes it, its labels in another order than the alphabet's, that reads 24 tokens and cuts on the left."""
    checkpoint = tiny_checkpoint(TEXT)
    checkpoint.torch_network.config.id2label, checkpoint.torch_network.config.label2id = dict(enumerate(TURNED)), {name: i for i, name in enumerate(TURNED)}
    checkpoint.torch_network.save_pretrained(place)
    checkpoint.tokenizer.save_pretrained(place)
    edit(place, "tokenizer_config.json", model_max_length=24, truncation_side="left")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_given(tmp_path / "given")


def edit(folder: Path, file: str, **changes: Any) -> None:
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**settings, **changes}))


def test_it_answers_as_it_did_with_its_labels_in_their_order(folder: Path, tmp_path: Path) -> None:
    given = from_finetuned(folder, TEXT, TOPICS)
    assert (given.info.labels, given.info.max_length, given.tokenizer.truncation_side) == (TURNED, 24, "left")
    save(given, tmp_path / "kept")
    kept, text = load(tmp_path / "kept"), "kula na ya nyumba leo"
    before = tiny_checkpoint(TEXT)
    assert (kept.info, kept.tokenizer.truncation_side) == (given.info, "left")
    with torch.no_grad():
        asked = before.torch_network(**before.tokenizer(text, return_tensors="pt")).logits
        told = kept.torch_network(**kept.tokenizer(text, return_tensors="pt")).logits
    assert torch.allclose(asked, told, atol=1e-6)


def test_a_tokenizer_that_does_not_say_takes_what_the_positions_take(folder: Path) -> None:
    edit(folder, "tokenizer_config.json", model_max_length=10**30)
    assert from_finetuned(folder, TEXT, TOPICS).info.max_length == 64


def test_a_model_of_this_project_is_taken_too(tmp_path: Path) -> None:
    save(tiny_checkpoint(TOKENS), tmp_path / "ours")
    assert from_finetuned(tmp_path / "ours", TOKENS, sorted(TAGS)).info.labels == TAGS
    with pytest.raises(InputError, match=f"was made for {TOKENS}, the data is for {TEXT}"):
        from_finetuned(tmp_path / "ours", TEXT, TOPICS)


def test_a_graph_that_is_served_is_no_baseline(tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "ours")
    run_step("onnx_fp32", OnnxFp32(), tmp_path / "ours", tmp_path / "graph", inputs_of("bert", tmp_path / "work"))
    with pytest.raises(InputError, match="is an ONNX graph, whose weights nothing compresses any more; a baseline is the model that it was made from"):
        from_finetuned(tmp_path / "graph", TOKENS, TAGS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((*TOPICS, "music"), "the data has 'music', which it does not know"),
        (TOPICS[:2], "it knows 'work', which the data never shows"),
        (("Food", "sport", "work"), "the data has 'Food', which it does not know and it knows 'food', which the data never shows; .*id2label"),
    ],
)
def test_labels_that_differ_from_the_data_are_named(folder: Path, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_finetuned(folder, TEXT, labels)


def test_what_was_not_trained_for_this_is_no_baseline(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has another shape|lacks classifier|holds, without a place for it"):
        from_finetuned(folder, TOKENS, TURNED)
    tiny_checkpoint(TEXT).torch_network.base_model.save_pretrained(tmp_path / "base")
    tiny_checkpoint(TEXT).tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=r"lacks classifier\.bias and 1 more tensors; a model that is fine-tuned for text-classification .* base:"):
        from_finetuned(tmp_path / "base", TEXT, ("LABEL_0", "LABEL_1"))
    edit(folder, "config.json", problem_type="regression")
    with pytest.raises(InputError, match=r"was trained for regression \(problem_type in its config\.json\)"):
        from_finetuned(folder, TEXT, TOPICS)


def test_what_lies_beside_it_or_is_broken_is_named(folder: Path) -> None:
    edit(folder, "config.json", id2label={"0": "food", "1": "food", "2": "work"})
    with pytest.raises(InputError, match="gives two outputs one name"):
        from_finetuned(folder, TEXT, TOPICS)
    (folder / "config.json").write_text("{")
    with pytest.raises(IntegrityError, match="is not valid JSON"):
        from_finetuned(folder, TEXT, TOPICS)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="lies an adapter"):
        from_finetuned(folder, TEXT, TOPICS)
