"""A base model becomes a checkpoint: its weights are read, and a head is put on top where the benchmark asks for a fresh one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.models.architecture import architecture_named, architecture_of, check_described, layers_of
from recompress.models.checkpoint import INFO_FILE, WEIGHTS_FILE, Checkpoint, Info, check_causal, load, read_info
from recompress.models.files import check_whole, first_line, quiet_transformers, read_config, read_tensors
from recompress.models.heads import head_of
from recompress.models.number_head import complete_output
from recompress.models.padding import complete_padding, reads_before_padding
from recompress.models.tokenizer import is_plain, load_tokenizer, numbered, plain_tokenizer, spaced_words, with_segments

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
CONSTANTS = ("position_ids", "token_type_ids", "inv_freq", "attn.bias", "attn.masked_bias")
"""Ends of the names of tensors that older versions of transformers stored and that nobody has learned."""


def from_base(directory: Path, benchmark: str, labels: Sequence[str], max_length: int, seed: int, answering: Mapping[str, Any] | None = None) -> Checkpoint:
    """A pretrained encoder with a fresh head for ``labels``, or, for language modelling, a pretrained decoder with its own. The same seed gives the same head.
    ``answering`` are dials of the benchmark that the model is to keep.

    Raises ``InputError`` for an unknown architecture, a base without safetensors, or more tokens than it has positions, ``IntegrityError`` for broken files.
    """
    import torch

    from recompress.models.factored import fit_factored
    from recompress.models.shared_layers import fit_shares, shares_of
    from recompress.models.surgery import fit_shapes

    check_whole(directory, f"base model {directory}")
    if head_of(benchmark).pretrained:
        return _whole_base(directory, benchmark, labels, max_length, answering)
    labels = head_of(benchmark).outputs or labels
    if not labels or len(set(labels)) != len(labels):
        raise InputError(f"labels are distinct and at least one, got {', '.join(labels) or 'none'}")
    problem = head_of(benchmark).problem_type
    said = {"problem_type": problem} if problem else {}
    config = read_config(directory, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}, **said)
    check_sees_all(directory, config, benchmark)
    tokenizer = base_tokenizer(directory, config, benchmark, max_length)
    check_room(directory, config, tokenizer, max_length)
    if reads_before_padding(config, benchmark):
        config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: PreTrainedModel = head_of(benchmark).auto_model().from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        complete_output(network, benchmark)
        check_described(network, directory)
        base = _read_base(directory)
        tensors = base.state_dict()
    fit_shares(network, shares_of(base))
    prefix = network.base_model_prefix
    fit_factored(network, {f"{prefix}.{name}": tensor for name, tensor in tensors.items()})
    expected = network.base_model.state_dict().keys()
    pooler = architecture_of(network).pooler
    if missing := sorted(name for name in expected - tensors.keys() if name.split(".")[0] != pooler):
        raise InputError(f"base model {directory} lacks {missing[0]}" + (f" and {len(missing) - 1} more tensors" if missing[1:] else ""))
    shapes = {f"{prefix}.{name}": tensor.shape for name, tensor in tensors.items()}
    fit_shapes(network, shapes, layers_of(base)[0].head_size)
    network.base_model.load_state_dict({name: tensor for name, tensor in tensors.items() if name in expected}, strict=False)
    return Checkpoint(network.eval(), tokenizer, Info(benchmark=benchmark, labels=tuple(labels), max_length=max_length, answering=dict(answering or {})))


def check_base_config(directory: Path, max_length: int) -> None:
    """What ``from_base`` refuses and needs no weights for: a config that cannot be used or describes weights that are quantized already, a network with parts that are
    not known here, a tokenizer that numbers more tokens than there are embeddings. Raises ``InputError``, and ``IntegrityError`` for a broken config."""
    import torch
    from transformers import AutoModel

    config = read_config(directory)
    if (directory / INFO_FILE).is_file():
        return  # its shape is its own
    with torch.device("meta"), quiet_transformers():
        try:
            network = AutoModel.from_config(config)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"base model {directory} cannot be made as its config says: {first_line(error)}") from None
    check_described(network, directory)
    check_room(directory, config, own_tokenizer(directory), max_length)


def check_sees_all(directory: Path, config: PreTrainedConfig, benchmark: str) -> None:
    """Raises ``InputError`` for a decoder where answers are found in a text: its tokens do not see what comes behind them, and the first sees nothing."""
    if head_of(benchmark).finds_spans and architecture_named(config.model_type).causal:
        raise InputError(f"{benchmark} needs an encoder, and {directory} is a {config.model_type}, whose tokens see only what stands before them")


def _whole_base(directory: Path, benchmark: str, labels: Sequence[str], max_length: int, answering: Mapping[str, Any] | None) -> Checkpoint:
    """A decoder with the head that it was trained with; what it was made for is another thing that it is asked."""
    if labels and head_of(benchmark).answer != "label":
        raise InputError(f"{benchmark} has no labels, got {', '.join(labels)}")
    config = read_config(directory)
    check_causal(directory, config, benchmark)
    tokenizer = base_tokenizer(directory, config, benchmark, max_length)
    check_room(directory, config, tokenizer, max_length)
    if (directory / INFO_FILE).is_file():
        network = load(directory).torch_network
        if not head_of(read_info(directory).benchmark).pretrained:
            raise InputError(f"base model {directory} was made for {read_info(directory).benchmark} and has no head for {benchmark}")
    else:
        network = _read_base(directory, head_of(benchmark).auto_model())
    return Checkpoint(network.eval(), tokenizer, Info(benchmark=benchmark, labels=tuple(labels), max_length=max_length, answering=dict(answering or {})))


def _read_base(directory: Path, auto_model: Any = None) -> PreTrainedModel:
    """A base model, without a head or as ``auto_model``, from a directory of this project or of transformers (which knows the old names of tensors)."""
    import torch
    from transformers import AutoModel

    if (directory / INFO_FILE).is_file():
        return load(directory).torch_network.base_model
    read_tensors(directory / WEIGHTS_FILE)

    def read(**changes: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True, "output_loading_info": True, **changes}
        with quiet_transformers():
            try:
                came: tuple[PreTrainedModel, dict[str, Any]] = (auto_model or AutoModel).from_pretrained(directory, dtype=torch.float32, **options)
            except (RuntimeError, OSError, ValueError) as error:
                raise InputError(f"base model {directory} does not fit its config: {first_line(error)}") from None
        return came

    network, loading_info = read()
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    if network.config.tie_word_embeddings and output is not None and output.weight is not embedding.weight:
        log.warning("base model %s: its config says that the output layer is tied to the embeddings, its file holds two; they are kept apart", directory)
        network, loading_info = read(tie_word_embeddings=False)
    check_described(network, directory)
    pooler = architecture_of(network).pooler
    if missing := sorted(name for name in loading_info["missing_keys"] if name.split(".")[0] != pooler):
        raise InputError(f"base model {directory} lacks {missing[0]}" + (f" and {len(missing) - 1} more tensors" if missing[1:] else ""))
    if homeless := sorted(name for name in loading_info["unexpected_keys"] if is_of_backbone(name, network)):
        more = f" and {len(homeless) - 1} more tensors" if homeless[1:] else ""
        raise InputError(f"base model {directory} holds {homeless[0]}{more}, for which the network of its config has no place; its answers would be others")
    return network


def is_of_backbone(name: str, network: PreTrainedModel) -> bool:
    """Whether a stored tensor is a learned part of the backbone, under its prefix or without: no head, no pooler."""
    prefix = f"{network.base_model_prefix}."
    first = name.removeprefix(prefix).split(".")[0]
    parts = {child for child, _ in network.base_model.named_children()}
    return (name.startswith(prefix) or first in parts) and first != architecture_of(network).pooler and not name.endswith(CONSTANTS)


def base_tokenizer(directory: Path, config: PreTrainedConfig, benchmark: str, max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a base as models for ``benchmark`` use it. Raises ``InputError``."""
    plain = plain_tokenizer(own_tokenizer(directory), max_length)
    complete_padding(plain, config, directory)
    if head_of(benchmark).texts > 1:
        plain = with_segments(plain, getattr(config, "type_vocab_size", None) or 0)
    return spaced_words(plain) if head_of(benchmark).reads_words else plain


def own_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that lies in a directory. Raises ``InputError`` for one that cannot be read, and where there is none: transformers would make one up that knows
    special tokens alone, to which all text is the same. Where the directory names the plain class, its file is read as it stands: for some families transformers takes
    the class that it knows them by, whatever is named, and builds another tokenizer."""
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = (
                load_tokenizer(directory) if is_plain(directory) else AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            )
    except Exception as error:  # each kind of tokenizer file breaks in its own way
        raise InputError(f"the tokenizer of base model {directory} cannot be read: {first_line(error)}") from None
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise InputError(f"base model {directory} has no tokenizer; put its tokenizer.json there, which lies beside the weights where the model comes from")
    return tokenizer


def positions_of(config: PreTrainedConfig) -> int:
    """The longest sequence that a network of this config has positions for, in tokens."""
    before = int(config.pad_token_id) + 1 if architecture_named(config.model_type).positions_follow_padding else 0
    return int(config.max_position_embeddings) - before


def check_room(directory: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Raises ``InputError`` for more tokens than there are positions, and for a tokenizer that numbers more than there are embeddings."""
    positions = positions_of(config)
    if not 2 < max_length <= positions:
        raise InputError(f"max_length is between 3 and the {positions} positions of base model {directory}, got {max_length}")
    numbers = numbered(tokenizer)
    if numbers > config.vocab_size:
        raise InputError(f"the tokenizer of base model {directory} numbers {numbers:,} tokens, its embeddings {config.vocab_size:,}")
