"""A model that somebody has fine-tuned already, taken as it is: its head, its labels and their order, its tokenizer, its longest sequence, and the side that it cuts.

Nothing of it is drawn anew or guessed: what is missing in it, and what does not fit the data, is refused by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.models.architecture import check_described
from recompress.models.checkpoint import INFO_FILE, WEIGHTS_FILE, Checkpoint, Info, load
from recompress.models.files import check_whole, first_line, quiet_transformers, read_config, read_tensors
from recompress.models.heads import HEADS, head_of
from recompress.models.number_head import UNKNOWN, complete_output
from recompress.models.one_file import WHAT
from recompress.models.padding import reads_before_padding
from recompress.models.pretrained import CONSTANTS, base_tokenizer, check_room, check_sees_all, is_of_backbone, own_tokenizer, positions_of
from recompress.models.tokenizer import plain_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
ONE_LABEL = "single_label_classification"
"""What a config calls one label of several, where it says anything of that."""
SHOWN = 8


def from_finetuned(
    directory: Path,
    benchmark: str,
    labels: Sequence[str],
    answering: Mapping[str, Any] | None = None,
    longest: int | None = None,
    say: Callable[[str], None] = log.warning,
) -> Checkpoint:
    """The model of a directory of transformers or of this project, for data with these ``labels`` (in any order; none for language modelling). ``answering`` are dials of
    the benchmark that it is to be measured and served with, where somebody said some; ``longest`` makes its longest sequence shorter, in tokens. ``say`` is
    told what of its file is left aside, because no answer depends on it.

    Raises ``InputError`` for a model that was made for something else, without a trained head, or with other labels than the data, and ``IntegrityError`` for broken files.
    """
    check_whole(directory, f"model {directory}")
    if (directory / INFO_FILE).is_file():
        checkpoint = load(directory)
        if checkpoint.info.benchmark != benchmark and head_of(benchmark).pretrained and head_of(checkpoint.info.benchmark).pretrained:
            checkpoint.info = replace(checkpoint.info, benchmark=benchmark, answering={})  # a model of language, asked something else
        if checkpoint.info.benchmark != benchmark:
            raise InputError(f"model {directory} was made for {checkpoint.info.benchmark}, the data is for {benchmark}")
        if isinstance(checkpoint.network, Path):
            raise InputError(
                f"model {directory} is {WHAT[checkpoint.network.suffix]}, whose weights nothing compresses any more; a baseline is the model that it was made from, on the torch runtime"
            )
    else:
        checkpoint = _of_transformers(directory, benchmark, say)
    if answering:
        checkpoint.info = replace(checkpoint.info, answering=dict(answering))
    if head_of(benchmark).pretrained:  # labels stand in the prompt, where there are any
        checkpoint.info = replace(checkpoint.info, labels=tuple(labels) if head_of(benchmark).answer == "label" else ())
        labels = checkpoint.info.labels
    check_labels(checkpoint.info.labels, labels, str(directory))
    return checkpoint if longest is None else _shortened(checkpoint, longest, directory)


def _shortened(checkpoint: Checkpoint, longest: int, directory: Path) -> Checkpoint:
    if longest > checkpoint.info.max_length:
        raise InputError(
            f"max_length {longest:,} is more than the {checkpoint.info.max_length:,} tokens that model {directory} reads; leave it out, or make it shorter"
        )
    return replace(checkpoint, tokenizer=plain_tokenizer(checkpoint.tokenizer, longest), info=replace(checkpoint.info, max_length=longest))


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


def _of_transformers(directory: Path, benchmark: str, say: Callable[[str], None]) -> Checkpoint:
    config = read_config(directory)
    check_class(directory, config, benchmark)
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
    network = _read(directory, benchmark, say)
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


def class_of(config: PreTrainedConfig) -> str:
    """The class of the network that a config names; empty where it names none."""
    return str((getattr(config, "architectures", None) or [""])[0])


def check_class(directory: Path, config: PreTrainedConfig, benchmark: str) -> None:
    """Raises ``InputError`` where the config names a class with another head: some heads have tensors of the same names, and answer all the same."""
    named, wanted = class_of(config), head_of(benchmark).auto_class.removeprefix("AutoModel")
    problem = getattr(config, "problem_type", None)
    told = {name: head for name, head in HEADS.items() if named.endswith(head.auto_class.removeprefix("AutoModel"))}
    if told and not named.endswith(wanted):
        made_for = " or ".join(name for name, head in told.items() if (head.problem_type or ONE_LABEL) == (problem or ONE_LABEL))
        raise InputError(f"model {directory} was trained for {made_for or problem} ({named} in its config.json), the data is for {benchmark}")


def _read(directory: Path, benchmark: str, say: Callable[[str], None]) -> PreTrainedModel:
    """The network with its trained head. Raises ``InputError`` for what is missing in the file, and for what has no place in the network of its config; what the plain
    network of this architecture holds and the head does not ask for (a pooler) is left aside."""
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
    unasked = {name for name in map(str, loading["unexpected_keys"]) if name.endswith(CONSTANTS)}
    if unasked != loading["unexpected_keys"] and class_of(network.config).endswith(
        head_of(benchmark).auto_class.removeprefix("AutoModel")
    ):  # else the head may be another, that asks for it
        unasked |= loading["unexpected_keys"] & _of_plain_network(network)
    for kind, why in (
        ("missing_keys", "lacks"),
        ("mismatched_keys", "has another shape in its file than in its config:"),
        ("unexpected_keys", "holds, without a place for it,"),
    ):
        if names := sorted({str(name) for name in loading[kind]} - unasked):
            raise InputError(f"model {directory} {why} {_counted(names)}{_way_out(kind, names, network, benchmark)}")
    if learned := sorted(name for name in unasked if not name.endswith(CONSTANTS)):
        say(f"model {directory}: {_counted(learned)} left aside; {type(network).__name__} does not ask for it, so no answer depends on it")
    return network


def _of_plain_network(network: PreTrainedModel) -> set[str]:
    """What the network without a head would hold beside what stands below this head, as it is called in a file with the head."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        plain = AutoModel.from_config(network.config).state_dict().keys()
    return {f"{network.base_model_prefix}.{name}" for name in plain - network.base_model.state_dict().keys()}


def _counted(names: Sequence[str]) -> str:
    return f"{names[0]}{f' and {len(names) - 1} more tensors' * bool(names[1:])}"


def _way_out(kind: str, names: Sequence[str], network: PreTrainedModel, benchmark: str) -> str:
    """What somebody can do about tensors that are missing or have no place."""
    if kind == "missing_keys":
        return f"; a model that is fine-tuned for {benchmark} has all of it, one that is not goes under base:"
    if kind == "mismatched_keys":
        return "; bring the config.json that it was saved with"
    if any(is_of_backbone(name, network) for name in names):
        return "; its answers would be others without it: bring the config.json that it was saved with, or another model"
    named, auto = class_of(network.config), head_of(benchmark).auto_class
    if not named.endswith(auto.removeprefix("AutoModel")):
        return f"; where it is a {type(network).__name__} that does not ask for it, say so under architectures in its config.json"
    return f"; if a {named} answers without it, save it anew: {auto}.from_pretrained(FOLDER).save_pretrained(NEW)"


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:SHOWN])) + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")
