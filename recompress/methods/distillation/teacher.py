"""What a teacher says: its logits for every unit (word or text) of every example, computed once for all students and kept in one file.

Logits belong to units, not to tokens, so that a student with another tokenizer or vocabulary learns from the same file. A row of zeros stands for a unit that
the teacher never saw, because truncation cut it off; students learn nothing from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from recompress.benchmarks import Benchmark, Example, get_benchmark
from recompress.errors import DataRefused, InputError, IntegrityError
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.digest import sha256_bytes, sha256_directory, sha256_file
from recompress.progress import bar

if TYPE_CHECKING:
    from recompress.models.checkpoint import Checkpoint

FILE = "outputs.safetensors"
BATCH_SIZE = 32


@dataclass(frozen=True)
class TeacherOutputs:
    """The logits of all units one after the other, and where each example's begin. Read from disk as they are used, not before."""

    logits: Float[np.ndarray, "units labels"]
    offsets: Int[np.ndarray, " examples_and_1"]
    labels: tuple[str, ...]
    examples_sha256: str
    teacher_sha256: str
    sha256: str
    """The digest of the file."""

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.offsets) - 1

    def __getitem__(self, example: int) -> Float[np.ndarray, "units labels"]:
        return self.logits[self.offsets[example] : self.offsets[example + 1]]

    @classmethod
    def load(cls, directory: Path) -> TeacherOutputs:
        """Map the file of ``teacher_outputs`` into memory. Raises ``IntegrityError`` when it is missing or broken."""
        from safetensors import SafetensorError, safe_open

        path = directory / FILE
        try:
            with safe_open(path, framework="pt") as file:
                said, logits, offsets = file.metadata() or {}, file.get_tensor("logits").numpy(), file.get_tensor("offsets").numpy()
            outputs = cls(logits, offsets, tuple(json.loads(said["labels"])), said["examples"], said["teacher"], sha256_file(path))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise IntegrityError(f"{path} cannot be read as teacher outputs ({type(error).__name__}: {error}); remove it, and it is made again") from None
        fits = logits.ndim == 2 and logits.shape[1] == len(outputs.labels) and offsets.ndim == 1 and offsets[0] == 0 and offsets[-1] == len(logits)
        if not fits or (np.diff(offsets) < 0).any():
            raise IntegrityError(f"{path} is broken: {len(outputs)} examples, logits {logits.shape} for {len(outputs.labels)} labels")
        return outputs

    def check_belongs_to(self, examples: Sequence[Example], labels: Sequence[str]) -> None:
        """Raises ``IntegrityError`` when these outputs were made for other examples, another order, or other labels."""
        if self.labels != tuple(labels):
            raise IntegrityError(f"the teacher knows the labels {', '.join(self.labels)}, the student {', '.join(labels)}")
        if self.examples_sha256 != examples_sha256(examples):
            raise IntegrityError(f"the teacher's outputs are for {len(self):,} other examples than the {len(examples):,} at hand; make them again")


def teacher_outputs(teacher: Path, examples: Sequence[Example], directory: Path) -> TeacherOutputs:
    """Ask the model in ``teacher`` about every example, in bfloat16 where that is faster, and keep its answers in a new ``directory``.

    Where ``directory`` already holds this teacher's answers to these examples, they are used. Raises ``DataRefused`` without examples, ``InputError`` for a
    teacher of language, ``IntegrityError`` for logits that are not finite, and what ``recompress.models.checkpoint.load`` and ``new_directory`` raise.
    """
    from safetensors.numpy import save_file

    from recompress.models.checkpoint import load

    if not examples:
        raise DataRefused("there is no text to ask the teacher about")
    said = {"teacher": sha256_directory(teacher), "examples": examples_sha256(examples)}
    if directory.exists():
        there = TeacherOutputs.load(directory)
        if (there.teacher_sha256, there.examples_sha256) == (said["teacher"], said["examples"]):
            return there
    checkpoint = load(teacher)
    benchmark = get_benchmark(checkpoint.info.benchmark)
    if benchmark.pretrained_head:
        raise InputError(f"the teacher {teacher} gives a vocabulary of answers for each token, too much to be kept; let it be asked while the student learns")
    rows = unit_logits(checkpoint, benchmark, examples)
    logits = np.concatenate(rows)
    if not np.isfinite(logits).all():
        raise IntegrityError(f"the teacher {teacher} gives logits that are not finite for {sum(not np.isfinite(row).all() for row in rows)} examples")
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    with new_directory(directory) as partial:
        save_file({"logits": logits, "offsets": offsets}, partial / FILE, metadata={**said, "labels": json.dumps(checkpoint.info.labels)})
    return TeacherOutputs.load(directory)


def unit_logits(checkpoint: Checkpoint, benchmark: Benchmark, examples: Sequence[Example]) -> list[Float[np.ndarray, "units labels"]]:
    """The logits of each unit of each example, 32-bit, from the network in memory, on the GPU where there is one."""
    import torch

    from recompress.runtimes.batches import answer
    from recompress.training.precision import choose_precision

    network, info = checkpoint.torch_network.eval(), checkpoint.info
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    use_bf16 = choose_precision("auto") == "bf16"
    features = benchmark.encode(checkpoint.tokenizer, examples, info.labels, info.max_length)
    progress = bar("teacher", len(features), "example")

    def ask(batch: dict[str, Any]) -> Float[np.ndarray, "batch ..."]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            logits = network(**{name: torch.from_numpy(rows).to(device) for name, rows in batch.items()}).logits
        progress.update(len(logits))
        answers: Float[np.ndarray, "batch ..."] = logits.float().cpu().numpy()
        return answers

    with progress:
        network.to(device)
        try:
            answers = answer(features, ask, checkpoint.tokenizer.pad_token_id or 0, BATCH_SIZE)
        finally:
            network.to("cpu")
    return [np.ascontiguousarray(benchmark.unit_logits(logits, feature)) for logits, feature in zip(answers, features, strict=True)]


def examples_sha256(examples: Iterable[Example]) -> str:
    """The digest of the text of examples, in order; labels and slices do not count."""
    return sha256_bytes(json.dumps([example.words for example in examples], ensure_ascii=False).encode())


def unlabelled_examples(texts: Iterable[str], benchmark: Benchmark) -> list[Example]:
    """Plain text as examples without labels, split as ``benchmark`` splits it. Text without a word is left out."""
    split = (benchmark.split(text.strip()) for text in texts)
    return [Example(words) for words in split if any(words)]
