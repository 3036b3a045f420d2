"""A model that is fine-tuned already is taken as it is, and what differs from the data is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import recompress
from recompress.errors import InputError, IntegrityError
from recompress.methods.runner import run_step
from recompress.methods.slimming.onnx_fp32 import OnnxFp32
from recompress.models.base import find_base
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
    with pytest.raises(
        InputError, match=r"was trained for text-classification or pair-classification \(BertForSequenceClassification in .*, the data is for token-cl"
    ):
        from_finetuned(folder, TOKENS, TURNED)
    tiny_checkpoint(TEXT).torch_network.base_model.save_pretrained(tmp_path / "base")
    tiny_checkpoint(TEXT).tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=r"lacks classifier\.bias and 1 more tensors; a model that is fine-tuned for text-classification .* base:"):
        from_finetuned(tmp_path / "base", TEXT, ("LABEL_0", "LABEL_1"))
    edit(folder, "config.json", problem_type="regression")
    with pytest.raises(InputError, match=r"was trained for regression \(problem_type in its config\.json\)"):
        from_finetuned(folder, TEXT, TOPICS)


def add_tensors(folder: Path, **shapes: tuple[int, ...]) -> None:
    """Tensors that no method wrote, ``__`` for each dot of their names."""
    file = folder / "model.safetensors"
    save_file(load_file(file) | {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "bert-reader"])
def test_a_pooler_that_its_head_does_not_ask_for_is_left_aside_with_a_line(family: str, tmp_path: Path) -> None:
    """So are most models saved that people have fine-tuned; transformers says that it does not use it, and answers."""
    made = checkpoint_of(family)
    network, info = made.torch_network, made.info
    network.config.id2label, network.config.label2id = dict(enumerate(info.labels)), {label: i for i, label in enumerate(info.labels)}
    network.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    prefix, file = network.base_model_prefix, tmp_path / "model.safetensors"
    dense = {f"{prefix}.pooler.dense.weight": torch.ones(32, 32), f"{prefix}.pooler.dense.bias": torch.ones(32)}
    save_file(load_file(file) | dense | {f"{prefix}.embeddings.position_ids": torch.arange(64)[None]}, file, metadata={"format": "pt"})
    said: list[str] = []
    given = from_finetuned(tmp_path, info.benchmark, info.labels, say=said.append)
    name = type(network).__name__
    assert said == [f"model {tmp_path}: {prefix}.pooler.dense.bias and 1 more tensors left aside; {name} does not ask for it, so no answer depends on it"]
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        assert all(torch.allclose(was, now, atol=1e-6) for was, now in zip(network(ids).values(), given.torch_network(ids).values(), strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert__encoder__layer__7__attention__self__query__weight", "its answers would be others without it: bring the config.json that it was saved with"),
        ("bert__pooler__other__weight", r"save it anew: AutoModelForTokenClassification\.from_pretrained\(FOLDER\)\.save_pretrained\(NEW\)"),
        ("crf__transitions", r"if a BertForTokenClassification answers without it, save it anew"),
    ],
)
def test_what_could_change_its_answers_is_refused_with_a_way_out(name: str, message: str, tmp_path: Path) -> None:
    given = tiny_checkpoint(TOKENS)
    given.torch_network.save_pretrained(tmp_path)
    given.tokenizer.save_pretrained(tmp_path)
    add_tensors(tmp_path, **{name: (32, 32)})
    with pytest.raises(InputError, match=f"holds, without a place for it, {name.replace('__', '.')}; .*{message}"):
        from_finetuned(tmp_path, TOKENS, TAGS)


def test_a_pooler_of_a_model_whose_class_nobody_names_may_be_asked_for(tmp_path: Path) -> None:
    given = tiny_checkpoint(TOKENS)
    given.torch_network.save_pretrained(tmp_path)
    given.tokenizer.save_pretrained(tmp_path)
    add_tensors(tmp_path, bert__pooler__dense__weight=(32, 32))
    edit(tmp_path, "config.json", architectures=None)
    with pytest.raises(
        InputError, match="bert.pooler.dense.weight; where it is a BertForTokenClassification that does not ask for it, say so under architectures"
    ):
        from_finetuned(tmp_path, TOKENS, TAGS)


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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("adapter_model.safetensors", "adapter_config.json"), r"is an adapter without the model that it belongs to; merge them once: peft\."),
        (("adapter_model.bin",), "is an adapter without the model that it belongs to"),
        (
            ("model-00001-of-00006.safetensors", "model.safetensors.index.json"),
            r"lie in several files \(model-00001-of-00006.safetensors\).*join them once: transf",
        ),
        (("model.safetensors.index.json",), r"lie in several files \(model.safetensors.index.json\)"),
    ],
)
def test_weights_that_are_not_one_file_are_refused_with_the_way_to_one(names: tuple[str, ...], message: str, folder: Path) -> None:
    """As a baseline, as a base, and by the library; an adapter's folder has no config.json of its own."""
    (folder / "model.safetensors").rename(folder / names[0])
    for name in names[1:]:
        (folder / name).write_text("{}")
    if names[0].startswith("adapter"):
        (folder / "config.json").unlink()
    for take in (lambda: from_finetuned(folder, TEXT, TOPICS), lambda: find_base(str(folder), root=folder), lambda: recompress.load(folder)):
        with pytest.raises(InputError, match=message):
            take()


def test_its_longest_sequence_may_be_made_shorter_and_not_longer(folder: Path, tmp_path: Path) -> None:
    """A decoder reads thousands of tokens, and is judged in windows."""
    shorter = from_finetuned(folder, TEXT, TOPICS, longest=9)
    assert (shorter.info.max_length, shorter.tokenizer.model_max_length, shorter.tokenizer.truncation_side) == (9, 9, "left")
    save(shorter, tmp_path / "kept")
    assert load(tmp_path / "kept").info.max_length == 9
    with pytest.raises(InputError, match="max_length 25 is more than the 24 tokens that model"):
        from_finetuned(folder, TEXT, TOPICS, longest=25)
