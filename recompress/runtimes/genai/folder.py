"""A decoder as ONNX Runtime GenAI opens it: ``model.onnx`` and ``genai_config.json`` in a folder, beside the tokenizer's two files.

The same network gives the same bytes. What no graph here can say is refused by name, before anything is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.models.architecture import architecture_of, check_whole_text, layers_of
from recompress.models.chat import stops_of
from recompress.models.factored import token_table
from recompress.models.genai_config import GRAPH_FILE, KINDS, Decoder, GenaiConfig, Model, Search, write_genai_config
from recompress.models.onnx_graph import LARGEST, write_graph
from recompress.models.padding import padding_of
from recompress.runtimes.genai.decoder import ACTIVATIONS, decoder_graph
from recompress.runtimes.genai.matrices import Coding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHANNELS = 8
"""Of how many channels a head must be a multiple."""
STEADY = ("default", "linear", "llama3", "yarn")
"""Rotations whose frequencies do not depend on how much has been read."""


def write_folder(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, coding: Coding, level: int) -> Path:
    """Write graph and config. Gives the graph's path. Raises ``InputError`` for a network that no graph can say here, or whose weights are more than one file holds."""
    check_sayable(network)
    model = decoder_graph(network, coding, level)
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > LARGEST:
        raise InputError(
            f"the weights take {size / 2**30:.2f} GiB, and a graph in one file holds less than 2; store them in int4, or make the model smaller first "
            "(trim_vocabulary, prune_structure)"
        )
    write_graph(model, folder / GRAPH_FILE)
    write_genai_config(config_of(network, tokenizer), folder)
    return folder / GRAPH_FILE


def config_of(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenaiConfig:
    """What stands beside the graph."""
    config: Any = network.config
    layers = layers_of(network)
    padding, stops = padding_of(network), sorted(stops_of(tokenizer))
    begins = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else (stops or [padding])[0]
    decoder = Decoder(
        head_size=layers[0].head_size,
        hidden_size=int(config.hidden_size),
        num_attention_heads=layers[0].heads,
        num_key_value_heads=layers[0].groups,
        num_hidden_layers=len(layers),
    )
    length = int(config.max_position_embeddings)
    model = Model(
        type=KINDS[architecture_of(network).name],  # type: ignore[arg-type]
        vocab_size=int(network.get_input_embeddings().num_embeddings),
        context_length=length,
        bos_token_id=int(begins),
        eos_token_id=stops or [padding],
        pad_token_id=padding,
        decoder=decoder,
    )
    return GenaiConfig(model=model, search=Search(max_length=length))


def check_sayable(network: PreTrainedModel) -> None:
    """Raises ``InputError`` for what no graph here can say."""
    config: Any = network.config
    about, layers = architecture_of(network), layers_of(network)
    family = about.name
    if family not in KINDS:
        raise InputError(f"graphs for ONNX Runtime GenAI are written for {', '.join(KINDS)} here, and this is a {family}")
    activation = getattr(config, about.activation_setting)
    if activation not in ACTIVATIONS:
        raise InputError(f"the activation {activation!r} is written into no graph here; known: {', '.join(ACTIVATIONS)}")
    if layers[0].head_size % CHANNELS:
        raise InputError(
            f"heads of {layers[0].head_size} channels have no attention in ONNX Runtime, which takes multiples of {CHANNELS}; stay on torch, or end with gguf"
        )
    if token_table(network) is not network.get_input_embeddings():
        raise InputError("token embeddings that are a product of two matrices are written into no graph here; leave factorize_embeddings out")
    check_whole_text(network, "a graph for ONNX Runtime GenAI")
    if about.grouped:
        kind = config.rope_parameters.get("rope_type", "default")
        if kind not in STEADY:
            raise InputError(f"the rotation {kind!r} changes with what has been read, which no graph here says; known: {', '.join(STEADY)}")
        if 2 * len(network.base_model.rotary_emb.inv_freq) != layers[0].head_size:
            raise InputError("heads of which a part alone is rotated are written into no graph here")
