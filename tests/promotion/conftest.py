from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recompress.ledger import Ledger
from recompress.promotion import Promoter
from tests.ledger.stores import where  # noqa: F401
from tests.promotion.stage import FolderRegistry


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def wait(self, hours: float) -> None:
        self.now += timedelta(hours=hours)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return Ledger(tmp_path / "ledger.db", timeout=5, clock=clock)


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "registry")


@pytest.fixture
def promoter(ledger: Ledger, registry: FolderRegistry) -> Promoter:
    return Promoter(ledger, registry, "ada", lock_timeout=5)
