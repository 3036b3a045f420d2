"""``genai_config.json``, beside the graph of a decoder for ONNX Runtime GenAI: what the graph's inputs and outputs are called, and how many of what it has.

The file may say much more than that: other files to open, a library to load into the process, providers, options of sessions. None of it is written here, and a file
that says any of it is refused before anybody's library reads it.
Source: ONNX Runtime GenAI, "Config reference" (genai_config.json).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from recompress.errors import InputError, IntegrityError
from recompress.settings.base import Settings

GENAI_FILE = "genai_config.json"
GRAPH_FILE = "model.onnx"
Count = Annotated[int, Field(ge=1)]
Token = Annotated[int, Field(ge=0)]
KINDS = {"llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "decoder"}
"""What the library calls a decoder of each family; its own ``gpt2`` wants keys and values in one tensor, as ``decoder`` does not."""


class Given(Settings):
    """What the graph is given; ``%d`` is the number of a layer."""

    input_ids: Literal["input_ids"] = "input_ids"
    attention_mask: Literal["attention_mask"] = "attention_mask"
    past_key_names: Literal["past_key_values.%d.key"] = "past_key_values.%d.key"
    past_value_names: Literal["past_key_values.%d.value"] = "past_key_values.%d.value"


class Told(Settings):
    """What the graph gives."""

    logits: Literal["logits"] = "logits"
    present_key_names: Literal["present.%d.key"] = "present.%d.key"
    present_value_names: Literal["present.%d.value"] = "present.%d.value"


class Nothing(Settings):
    """Options of a session are those of whoever opens it."""


class Decoder(Settings):
    """The graph. Counts are those of the first layer; what layers have that differ is said by the graph's own inputs."""

    filename: Literal["model.onnx"] = "model.onnx"
    head_size: Count
    hidden_size: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    num_hidden_layers: Count
    session_options: Nothing = Nothing()
    inputs: Given = Given()
    outputs: Told = Told()


class Model(Settings):
    """The model of language."""

    type: Literal["llama", "mistral", "qwen2", "qwen3", "decoder"]
    vocab_size: Count
    context_length: Count
    """Tokens that it reads, prompt and answer together."""
    bos_token_id: Token
    eos_token_id: list[Token]
    """The tokens that end an answer."""
    pad_token_id: Token
    decoder: Decoder


class Search(Settings):
    """How the next token is chosen, where nobody says otherwise: it is the likeliest."""

    do_sample: Literal[False] = False
    max_length: Count
    past_present_share_buffer: Literal[True] = True
    """Keys and values stay where they are, and none is copied when a token is read."""


class GenaiConfig(Settings):
    """The whole file."""

    model: Model
    search: Search


def write_genai_config(config: GenaiConfig, directory: Path) -> None:
    (directory / GENAI_FILE).write_text(json.dumps(config.model_dump(mode="json"), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_genai_config(directory: Path) -> GenaiConfig:
    """Raises ``InputError`` where there is none, and ``IntegrityError`` for one that is cut off, broken, or says anything that is not written here."""
    path = directory / GENAI_FILE
    if not path.is_file():
        raise InputError(f"{directory} has no {GENAI_FILE}; a model for ONNX Runtime GenAI needs one")
    try:
        return GenaiConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = _path(first["loc"])
        raise IntegrityError(f"{path} is cut off, broken, or says what is not said here: {f'{where} ' if where else ''}{first['msg']}") from None


def _path(location: Iterable[Any]) -> str:
    return ".".join(map(str, location))
