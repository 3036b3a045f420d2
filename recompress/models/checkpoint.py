"""A model directory in, a model directory out.

A directory holds ``config.json``, ``model.safetensors`` (or ``model.onnx`` or ``model.gguf`` in its place), the tokenizer's two files, and ``recompress.json``: the
benchmark, the labels, the runtime, the steps, and whatever shape a transformers config cannot say. It is written last, so that half a directory is none.

A network whose shape its config can say loads with plain ``from_pretrained``; ``load`` reads these and all others. No pickle is read, no code of a
model is run, and nothing is fetched.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from recompress.errors import InputError, IntegrityError
from recompress.integrity.atomic_directory import new_directory
from recompress.models.architecture import architecture_named, architecture_of, check_described, layers_of
from recompress.models.cache_bits import CacheBits
from recompress.models.files import (
    CONFIG_FILE,
    HalfPrecision,
    as_stored,
    distinct_tensors,
    fill,
    opened,
    read_config,
    read_tensors,
    refuse_pickles,
    write_config,
)
from recompress.models.genai_config import read_genai_config
from recompress.models.heads import head_of
from recompress.models.one_file import BESIDE, FILES, WHAT, check_file
from recompress.models.padding import check_padding
from recompress.models.tokenizer import SEGMENTS, load_tokenizer, save_tokenizer
from recompress.records import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

INFO_FILE = "recompress.json"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = FILES["onnx"]
LATER = ("answering", "standard", "cache", "floats")
"""What a later version says of models that have it; of others the file stays as it was."""


@dataclass(frozen=True)
class Info:
    """What ``recompress.json`` says."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    benchmark: str
    labels: tuple[str, ...]
    max_length: int
    """Tokens of a sequence, special ones included; longer ones are cut off."""
    runtime: Runtime = "torch"
    steps: tuple[str, ...] = ()
    heads: tuple[int, ...] = ()
    """Attention heads kept in each layer, where that is not what the config says."""
    neurons: tuple[int, ...] = ()
    """Neurons kept in each layer, where that is not what the config says."""
    groups: tuple[int, ...] = ()
    """Key and value heads kept in each layer, where that is neither what the config says nor one for each query head."""
    head_size: Annotated[int, Field(ge=1)] | None = None
    """Channels of an attention head, where that is not what the config says."""
    shares: tuple[int, ...] = ()
    """For each layer the one whose weights it uses, where any uses another's."""
    answering: dict[str, Any] = field(default_factory=dict)
    """Dials of the benchmark that it was made for, so that it is served as it was measured: stride and threshold of question answering …"""
    standard: tuple[float, float] | None = None
    """Mean and standard deviation of the numbers that it learned from, where it answers with a number. Its answers are in the data's unit all the same."""
    cache: CacheBits | None = None
    """How a decoder on torch keeps keys and values, where not as they are."""
    floats: HalfPrecision | None = None
    """In what the numbers of its weights that are no codes are stored, where not in 32 bits; in memory they are 32-bit floats all the same."""
    onnx: dict[str, Any] = field(default_factory=dict)
    """How an ONNX graph was made, and what its runtime must know: ``pad_id``, ``int8``, ``reduce_range`` …"""


@dataclass
class Checkpoint:
    """A model in memory: a transformers network on the torch runtime, or the path of the one file of weights that another runtime has (ONNX, GGUF)."""

    network: PreTrainedModel | Path
    tokenizer: PreTrainedTokenizerBase
    info: Info

    @property
    def torch_network(self) -> PreTrainedModel:
        """The network of a checkpoint on the torch runtime. Raises ``InputError`` for one on another."""
        if isinstance(self.network, Path):
            raise InputError(f"{self.network.parent} is {WHAT[self.network.suffix]}; its weights cannot be changed any more")
        return self.network

    @property
    def reads_segments(self) -> bool:
        """Whether the network is told which of two texts a token belongs to."""
        return head_of(self.info.benchmark).texts > 1 and SEGMENTS in self.tokenizer.model_input_names


def reads_segments(directory: Path, info: Info) -> bool:
    """The same of a directory."""
    return head_of(info.benchmark).texts > 1 and SEGMENTS in load_tokenizer(directory).model_input_names


@cache
def _info_reader() -> TypeAdapter[Info]:
    """Made at the first reading: it takes as long as many readings."""
    return TypeAdapter(Info)


def read_info(directory: Path) -> Info:
    """Raises ``InputError`` when there is none and ``IntegrityError`` when it cannot be read."""
    path = directory / INFO_FILE
    if not path.is_file():
        raise InputError(f"{directory} is no model directory of this project: it has no {INFO_FILE}")
    try:
        return _info_reader().validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise IntegrityError(f"{path} is broken: {'.'.join(map(str, first['loc']))} {first['msg']}") from None


def load(directory: Path, *, answering: bool = False) -> Checkpoint:
    """Read a directory that ``save`` wrote; the network is in evaluation mode, in 32-bit floats, on the CPU. ``answering``: it will do nothing else, and packed
    weights are kept as they are multiplied alone, so that it takes less memory and cannot be saved.

    Raises ``InputError`` for a directory that is none, and ``IntegrityError`` for pickles and for files that are cut off, broken, or do not fit each other.
    """
    info = read_info(directory)
    refuse_pickles(directory)
    if info.runtime in FILES:
        path = directory / FILES[info.runtime]
        check_file(path)
        if info.runtime == "genai":
            read_genai_config(directory)
        return Checkpoint(path, load_tokenizer(directory), info)
    network, tokenizer = _load_network(directory, info, answering=answering), load_tokenizer(directory)
    check_padding(directory, network.config, tokenizer, info.benchmark)
    return Checkpoint(network, tokenizer, info)


def save(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a new directory, in full or not at all. Raises ``InputError`` when it exists and ``StorageError`` when it cannot be written."""
    with new_directory(directory) as partial:
        write(checkpoint, partial)


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the files into a directory that exists and is empty. Tied weights are stored once."""
    save_tokenizer(checkpoint.tokenizer, directory)
    info = checkpoint.info
    if isinstance(checkpoint.network, Path):
        for name in (checkpoint.network.name, CONFIG_FILE, *BESIDE.get(info.runtime, ())):
            shutil.copyfile(checkpoint.network.parent / name, directory / name)
    else:
        from safetensors.torch import save_file

        write_config(checkpoint.network, directory)
        save_file(as_stored(checkpoint.network, info.floats), directory / WEIGHTS_FILE, metadata={"format": "pt"})
        (directory / WEIGHTS_FILE).chmod((directory / CONFIG_FILE).stat().st_mode)  # safetensors makes a file that only its owner may read
        info = replace(info, **_odd_shapes(checkpoint.network))
    values = {name: value for name, value in asdict(info).items() if name not in LATER or value}
    (directory / INFO_FILE).write_text(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _load_network(directory: Path, info: Info, *, answering: bool) -> PreTrainedModel:
    import torch
    from transformers.initialization import no_init_weights

    from recompress.models.factored import fit_factored, tie_factored
    from recompress.models.number_head import complete_output
    from recompress.models.packed import Packed, fit_packed, settle_packed, tie_packed
    from recompress.models.shared_layers import fit_shares
    from recompress.models.surgery import fit_shapes

    config = read_config(directory)
    head = head_of(info.benchmark)
    if head.pretrained:
        check_causal(directory, config, info.benchmark)
    path = directory / WEIGHTS_FILE
    stored = read_tensors(path)
    with torch.random.fork_rng(devices=[]), no_init_weights():
        network: PreTrainedModel = head.auto_model().from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    complete_output(network, info.benchmark)
    check_described(network, directory)
    network.tie_weights()
    fit_shares(network, info.shares)
    if fit_factored(network, stored):
        tie_factored(network)
    if fit_packed(network, stored):
        tie_packed(network)
    named = distinct_tensors(network)
    expected = named.keys()
    for what, names in (("missing", expected - stored.keys()), ("not expected", stored.keys() - expected)):
        if names:
            raise IntegrityError(f"{path} does not fit its config: {min(names)} is {what}")
    fit_shapes(network, {name: tuple(tensor.shape) for name, tensor in stored.items()}, info.head_size)
    places = network.state_dict()
    del stored  # the file is mapped once at a time
    if answering:
        with opened(path) as (_, read_into):
            for name in settle_packed(network, {tensor.data_ptr(): name for name, tensor in named.items()}, read_into):
                del places[name]
    fill(places, path)  # never a second copy: whoever serves a model needs its size in memory, and not twice that
    if isinstance(network.get_input_embeddings(), torch.nn.Embedding):
        network.tie_weights()
    if any(isinstance(module, Packed) for module in network.modules()) != (info.runtime == "packed"):
        raise IntegrityError(f"{directory / INFO_FILE} says that the runtime is {info.runtime}, but {WEIGHTS_FILE} tells otherwise")
    labels = config.num_labels if not head.pretrained else len(info.labels) if head.answer == "label" else 0  # which a model of language has in its prompt
    if len(info.labels) != labels or any(getattr(info, name) != value for name, value in _odd_shapes(network).items()):
        raise IntegrityError(f"{directory / INFO_FILE} tells of other labels or shapes than {WEIGHTS_FILE} holds")
    return network.eval()


def _odd_shapes(network: PreTrainedModel) -> dict[str, Any]:
    """Heads, their size, neurons and shared weights of each layer where the config cannot say them; nothing where it can."""
    from recompress.models.shared_layers import shares_of

    layers, config = layers_of(network), network.config
    heads, groups, neurons = (tuple(getattr(layer, name) for layer in layers) for name in ("heads", "groups", "neurons"))
    config_neurons = getattr(config, architecture_of(network).neurons_setting) or 4 * config.hidden_size  # GPT-2 leaves its usual width unsaid
    config_groups = getattr(config, "num_key_value_heads", config.num_attention_heads)
    config_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "heads": heads if {*heads} != {config.num_attention_heads} else (),
        "neurons": neurons if {*neurons} != {config_neurons} else (),
        "groups": groups if groups != heads and {*groups} != {config_groups} else (),
        "shares": shares if (shares := shares_of(network)) != tuple(range(len(layers))) else (),
        "head_size": layers[0].head_size if layers[0].head_size != config_size else None,
    }


def check_causal(directory: Path, config: PreTrainedConfig, benchmark: str) -> None:
    if not architecture_named(config.model_type).causal:
        raise InputError(f"{benchmark} needs a decoder, and base model {directory} is a {config.model_type}, which sees the words that it should foretell")
