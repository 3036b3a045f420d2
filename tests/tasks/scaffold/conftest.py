"""Somebody's tickets, a tiny base, and a folder of theirs; nothing of Recompress."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from tests.tiny import TOPIC_WORDS

WORDS = ("na", "ya", "kwa", "nyumba", "leo", "jana", "alikwenda")


def write_tickets(path: Path, count: int = 400) -> Path:
    """A CSV file as spreadsheets write it: quotes around fields with commas and line ends. The label follows from one word of each text."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "label"])
        for i in range(count):
            topic = draw.choice(list(TOPIC_WORDS))
            words = [*draw.choices(WORDS, k=draw.randint(3, 9)), TOPIC_WORDS[topic]]
            draw.shuffle(words)
            table.writerow([i, f"{' '.join(words)}, {i}" + '\n"kweli"' * (i % 20 == 0), topic])
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "somebody's folder"
    folder.mkdir()
    write_tickets(folder / "tickets.csv")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recompress.models.checkpoint import save
    from tests.tiny import tiny_checkpoint

    folder = tmp_path_factory.mktemp("models") / "base"
    save(tiny_checkpoint("text-classification"), folder)
    return folder
