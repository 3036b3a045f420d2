"""What is saved is what is loaded, in this process and in another; a disk that is full or a process that dies leaves no half model."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.integrity.digest import sha256_directory
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.files import distinct_tensors
from tests.checkpoints import BENCHMARKS, odd, outputs, same
from tests.families import FAMILIES, checkpoint_of, network_of, saved


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_the_same_model(family: str, benchmark: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family, benchmark)
    save(checkpoint, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert same(outputs(checkpoint), outputs(loaded))
    assert loaded.info == checkpoint.info
    assert loaded.tokenizer.get_vocab() == checkpoint.tokenizer.get_vocab()
    assert {name for name in os.listdir(tmp_path / "model")} == {  # noqa: C416, PTH208
        "config.json",
        "model.safetensors",
        "recompress.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_loads_what_a_config_can_say(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family)
    save(checkpoint, tmp_path / "model")
    network = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "kamuni lo wa, ŋuri 😀 2026"
    assert tokenizer(text)["input_ids"] == checkpoint.tokenizer(text)["input_ids"]
    assert network.config.id2label == dict(enumerate(["LABEL_0", "LABEL_1", "LABEL_2"]))
    assert same(outputs(checkpoint), outputs(Checkpoint(network, tokenizer, checkpoint.info)))


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_shapes_come_back_through_load(family: str, tmp_path: Path) -> None:
    checkpoint = odd(family)
    save(checkpoint, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert same(outputs(checkpoint), outputs(loaded))
    assert loaded.info.heads == (1, 2, 3)
    assert loaded.info.neurons == (10, 17, 24)
    save(loaded, tmp_path / "again")
    assert sha256_directory(tmp_path / "again") == sha256_directory(tmp_path / "model")


def test_a_new_process_gives_the_same_outputs(tmp_path: Path) -> None:
    expected = {}
    for family in FAMILIES:
        checkpoint = odd(family)
        save(checkpoint, tmp_path / family)
        expected[family] = [logits.tobytes().hex() for logits in outputs(checkpoint)]
    code = (
        "import sys, json, torch; from pathlib import Path; from recompress.models.checkpoint import load; from recompress.runtimes import runtime_of\n"
        "from tests.families import FAMILIES, features_of\n"
        "found = {f: load(Path(sys.argv[1]) / f) for f in FAMILIES}\n"
        "print(json.dumps({f: [x.tobytes().hex() for x in runtime_of(c).logits(features_of(c))] for f, c in found.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert json.loads(done.stdout) == expected


def test_saving_twice_gives_the_same_bytes_and_names_no_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(checkpoint_of("roberta"), tmp_path / name)
    assert sha256_directory(tmp_path / "a") == sha256_directory(tmp_path / "b")
    assert not any(str(tmp_path).encode() in file.read_bytes() for file in (tmp_path / "a").iterdir())
    assert {file.stat().st_mode for file in (tmp_path / "a").iterdir()} == {(tmp_path / "a" / "config.json").stat().st_mode}


def test_other_precisions_are_stored_in_32_bits(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    checkpoint.torch_network.bfloat16()
    save(checkpoint, tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}


def test_tied_weights_are_stored_once() -> None:
    network = network_of(AutoConfig.for_model("gpt2", vocab_size=50, n_embd=32, n_layer=2, n_head=2), AutoModelForCausalLM)
    names = distinct_tensors(network).keys()
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    saved("bert", tmp_path / "model")
    before = sha256_directory(tmp_path / "model")
    with pytest.raises(InputError, match="exists already"):
        save(checkpoint_of("bert", seed=1), tmp_path / "model")
    assert sha256_directory(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot be written")])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_full_or_read_only_disk_leaves_nothing(code: int, message: str, hidden: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"I/O error: {os.strerror(code)} (os error {code})") if hidden else OSError(code, os.strerror(code))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=message):
        save(checkpoint_of("bert"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_at_any_moment_of_saving_leaves_no_half_model(tmp_path: Path) -> None:
    """The child kills itself before its n-th write, flush or rename; whatever ``load`` then accepts is the whole model."""
    checkpoint = checkpoint_of("bert")
    expected = outputs(checkpoint)
    finished = False
    for moment in range(40):
        parent = tmp_path / str(moment)
        parent.mkdir()
        child = os.fork()
        if child == 0:
            _save_and_die(checkpoint, parent / "model", moment)
        _, status = os.waitpid(child, 0)
        finished = not os.WIFSIGNALED(status)
        for path in [*parent.iterdir(), parent / "model"]:
            try:
                loaded = load(path)
            except (InputError, IntegrityError):
                continue
            assert same(outputs(loaded), expected)
        if finished:
            assert same(outputs(load(parent / "model")), expected)
            break
    assert finished
    assert moment > 8


def _save_and_die(checkpoint: Checkpoint, target: Path, moment: int) -> None:
    left = moment

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(args[1], str) and "w" in args[1]
        if writes or event in ("os.rename", "os.mkdir", "os.chmod") or (event == "open" and isinstance(args[2], int) and str(target.parent) in str(args[0])):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(watch)
    save(checkpoint, target)
    os._exit(0)


def test_a_model_that_is_loaded_answers_and_does_not_train(tmp_path: Path) -> None:
    """Dropout would make every answer another."""
    saved("bert", tmp_path / "model")
    network = load(tmp_path / "model").torch_network
    assert not any(module.training for module in network.modules())
