"""What a teacher said, as students read it: one file, mapped into memory, that knows which examples and which teacher it belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from recompress.benchmarks import Example
from recompress.errors import IntegrityError
from recompress.integrity.digest import sha256_bytes, sha256_file

FILE = "outputs.safetensors"


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
                metadata, logits, offsets = file.metadata() or {}, file.get_tensor("logits").numpy(), file.get_tensor("offsets").numpy()
            outputs = cls(logits, offsets, tuple(json.loads(metadata["labels"])), metadata["examples"], metadata["teacher"], sha256_file(path))
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


def examples_sha256(examples: Iterable[Example]) -> str:
    """The digest of the text of examples, in order; labels and slices do not count."""
    return sha256_bytes(json.dumps([example.words for example in examples], ensure_ascii=False).encode())
