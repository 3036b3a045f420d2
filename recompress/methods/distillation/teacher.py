"""What a teacher says: its logits for every unit (word or text) of every example, computed once for all students and kept in one file.

Logits belong to units, not to tokens, so that a student with another tokenizer or vocabulary learns from the same file. A row of zeros stands for a unit that
the teacher never saw, because truncation cut it off; students learn nothing from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from recompress.benchmarks import Benchmark, Example, InWindows, benchmark_of
from recompress.errors import DataRefused, InputError, IntegrityError
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.digest import sha256_directory
from recompress.progress import bar
from recompress.training.teacher_outputs import FILE, TeacherOutputs, examples_sha256

if TYPE_CHECKING:
    from recompress.models.checkpoint import Checkpoint


def teacher_outputs(teacher: Path, examples: Sequence[Example], directory: Path) -> TeacherOutputs:
    """Ask the model in ``teacher`` about every example, in bfloat16 where that is faster, and keep its answers in a new ``directory``.

    Where ``directory`` already holds this teacher's answers to these examples, they are used. Raises ``DataRefused`` without examples, ``InputError`` for a
    teacher of language, ``IntegrityError`` for logits that are not finite, and what ``recompress.models.checkpoint.load`` and ``new_directory`` raise.
    """
    from safetensors.numpy import save_file

    from recompress.models.checkpoint import load

    if not examples:
        raise DataRefused("there is no text to ask the teacher about")
    metadata = {"teacher": sha256_directory(teacher), "examples": examples_sha256(examples)}
    if directory.exists():
        there = TeacherOutputs.load(directory)
        if (there.teacher_sha256, there.examples_sha256) == (metadata["teacher"], metadata["examples"]):
            return there
    checkpoint = load(teacher)
    benchmark = benchmark_of(checkpoint.info)
    if benchmark.head.pretrained:
        raise InputError(f"the teacher {teacher} gives a vocabulary of answers for each token, too much to be kept; let it be asked while the student learns")
    rows = unit_logits(checkpoint, benchmark, examples)
    logits = np.concatenate(rows)
    if not np.isfinite(logits).all():
        raise IntegrityError(f"the teacher {teacher} gives logits that are not finite for {sum(not np.isfinite(row).all() for row in rows)} examples")
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    with new_directory(directory) as partial:
        save_file({"logits": logits, "offsets": offsets}, partial / FILE, metadata={**metadata, "labels": json.dumps(checkpoint.info.labels)})
    return TeacherOutputs.load(directory)


def unit_logits(checkpoint: Checkpoint, benchmark: Benchmark, examples: Sequence[Example]) -> list[Float[np.ndarray, "units labels"]]:
    """The logits of each unit of each example, 32-bit, from the network in memory, on the GPU where there is one."""
    import torch

    from recompress.models.padding import padding_of
    from recompress.runtimes.asking import logits_of
    from recompress.runtimes.batches import answer
    from recompress.training.precision import choose_precision

    network, info = checkpoint.torch_network.eval(), checkpoint.info
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    use_bf16 = choose_precision("auto") == "bf16" and benchmark.head.answer != "number"  # whose unit may need more than 8 bits
    features = benchmark.encode(checkpoint.tokenizer, examples, info.labels, info.max_length)
    progress = bar("teacher", len(features), "example")

    def ask(batch: dict[str, Any]) -> Float[np.ndarray, "batch ..."]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            logits = logits_of(network, {name: torch.from_numpy(rows).to(device) for name, rows in batch.items()})
        progress.update(len(logits))
        answers: Float[np.ndarray, "batch ..."] = logits.float().cpu().numpy()
        return answers

    with progress:
        network.to(device)
        try:
            answers = answer(features, ask, padding_of(network))
        finally:
            network.to("cpu")
    rows = [np.ascontiguousarray(benchmark.unit_logits(logits, feature)) for logits, feature in zip(answers, features, strict=True)]
    return benchmark.by_example(rows, features, examples) if isinstance(benchmark, InWindows) else rows


def unlabelled_examples(texts: Iterable[str], benchmark: Benchmark) -> list[Example]:
    """Plain text as examples without labels, split as ``benchmark`` splits it. Text without a word is left out."""
    split = (benchmark.split(text.strip()) for text in texts)
    return [Example(words) for words in split if any(words)]
