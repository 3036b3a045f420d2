"""One padding token: a decoder that classifies gives a text one answer, alone and among others, whatever its base said of padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import InputError, IntegrityError
from recompress.methods.distillation.live import live_teacher
from recompress.methods.distillation.teacher import unit_logits
from recompress.methods.pruning import by_loss
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.padding import padding_of
from recompress.models.pretrained import from_base
from recompress.runtimes import runtime_of
from recompress.runtimes.batches import pad_batch
from recompress.training.batches import collate
from tests.six import DECODERS, LANGUAGE, LENGTH, byte_tokenizer, checkpoint_of, config_of
from tests.tiny import TOPICS

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ("kula leo", "kazi ya nyumba leo jana", "", "na", "jana <end>", "leo <pad>", "<end><end>")
BENCHMARK = get_benchmark("text-classification")


def base_of(kind: str, family: str, folder: Path) -> Path:
    """A decoder as somebody else published it."""
    tokenizer = byte_tokenizer(None if kind == "a tokenizer without one" else "<pad>")
    tokenizer.padding_side = "left" if kind == "padding on the left" else "right"
    config = config_of(family, 291, pad_token_id={"a config without one": None, "another in the config": 5, "one that is none": -1}.get(kind, 290))
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config_of(family, 291, pad_token_id=290))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | {"pad_token_id": config.pad_token_id}))
    return folder


KINDS = ("a config without one", "another in the config", "one that is none", "a tokenizer without one", "padding on the left")


def features_of(checkpoint: Checkpoint) -> list[Any]:
    return BENCHMARK.encode(checkpoint.tokenizer, [Example((text,), ("food",)) for text in TEXTS], TOPICS, LENGTH)


def alone(checkpoint: Checkpoint) -> np.ndarray:
    return np.stack(runtime_of(checkpoint).logits(features_of(checkpoint), 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", DECODERS)
def test_a_text_is_answered_the_same_alone_and_in_every_batch(kind: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.training.precision.choose_precision", lambda asked: "fp32")
    checkpoint = from_base(base_of(kind, family, tmp_path / "base"), BENCHMARK.name, TOPICS, LENGTH, 0)
    network: Any = checkpoint.torch_network
    assert checkpoint.tokenizer.pad_token_id == network.config.pad_token_id == padding_of(network)
    expected, rows = alone(checkpoint), features_of(checkpoint)
    save(checkpoint, tmp_path / "saved")
    with torch.no_grad():
        trained = network(**{name: rows for name, rows in collate(rows, checkpoint.tokenizer.pad_token_id).items() if name != "labels"}).logits.numpy()
    answers = {
        "in training": trained,
        "served": np.stack(runtime_of(load(tmp_path / "saved")).logits(rows)),
        "asked as a teacher": np.concatenate(unit_logits(checkpoint, BENCHMARK, [Example((text,)) for text in TEXTS])),
    }
    with torch.no_grad():
        weighed = torch.cat([logits[:, 0] for logits, _ in by_loss._answers(network, rows)]).numpy()  # in the order of their lengths
    answers["weighed by the loss"] = weighed[np.argsort(np.argsort([len(row["input_ids"]) for row in rows], kind="stable"))]
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved"), AutoTokenizer.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        batch = tokenizer([text for text in TEXTS if text], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt", return_token_type_ids=False)
        answers["by plain transformers"] = np.insert(plain(**batch).logits.numpy(), TEXTS.index(""), expected[TEXTS.index("")], axis=0)
    for who, answered in answers.items():
        np.testing.assert_allclose(answered, expected, rtol=0, atol=1e-5, err_msg=who)


@pytest.mark.parametrize("family", DECODERS)
def test_a_teacher_pads_with_its_own_token(family: str, tmp_path: Path) -> None:
    """The student's batches are filled up with another token, which the teacher's classifier would read as text."""
    teacher, student = (from_base(base_of("", family, tmp_path / name), BENCHMARK.name, TOPICS, LENGTH, 0) for name in ("teacher", "student"))
    student.tokenizer.pad_token = "<end>"
    student.torch_network.config.pad_token_id = 0
    batch = {name: torch.from_numpy(rows) for name, rows in pad_batch(features_of(student)[:2], padding_of(student.torch_network)).items()}
    live = live_teacher(teacher, student)
    np.testing.assert_allclose(live.ask(batch).numpy(), alone(teacher)[:2], rtol=0, atol=1e-5)


def test_a_model_whose_two_padding_tokens_differ_is_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("llama-classifier")
    save(checkpoint, tmp_path / "right")
    load(tmp_path / "right")
    checkpoint.torch_network.config.pad_token_id = 7
    save(checkpoint, tmp_path / "wrong")
    with pytest.raises(IntegrityError, match="pads with token 7 by its config and with 290 by its tokenizer"):
        load(tmp_path / "wrong")
    checkpoint.torch_network.config.pad_token_id = checkpoint.tokenizer.pad_token = None
    save(checkpoint, tmp_path / "none")
    with pytest.raises(IntegrityError, match="pads with token None by its config and with None by its tokenizer"):
        load(tmp_path / "none")


def test_a_tokenizer_that_knows_no_end_either_is_refused(tmp_path: Path) -> None:
    folder = base_of("a tokenizer without one", "gpt2", tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({name: value for name, value in settings.items() if "os_token" not in name}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match="has no padding token"):
        from_base(folder, BENCHMARK.name, TOPICS, LENGTH, 0)


def test_a_model_of_language_keeps_what_its_config_says(tmp_path: Path) -> None:
    """No answer depends on it there, and an end token that counts as padding would stop learning."""
    folder = base_of("a config without one", "llama", tmp_path)
    network: Any = from_base(folder, LANGUAGE, (), LENGTH, 0).torch_network
    assert network.config.pad_token_id is None
    assert padding_of(network) == 0
