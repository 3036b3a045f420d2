"""Loading takes the model's size in memory, and not twice that; numbers come through as they were, whatever their type and place in the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from recompress.errors import IntegrityError
from recompress.models.checkpoint import Checkpoint, Info, load, save
from recompress.models.files import fill
from tests.six import LANGUAGE, LENGTH, byte_tokenizer, config_of
from tests.tiny import TAGS, tiny_tokenizer

MEASURE = """
import gc, json, sys
from pathlib import Path
import psutil
from recompress.measure.memory import peak_bytes
from recompress.models.checkpoint import load

load(Path(sys.argv[1]))  # whatever is imported is there now
gc.collect()
before = psutil.Process().memory_info().rss
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
model = load(Path(sys.argv[2]))
print(json.dumps([peak_bytes() - before, psutil.Process().memory_info().rss - before]))
"""
WIDE = {"vocab_size": 25_000, "hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 1, "num_key_value_heads": 4}


def model_of(family: str, **shape: int) -> Checkpoint:
    tokenizer = tiny_tokenizer() if family == "bert" else byte_tokenizer()
    config = config_of(family, len(tokenizer), len(TAGS), **shape)
    network = (AutoModelForTokenClassification if family == "bert" else AutoModelForCausalLM).from_config(config).eval()
    info = Info("token-classification", TAGS, LENGTH) if family == "bert" else Info(LANGUAGE, (), LENGTH)
    return Checkpoint(network, tokenizer, info)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process forget its peak")
def test_loading_peaks_at_the_size_of_the_model(root: Path, tmp_path: Path) -> None:
    save(model_of("llama"), tmp_path / "tiny")
    save(model_of("llama", **WIDE), tmp_path / "wide")  # two thirds are one tensor, the embeddings, and the output layer is tied to them
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "tiny"), str(tmp_path / "wide")]
    peak, steady = json.loads(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)
    size = (tmp_path / "wide" / "model.safetensors").stat().st_size
    assert 80e6 < size < 130e6
    assert 0.9 * size < steady <= peak < 1.3 * size, f"{peak / size:.2f} times its size"


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_loaded_model_has_every_number_and_does_not_hang_on_its_file(family: str, tmp_path: Path) -> None:
    saved = model_of(family)
    save(saved, tmp_path / "model")
    loaded = load(tmp_path / "model").torch_network.state_dict()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\0" * (tmp_path / "model" / "model.safetensors").stat().st_size)
    for name, tensor in saved.torch_network.state_dict().items():
        assert tensor.equal(loaded[name]), name


def test_numbers_of_every_type_and_shape_come_through(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    stored = {
        "floats": torch.randn(3, 5, generator=draw),
        "turned": torch.randn(4, 6, generator=draw),
        "bytes": torch.randint(0, 255, (7,), dtype=torch.uint8, generator=draw),
        "number": torch.tensor(9),
        "none": torch.zeros(0, 3),
        "halves": torch.randn(2, 2, generator=draw).half(),
        "true": torch.tensor([True, False, True]),
    }
    save_file(stored, tmp_path / "file")
    targets = {name: torch.zeros(tensor.shape, dtype=torch.float32 if name == "halves" else tensor.dtype) for name, tensor in stored.items()}
    targets["turned"] = torch.zeros(6, 4).T
    targets["apart"] = torch.ones(2)
    fill(targets, tmp_path / "file")
    for name, tensor in stored.items():
        assert torch.equal(targets[name], tensor.to(targets[name].dtype)), name
    assert targets["apart"].equal(torch.ones(2))


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_file({"one": torch.zeros(2, 3)}, tmp_path / "file")
    with pytest.raises(IntegrityError, match=r"holds one as \[2, 3\], the model has \[3, 2\]"):
        fill({"one": torch.zeros(3, 2)}, tmp_path / "file")
