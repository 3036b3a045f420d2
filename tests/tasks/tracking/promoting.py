"""A project over the real MLflow, and models to promote there."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.ledger import Ledger
from recompress.models.checkpoint import save
from recompress.promotion import Promoted, Promoter, present_champion
from tasks.tracking.registry import MlflowRegistry
from tasks.tracking.track import Store
from tests.promotion.stage import make_plan
from tests.tiny import tiny_checkpoint

MODEL = "ner"


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("candidates")
    for seed in range(3):
        save(tiny_checkpoint("text-classification", seed=seed), root / str(seed))
    return [root / str(seed) for seed in range(3)]


class Project:
    """A folder with a store and a ledger."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)
        self.registry = MlflowRegistry(self.store)
        (root / "ledger").mkdir(exist_ok=True)
        self.ledger = Ledger(root / "ledger" / "ledger.db")
        self.promoter = Promoter(self.ledger, self.registry, "ada", lock_timeout=30)

    def promote(self, directory: Path) -> Promoted:
        plan, verdict = make_plan(directory, present_champion(self.registry, MODEL))
        return self.promoter.promote(self.promoter.propose(plan, verdict).digest, directory)
