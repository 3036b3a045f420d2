"""What stands beside a graph for ONNX Runtime GenAI: written as the library reads it, and nothing else is handed to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError, IntegrityError
from recompress.models.genai_config import Decoder, GenaiConfig, Model, Search, read_genai_config, write_genai_config


def config() -> GenaiConfig:
    decoder = Decoder(head_size=8, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2)
    model = Model(type="llama", vocab_size=290, context_length=64, bos_token_id=0, eos_token_id=[0, 5], pad_token_id=0, decoder=decoder)
    return GenaiConfig(model=model, search=Search(max_length=64))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_genai_config(config(), tmp_path)
    assert read_genai_config(tmp_path) == config()
    said = json.loads((tmp_path / "genai_config.json").read_text(encoding="utf-8"))
    assert said["model"]["decoder"]["inputs"]["past_key_names"] == "past_key_values.%d.key"
    assert said["model"]["decoder"]["outputs"]["logits"] == "logits"
    assert said["model"]["eos_token_id"] == [0, 5]
    assert said["search"] == {"do_sample": False, "max_length": 64, "past_present_share_buffer": True}


def _at(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(said: dict[str, Any]) -> None:
        for key in path[:-1]:
            said = said[key]
        said[path[-1]] = value

    return change


OTHERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a library to load": _at("model", "decoder", "session_options", value={"custom_ops_library": "/tmp/other.so"}),
    "another file": _at("model", "decoder", "filename", value="../other.onnx"),
    "a provider": _at("model", "decoder", "session_options", value={"provider_options": [{"cuda": {}}]}),
    "another model": _at("model", "vision", value={"filename": "vision.onnx"}),
    "another kind": _at("model", "type", value="whisper"),
    "no tokens": _at("model", "vocab_size", value=0),
    "a number as text": _at("model", "context_length", value="64"),
    "drawn tokens": _at("search", "do_sample", value=True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_said_here_is_refused_before_the_library_reads_it(name: str, tmp_path: Path) -> None:
    said = config().model_dump(mode="json")
    OTHERS[name](said)
    (tmp_path / "genai_config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(IntegrityError, match="says what is not said here: (model|search)"):
        read_genai_config(tmp_path)


def test_none_and_half_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no genai_config.json"):
        read_genai_config(tmp_path)
    for text in ("", "{", "[1]", '{"model": {}}'):
        (tmp_path / "genai_config.json").write_text(text, encoding="utf-8")
        with pytest.raises(IntegrityError, match="is cut off, broken, or says what is not said here"):
            read_genai_config(tmp_path)
