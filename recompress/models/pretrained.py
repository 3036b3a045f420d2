"""A base model becomes a checkpoint: its weights are read, and a head is put on top where the benchmark asks for a fresh one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.models.architecture import architecture_named, architecture_of, layers_of
from recompress.models.checkpoint import INFO_FILE, WEIGHTS_FILE, Checkpoint, Info, check_causal, load, read_info
from recompress.models.files import first_line, quiet_transformers, read_config, read_tensors
from recompress.models.heads import head_of
from recompress.models.tokenizer import plain_tokenizer, spaced_words

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def from_base(directory: Path, benchmark: str, labels: Sequence[str], max_length: int, seed: int) -> Checkpoint:
    """A pretrained encoder with a fresh head for ``labels``, or, for language modelling, a pretrained decoder with its own. The same seed gives the same head.

    Raises ``InputError`` for an unknown architecture, a base without safetensors, or more tokens than it has positions, ``IntegrityError`` for broken files.
    """
    import torch

    from recompress.models.factored import fit_factored
    from recompress.models.shared_layers import fit_shares, shares_of
    from recompress.models.surgery import fit_shapes

    if head_of(benchmark).pretrained:
        return _whole_base(directory, benchmark, labels, max_length)
    if not labels or len(set(labels)) != len(labels):
        raise InputError(f"labels are distinct and at least one, got {', '.join(labels) or 'none'}")
    config = read_config(directory, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})
    tokenizer = _base_tokenizer(directory, benchmark, max_length)
    _check_room(directory, config, tokenizer, max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: PreTrainedModel = head_of(benchmark).auto_model().from_config(config, dtype=torch.float32, attn_implementation="sdpa")
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
    return Checkpoint(network.eval(), tokenizer, Info(benchmark=benchmark, labels=tuple(labels), max_length=max_length))


def _whole_base(directory: Path, benchmark: str, labels: Sequence[str], max_length: int) -> Checkpoint:
    """A decoder with the head that it was trained with."""
    if labels:
        raise InputError(f"{benchmark} has no labels, got {', '.join(labels)}")
    config = read_config(directory)
    check_causal(directory, config, benchmark)
    tokenizer = _base_tokenizer(directory, benchmark, max_length)
    _check_room(directory, config, tokenizer, max_length)
    if (directory / INFO_FILE).is_file():
        network = load(directory).torch_network
        if read_info(directory).benchmark != benchmark:
            raise InputError(f"base model {directory} was made for {read_info(directory).benchmark} and has no head for {benchmark}")
    else:
        network = _read_base(directory, head_of(benchmark).auto_model())
    return Checkpoint(network.eval(), tokenizer, Info(benchmark=benchmark, labels=(), max_length=max_length))


def _read_base(directory: Path, auto_model: Any = None) -> PreTrainedModel:
    """A base model, without a head or as ``auto_model``, from a directory of this project or of transformers (which knows the old names of tensors)."""
    import torch
    from transformers import AutoModel

    if (directory / INFO_FILE).is_file():
        return load(directory).torch_network.base_model
    read_tensors(directory / WEIGHTS_FILE)
    with quiet_transformers():
        try:
            network, loading_info = (auto_model or AutoModel).from_pretrained(
                directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"base model {directory} does not fit its config: {first_line(error)}") from None
    pooler = architecture_of(network).pooler
    if missing := sorted(name for name in loading_info["missing_keys"] if name.split(".")[0] != pooler):
        raise InputError(f"base model {directory} lacks {missing[0]}" + (f" and {len(missing) - 1} more tensors" if missing[1:] else ""))
    return network


def _base_tokenizer(directory: Path, benchmark: str, max_length: int) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each kind of tokenizer file breaks in its own way
        raise InputError(f"the tokenizer of base model {directory} cannot be read: {first_line(error)}") from None
    plain = plain_tokenizer(tokenizer, max_length)
    if plain.pad_token_id is None and head_of(benchmark).pretrained:
        plain.pad_token = plain.eos_token  # only fills batches up, behind a mask and behind the text; no decoder looks there
    if plain.pad_token_id is None:
        raise InputError(f"the tokenizer of base model {directory} has no padding token")
    return spaced_words(plain) if head_of(benchmark).reads_words else plain


def _check_room(directory: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    positions = int(config.max_position_embeddings)
    if architecture_named(config.model_type).positions_follow_padding:
        positions -= int(config.pad_token_id) + 1
    if not 2 < max_length <= positions:
        raise InputError(f"max_length is between 3 and the {positions} positions of base model {directory}, got {max_length}")
    if len(tokenizer) > config.vocab_size:
        raise InputError(f"the tokenizer of base model {directory} knows {len(tokenizer):,} tokens, its embeddings {config.vocab_size:,}")
