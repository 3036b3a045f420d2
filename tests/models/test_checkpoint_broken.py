"""A model directory that is not whole is refused in one line that names what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from recompress.errors import InputError, IntegrityError
from recompress.models.checkpoint import load, read_info
from tests.families import saved


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("distilbert", tmp_path_factory.mktemp("whole") / "model")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "x.pkl", "sub/model.ckpt"])
def test_pickles_are_refused(name: str, tmp_path: Path) -> None:
    model = saved("bert", tmp_path / "model")
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"\x80\x04")
    with pytest.raises(IntegrityError, match=f"{name} may be a pickle"):
        load(model)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.9999))
def test_weights_that_are_cut_off_anywhere_are_refused(share: float, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    broken = tmp_path_factory.mktemp("cut") / "model"
    shutil.copytree(whole, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    with pytest.raises(IntegrityError, match=r"model\.safetensors is cut off or broken") as caught:
        load(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "recompress.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(InputError, match=name):
        load(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "recompress.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"model_type": 3}', "null", '{"benchmark": 1}'])
def test_broken_json_is_one_line(name: str, text: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / name).write_text(text)
    if name == "tokenizer_config.json" and text.startswith("{") and text != "{":
        return  # an object without known keys says nothing wrong
    with pytest.raises((IntegrityError, InputError)) as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "albert"}, "architecture 'albert' is not known"),
        ("config.json", {"model_type": "made-up", "auto_map": {"AutoConfig": "evil.Config"}}, "architecture 'made-up' is not known"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
        ("config.json", {"dim": 48, "n_heads": 4}, "is stored as"),
        ("config.json", {"n_layers": 4}, "is missing"),
        ("config.json", {"n_layers": 2}, "is not expected"),
        ("config.json", {"vocab_size": 7}, "is stored as"),
        ("recompress.json", {"labels": ["O"]}, "other labels"),
        ("recompress.json", {"heads": [1, 2, 3]}, "other labels or shapes"),
        ("recompress.json", {"benchmark": "token-clasification"}, "did you mean 'token-classification'"),
        ("recompress.json", {"evil": 1}, "recompress.json is broken: evil"),
    ],
)
def test_files_that_contradict_each_other_are_refused(file: str, changes: dict[str, Any], message: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    edit(tmp_path / "model" / file, **changes)
    with pytest.raises((InputError, IntegrityError), match=message) as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_renamed_tensor_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["classifier.weights"] = tensors.pop("classifier.weight")
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"classifier\.weight is missing"):
        load(tmp_path / "model")


def test_info_of_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no recompress\.json"):
        read_info(tmp_path)
