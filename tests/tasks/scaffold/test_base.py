"""A base that will not do is named before anything is prepared for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recompress.errors import InputError, IntegrityError
from tasks.scaffold.base import pin_base


def without_tokenizer(base: Path) -> None:
    for path in base.glob("tokenizer*"):
        path.unlink()


def cut_off(base: Path) -> None:
    data = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (without_tokenizer, InputError, "has no tokenizer; put its tokenizer.json there"),
        (lambda base: (base / "tokenizer.json").write_text("{"), InputError, "the tokenizer of base model .* cannot be read"),
        (cut_off, IntegrityError, "model.safetensors is cut off or broken"),
        (lambda base: (base / "model.safetensors").rename(base / "pytorch_model.bin"), InputError, "a pickle, which can run code"),
        (lambda base: (base / "config.json").write_text("[1]"), InputError, "it holds list, not an object"),
        (lambda base: (base / "config.json").write_text('{"model_type": "bert"}'), InputError, "says none of num_hidden_layers"),
        (lambda base: (base / "config.json").write_text('{"model_type": "t5"}'), InputError, "architecture 't5' is not known"),
        (lambda base: (base / "config.json").unlink(), InputError, "no config.json that can be read"),
    ],
)
def test_what_is_missing_or_broken_is_named(base: Path, tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], message: str) -> None:
    shutil.copytree(base, tmp_path / "base")
    assert pin_base("base", tmp_path / "project", tmp_path).layers == 2
    spoil(tmp_path / "base")
    with pytest.raises(error, match=message) as refused:
        pin_base("base", tmp_path / "project", tmp_path)
    assert "\n" not in str(refused.value)
