"""A teacher that is asked while the student learns: its network, what goes on inside it, and its tokens by the student's numbers.

Only the same tokens can be compared one by one. A student whose vocabulary was trimmed still has the teacher's tokens, under other numbers; a student with a
tokenizer of another kind has not, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recompress.benchmarks import Example, benchmark_of
from recompress.errors import InputError
from recompress.methods.distillation.losses import columns
from recompress.models.checkpoint import Checkpoint, load, read_info
from recompress.models.heads import head_of
from recompress.models.padding import padding_of
from recompress.runtimes.asking import logits_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLE = 64
"""Examples on which two tokenizers are compared."""


@dataclass(frozen=True)
class LiveTeacher:
    """A network that answers and never changes."""

    network: PreTrainedModel
    numbers: Int[Tensor, " tokens"] | None
    """For each token of the student its number in the teacher; ``None`` where they are the same."""
    answers_tokens: bool
    """Whether its answers are next tokens, and no labels."""

    def ask(self, batch: dict[str, Tensor]) -> Float[Tensor, "batch length labels"] | Float[Tensor, "batch labels"]:
        """The teacher's logits for a batch of the student's. For language modelling they are in the order of the student's tokens."""
        given = batch["input_ids"]
        if self.network.device != given.device:
            self.network.to(given.device)
        if self.numbers is not None:
            given = self.numbers.to(given.device)[given]
        given = given.masked_fill(batch["attention_mask"] == 0, padding_of(self.network))  # its own, whatever the student's batches are filled up with
        with torch.no_grad():
            logits = logits_of(self.network, batch | {"input_ids": given})
        return columns(logits, self.numbers) if self.answers_tokens else logits


def open_teacher(directory: Path) -> Checkpoint:
    """The teacher's model. Raises ``InputError`` for one that is not on the torch runtime, whose inside cannot be seen."""
    runtime = read_info(directory).runtime
    if runtime != "torch":
        raise InputError(
            f"the teacher {directory} runs on {runtime}, where nobody can look inside while a student learns; give the torch model that it came from"
        )
    return load(directory)


def live_teacher(teacher: Checkpoint, student: Checkpoint) -> LiveTeacher:
    """The teacher, ready to be asked about the student's batches; see ``check_comparable``."""
    numbers = numbers_of(student.tokenizer, teacher.tokenizer)
    rows = [checkpoint.torch_network.config.vocab_size for checkpoint in (student, teacher)]
    same = rows[0] == rows[1] and bool((numbers == torch.arange(len(numbers))).all())
    network = teacher.torch_network.eval()
    network.requires_grad_(False)
    if getattr(network.config, "use_cache", None):
        network.config.use_cache = False
    return LiveTeacher(network, None if same else numbers, head_of(student.info.benchmark).pretrained)


def check_comparable(teacher: Checkpoint, student: Checkpoint, examples: Sequence[Example]) -> None:
    """Raises ``InputError`` when the two have not the same tokens, labels or length, so that they cannot be compared token by token."""
    if teacher.info.benchmark != student.info.benchmark or teacher.info.labels != student.info.labels:
        raise InputError(
            f"the teacher was made for {teacher.info.benchmark} with the labels {', '.join(teacher.info.labels) or 'none'}, "
            f"the student for {student.info.benchmark} with {', '.join(student.info.labels) or 'none'}; they must be the same"
        )
    if teacher.info.max_length < student.info.max_length:
        raise InputError(f"the student reads {student.info.max_length} tokens, the teacher only {teacher.info.max_length}; they must see the same text")
    numbers_of(student.tokenizer, teacher.tokenizer)
    _check_same_cut(student, teacher, examples[:SAMPLE])


def numbers_of(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> Int[Tensor, " tokens"]:
    """For each token of the student, by its number, the number that the teacher has for it. Raises ``InputError`` for a token that it does not have."""
    mine, its = student.get_vocab(), teacher.get_vocab()
    foreign = sorted(mine.keys() - its.keys())
    if foreign:
        raise InputError(
            f"the teacher's tokenizer is another: it lacks {len(foreign):,} of the student's {len(mine):,} tokens ({foreign[0]!r} for one); "
            "set hidden, embeddings and attention to 0, or give the student the teacher's tokenizer"
        )
    table = torch.zeros(max(mine.values()) + 1, dtype=torch.long)
    for token, number in mine.items():
        table[number] = its[token]
    return table


def _check_same_cut(student: Checkpoint, teacher: Checkpoint, examples: Sequence[Example]) -> None:
    """Texts whose tokens both know are cut into the same ones; a text with a token that was trimmed away may be cut otherwise."""
    benchmark, known = benchmark_of(student.info), student.tokenizer.get_vocab()
    cuts = []
    for checkpoint in (teacher, student):
        features = benchmark.encode(checkpoint.tokenizer, examples, checkpoint.info.labels, student.info.max_length)
        cuts.append([checkpoint.tokenizer.convert_ids_to_tokens(feature["input_ids"]) for feature in features])
    for its, mine in zip(*cuts, strict=True):
        if its != mine and all(token in known for token in its):
            raise InputError(
                f"the teacher's tokenizer is another: it cuts a text into {' '.join(its[:6])!r}…, the student's into {' '.join(mine[:6])!r}…; "
                "set hidden, embeddings and attention to 0, or give the student the teacher's tokenizer"
            )
