"""A project as its people use it: its ledger, its store, its registry, and who is acting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.errors import InputError
from recompress.ledger import Ledger
from recompress.promotion import ModelRegistry, Promoter
from tasks.ledger.access import actor, open_ledger
from tasks.ledger.anchors import check_alias, sound_ledger
from tasks.tracking.memory import Memory
from tasks.tracking.reading import means_alias
from tasks.tracking.track import Store

if TYPE_CHECKING:
    from tasks.running.recompression import Recompression


@dataclass(frozen=True)
class Project:
    """Everything is opened when it is first asked for, so that a question of the ledger alone needs no registry."""

    root: Path

    @classmethod
    def of(cls, run: Recompression) -> Project:
        """The project of a recompression that runs, with what it has open."""
        project = cls(run.root)
        project.__dict__.update(ledger=run.ledger, store=run.store)
        return project

    @cached_property
    def ledger(self) -> Ledger:
        """Verified. Raises ``InputError`` when there is none yet: people ask and decide about what was recorded, they do not begin it."""
        return sound_ledger(self.root, self.registry) or open_ledger(self.root, create=False)

    @cached_property
    def beginning(self) -> Ledger:
        """The same, made where there is none yet: what is pinned for a model may be its first record."""
        return sound_ledger(self.root, self.registry) or open_ledger(self.root)

    @cached_property
    def store(self) -> Store:
        return Store(self.root)

    @property
    def memory(self) -> Memory:
        """The steps that were finished, as far as the ledger knows them."""
        return Memory(self.store, self.ledger)

    @cached_property
    def registry(self) -> ModelRegistry:
        from tasks.tracking.registry import open_registry

        return open_registry(self.store)

    @property
    def evidence(self) -> Path:
        """Where the bundles lie."""
        return self.root / "evidence"

    @property
    def promoter(self) -> Promoter:
        return Promoter(self.ledger, self.registry, actor())

    def resolve(self, reference: str) -> tuple[str, str]:
        """Model and version that ``name@champion``, ``name@3``, ``name/3`` or ``name`` means. Raises ``InputError``, and ``IntegrityError`` for an alias that is gone."""
        name, _, version = reference.replace("/", "@", 1).partition("@")
        if means_alias(reference):
            champion = self.registry.champion(name)
            if champion is None:
                check_alias(self.ledger, self.registry, name)
                raise InputError(f"there is no champion of {name!r}; `recompress audit log` shows what was ever promoted")
            return name, champion
        if not (version.isascii() and version.isdigit()):
            raise InputError(f"{reference!r} names no version; write name@champion or name@3")
        return name, version
