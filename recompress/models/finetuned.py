"""A model that somebody has fine-tuned already, taken as it is: its head, its labels and their order, its tokenizer, its longest sequence, and the side that it cuts.

Nothing of it is drawn anew or guessed: what is missing in it, and what does not fit the data, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.models.architecture import check_described
from recompress.models.checkpoint import INFO_FILE, WEIGHTS_FILE, Checkpoint, Info, load
from recompress.models.files import first_line, quiet_transformers, read_config, read_tensors
from recompress.models.heads import head_of
from recompress.models.number_head import UNKNOWN, complete_output
from recompress.models.padding import reads_before_padding
from recompress.models.pretrained import ADAPTER_FILE, base_tokenizer, check_room, check_sees_all, own_tokenizer, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

ONE_LABEL = "single_label_classification"
"""What a config calls one label of several, where it says anything of that."""
SHOWN = 8


def from_finetuned(directory: Path, benchmark: str, labels: Sequence[str], answering: Mapping[str, Any] | None = None) -> Checkpoint:
    """The model of a directory of transformers or of this project, for data with these ``labels`` (in any order; none for language modelling). ``answering`` are dials of
    the benchmark that it is to be measured and served with, where somebody said some.

    Raises ``InputError`` for a model that was made for something else, without a trained head, or with other labels than the data, and ``IntegrityError`` for broken files.
    """
    if (directory / ADAPTER_FILE).is_file():
        raise InputError(f"beside the weights of model {directory} lies an adapter ({ADAPTER_FILE}); merge it into them, or move it away")
    if (directory / INFO_FILE).is_file():
        checkpoint = load(directory)
        if checkpoint.info.benchmark != benchmark:
            raise InputError(f"model {directory} was made for {checkpoint.info.benchmark}, the data is for {benchmark}")
        if isinstance(checkpoint.network, Path):
            raise InputError(
                f"model {directory} is an ONNX graph, whose weights nothing compresses any more; a baseline is the model that it was made from, on the torch runtime"
            )
    else:
        checkpoint = _of_transformers(directory, benchmark)
    if answering:
        checkpoint.info = replace(checkpoint.info, answering=dict(answering))
    check_labels(checkpoint.info.labels, labels, str(directory))
    return checkpoint


def check_labels(of_model: Sequence[str], of_data: Sequence[str], name: str) -> None:
    """Raises ``InputError`` that names each label which only one of them knows."""
    unknown = [label for label in of_data if label not in of_model]
    never = [label for label in of_model if label not in of_data]
    if not unknown and not never:
        return
    parts = [f"the data has {_listed(unknown)}, which it does not know"] * bool(unknown) + [f"it knows {_listed(never)}, which the data never shows"] * bool(
        never
    )
    raise InputError(
        f"the labels of model {name} are not those of the data: {' and '.join(parts)}; bring data with its labels, or correct the names under id2label in its config.json"
    )


def _of_transformers(directory: Path, benchmark: str) -> Checkpoint:
    config = read_config(directory)
    head, problem = head_of(benchmark), getattr(config, "problem_type", None)
    if problem is not None and problem != (head.problem_type or ONE_LABEL):
        raise InputError(f"model {directory} was trained for {problem} (problem_type in its config.json), the data is for {benchmark}")
    check_sees_all(directory, config, benchmark)
    labels = labels_of(config, benchmark)
    if head.answer == "number" and len(labels) != config.num_labels:
        raise InputError(f"model {directory} gives {config.num_labels} numbers, and {benchmark} asks for one")
    if len(set(labels)) != len(labels):
        raise InputError(f"model {directory} gives two outputs one name under id2label in its config.json: {_listed(labels)}")
    longest = _longest(directory, config)
    tokenizer = base_tokenizer(directory, config, benchmark, longest)
    check_room(directory, config, tokenizer, longest)
    network = _read(directory, benchmark)
    if reads_before_padding(network.config, benchmark):
        network.config.pad_token_id = tokenizer.pad_token_id
    network.config.problem_type = head.problem_type or problem
    standard = UNKNOWN if head.answer == "number" else None
    return Checkpoint(network.eval(), tokenizer, Info(benchmark=benchmark, labels=labels, max_length=longest, standard=standard))


def labels_of(config: PreTrainedConfig, benchmark: str) -> tuple[str, ...]:
    """The labels of a model, in the order of its outputs: none for one of language, and the head's own names where these are no labels."""
    head = head_of(benchmark)
    return () if head.pretrained else head.outputs or tuple(str(config.id2label[i]) for i in sorted(config.id2label))


def _longest(directory: Path, config: PreTrainedConfig) -> int:
    """The longest sequence that its tokenizer lets through, or as many tokens as it has positions where the tokenizer does not say."""
    said = int(own_tokenizer(directory).model_max_length)
    return min(said, positions_of(config))


def _read(directory: Path, benchmark: str) -> PreTrainedModel:
    """The network with its trained head. Raises ``InputError`` for what is missing in the file, and for what has no place in the network of its config."""
    import torch

    read_tensors(directory / WEIGHTS_FILE)
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True, "output_loading_info": True, "attn_implementation": "sdpa"}
    with quiet_transformers():
        try:
            came: tuple[PreTrainedModel, dict[str, Any]] = head_of(benchmark).auto_model().from_pretrained(directory, dtype=torch.float32, **options)
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"model {directory} does not fit its config: {first_line(error)}") from None
    network, loading = came
    complete_output(network, benchmark)
    check_described(network, directory)
    for kind, why in (
        ("missing_keys", "lacks"),
        ("mismatched_keys", "has another shape in its file than in its config:"),
        ("unexpected_keys", "holds, without a place for it,"),
    ):
        if names := sorted(str(name) for name in loading[kind]):
            hint = f"; a model that is fine-tuned for {benchmark} has all of it, one that is not goes under base:" if kind == "missing_keys" else ""
            raise InputError(f"model {directory} {why} {names[0]}{f' and {len(names) - 1} more tensors' * bool(names[1:])}{hint}")
    return network


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:SHOWN])) + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")
