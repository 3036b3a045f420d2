"""A base that will not do is named before anything is prepared for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recompress.errors import InputError, IntegrityError
from recompress.integrity.digest import sha256_file
from tasks.scaffold.base import pin_base


def without_tokenizer(base: Path) -> None:
    for path in base.glob("tokenizer*"):
        path.unlink()


def cut_off(base: Path) -> None:
    data = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(data[: len(data) // 2])


def say(base: Path, **changes: object) -> None:
    """As transformers wrote it, and not this project."""
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **changes}))
    (base / "recompress.json").unlink()


def as_adapter(base: Path) -> None:
    (base / "model.safetensors").rename(base / "adapter_model.safetensors")
    (base / "adapter_config.json").write_text("{}")


def as_shards(base: Path) -> None:
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    (base / "model.safetensors.index.json").write_text("{}")


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
        (lambda base: say(base, quantization_config={"bits": 4}), InputError, "quantized already; start from the full model"),
        (lambda base: say(base, is_decoder=True), InputError, "reads from left to right"),
        (lambda base: say(base, is_decoder=True, add_cross_attention=True), InputError, "reads from left to right"),
        (lambda base: say(base, vocab_size=8), InputError, r"numbers \d+ tokens, its embeddings 8"),
        (lambda base: (base / "adapter_config.json").write_text("{}"), InputError, "lies an adapter .*; merge it into them, or move it away"),
        (as_adapter, InputError, r"is an adapter without the model that it belongs to; merge them once: peft\..*merge_and_unload"),
        (as_shards, InputError, r"lie in several files \(model-00001-of-00002\.safetensors\).*join them once: .*max_shard_size"),
    ],
)
def test_what_is_missing_or_broken_is_named(base: Path, tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], message: str) -> None:
    shutil.copytree(base, tmp_path / "base")
    assert pin_base("base", tmp_path / "project", tmp_path).layers == 2
    spoil(tmp_path / "base")
    with pytest.raises(error, match=message) as refused:
        pin_base("base", tmp_path / "project", tmp_path)
    assert "\n" not in str(refused.value)


def test_a_gguf_file_is_pinned_by_its_own_digest(tmp_path: Path) -> None:
    from tests.models.test_gguf import write
    from tests.six import checkpoint_of

    pytest.importorskip("gguf")
    digest = sha256_file(write(checkpoint_of("llama"), tmp_path / "tiny.gguf"))
    base = pin_base("tiny.gguf", tmp_path / "project", tmp_path)
    assert (base.model, base.sha256) == ((tmp_path / "tiny.gguf").as_posix(), digest)
    assert (base.layers, base.width, base.positions, base.causal) == (2, 32, 64, True)
