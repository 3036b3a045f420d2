"""What a measuring process is asked, and how it answers: JSON in one file, JSON in another. A fresh process has measured nothing before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt

from recompress.errors import RecompressError
from recompress.runtimes import Feature, Runtime, open_runtime

SECONDS = 1800
"""A process that takes longer hangs."""


class Request(BaseModel):
    """Which models to measure, and with which questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directories: tuple[Path, ...]
    features: tuple[tuple[Feature, ...], ...]
    """For each model the same examples, as its own tokenizer encodes them."""
    threads: PositiveInt
    rounds: PositiveInt
    """Timed rounds in a block."""
    most: PositiveInt = 1
    """Blocks that may be added while the machine is not steady, the first included."""
    batch_rounds: PositiveInt | None = None
    """Rounds of batches in a block; half as many as of single texts when left out."""
    cold_rounds: PositiveInt | None = None
    """Rounds with cold caches in a block; half as many as of single texts when left out."""
    writing_rounds: PositiveInt | None = None
    """Rounds of writing; a few when left out."""
    batch_size: PositiveInt
    batches: PositiveInt


def ask(module: str, request: Request, folder: Path) -> Any:
    """Let ``python -m module`` answer in a process of its own. Raises ``RecompressError`` with its last words when it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    asked, answered = folder / "request.json", folder / "answer.json"
    asked.write_text(request.model_dump_json())
    answered.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, str(asked), str(answered)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, timeout=SECONDS)
    if done.returncode or not answered.is_file():
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise RecompressError(f"{module} ended with code {done.returncode}: {words[-1].strip()}")
    return json.loads(answered.read_text())


def reply(answer: Callable[[Request], Any]) -> None:
    """The other end of ``ask``."""
    asked, answered = map(Path, sys.argv[1:])
    answered.write_text(json.dumps(answer(Request.model_validate_json(asked.read_text()))))


def open_all(request: Request) -> list[Runtime]:
    """The runtimes of all models, and torch held to their number of threads for good, where one of them brought it."""
    runtimes = [open_runtime(directory, request.threads) for directory in request.directories]
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(request.threads)
    return runtimes


def batch_of(features: Sequence[Feature], start: int, size: int) -> list[Feature]:
    """Batch number ``start``; beyond the last example the first ones come again."""
    return [features[(start * size + i) % len(features)] for i in range(size)]
