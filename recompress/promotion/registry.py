"""What a promotion needs of a model registry. MLflow answers to it; so does a folder, in the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from recompress.records import PromotionPlan

PLAN_TAG = "recompress.plan"
"""Digest of the plan that a version was made for."""
MODEL_TAG = "recompress.model_sha256"
"""Digest of the model directory inside."""
MANIFEST_TAG = "recompress.manifest_sha256"
"""Digest of all of the version's files."""
HEAD_TAG = "recompress.ledger_head"
"""The ledger's head when the version was last promoted: an anchor outside the ledger."""


def tags_of(plan: PromotionPlan) -> dict[str, str]:
    """What the tags of the version that is made for a plan say, as long as nobody changes them; ``MANIFEST_TAG`` and ``HEAD_TAG`` come besides."""
    tags = {PLAN_TAG: plan.digest, MODEL_TAG: plan.model_sha256, "recompress.candidate": plan.candidate}
    tags |= {"recompress.verdict_sha256": str(plan.verdict_sha256), "recompress.policy_sha256": str(plan.policy_sha256)}
    tags |= {f"recompress.{name}_sha256": digest for name, digest in plan.digests.items()}
    return tags | {f"recompress.{name}": value for name, value in plan.facts.items() if f"recompress.{name}" not in {*tags, HEAD_TAG, MANIFEST_TAG}}


def unannounced(_manifest_sha256: str) -> None:
    """Nobody is told of an upload before it begins."""


class ModelRegistry(Protocol):
    """Versions of models, each a folder with a manifest and tags, and one alias that says which is in production.

    Whoever calls ``move_champion`` holds the ledger's lock. Every method raises ``StorageError`` when the registry does not answer.
    """

    @property
    def shared(self) -> bool:
        """Whether other projects, with ledgers of their own, may keep models here as well."""

    def heads(self) -> dict[tuple[str, str], str]:
        """What ``HEAD_TAG`` says on every version that has it, by model and version. A registry that does not exist yet has none, and is not made."""

    def champion(self, model: str) -> str | None:
        """The version that the alias names, or ``None``."""

    def create_version(self, model: str, directory: Path, tags: Mapping[str, str], announce: Callable[[str], None] = unannounced) -> str:
        """Upload a model directory with what serves it, the manifest last, and give the new version. It has all ``tags`` and ``MANIFEST_TAG``.

        ``announce`` gets the manifest's digest before anything is uploaded."""

    def find_version(self, model: str, plan: str) -> str | None:
        """The version that was made for a plan."""

    def tags(self, model: str, version: str) -> dict[str, str] | None:
        """A version's tags; ``None`` when there is no such version."""

    def versions(self, model: str) -> list[str]:
        """Every version of a model, whoever made it, oldest first."""

    def rows(self, model: str, version: str) -> dict[str, str]:
        """Where the registry says that a version's files lie and which run made it: what leads to its bytes without being part of them."""

    def set_tag(self, model: str, version: str, name: str, value: str) -> None: ...

    def fetch(self, model: str, version: str) -> Path:
        """A version's files as a folder to read. Raises ``IntegrityError`` when they are not there."""

    def move_champion(self, model: str, version: str | None) -> None:
        """Let the alias name ``version``, or nothing."""
