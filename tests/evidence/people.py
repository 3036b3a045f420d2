"""A project as its people see it: the commands over a ledger of their own, a registry that is a folder, and evidence that is at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from recompress.evidence import Dossier
from recompress.ledger import Ledger
from recompress.promotion import Promoter
from recompress.records import PromotionPlan
from tasks.people.bundle import NoEvidence
from tests.evidence.stories import Project as Stories
from tests.promotion.stage import FolderRegistry


class NoStore:
    """An MLflow that keeps nothing."""

    exists = False

    def __init__(self) -> None:
        self.client = SimpleNamespace(get_model_version=lambda model, version: SimpleNamespace(run_id=None))

    @contextmanager
    def refusing(self) -> Iterator[None]:
        yield

    def fetch(self, uri: str) -> Path:
        return Path(uri)


class People(Stories):
    """Promotions, and ``recompress`` over them."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root
        self.ledger = Ledger(root / "ledger" / "ledger.db", timeout=5)
        self.registry = FolderRegistry(root / "registry")
        self.promoter = Promoter(self.ledger, self.registry, "ada", lock_timeout=5)
        self.dossiers = {}
        (root / "dvc.yaml").write_text("stages: {}\n")

    def recall(self, _memory: Any, plan: PromotionPlan) -> Dossier:
        try:
            return self.dossiers[plan.digest]
        except KeyError:
            raise NoEvidence(f"the evidence for plan {plan.digest[:12]}… is not there") from None

    def call(self, *arguments: str, actor: str = "ada") -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        from flows.cli import main

        done = CliRunner().invoke(main, ["--root", str(self.root), *arguments], env={"RECOMPRESS_ACTOR": actor}, catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    def ask(self, *arguments: str, actor: str = "ada", code: int = 0) -> Any:
        """What a command says with ``--json``."""
        status, out, err = self.call(*arguments, "--json", actor=actor)
        assert status == code, (status, out, err)
        return json.loads(out)

    def refused(self, *arguments: str, code: int, actor: str = "ada") -> str:
        """The one line with which a command refuses, after it has changed nothing in the ledger and the registry."""
        before, champion = self.ledger.head(), self.registry.champion("ner")
        status, _, err = self.call(*arguments, actor=actor)
        assert status == code, (status, err)
        assert (self.ledger.head(), self.registry.champion("ner")) == (before, champion)
        [line] = [line for line in err.splitlines() if line.startswith("recompress: ")]
        assert "Traceback" not in err
        return line


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> People:
    """The commands, with MLflow's place taken by a folder."""
    import tasks.people.audit_queries
    import tasks.people.bundle
    import tasks.people.decide
    from tasks.running.project import Project

    people = People(tmp_path / "project")
    monkeypatch.setattr(Project, "registry", property(lambda self: people.registry))
    monkeypatch.setattr(Project, "store", property(lambda self: NoStore()))
    for module in (tasks.people.bundle, tasks.people.decide, tasks.people.audit_queries):
        monkeypatch.setattr(module, "recall_dossier", people.recall)
    return people
