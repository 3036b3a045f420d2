"""What a promotion does to the registry, and in which order: intent, move, check, commit, anchor; or undo.

``crash_point(name)`` is called between any two steps. In production it does nothing; the tests kill the process there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from recompress.errors import IntegrityError
from recompress.integrity.digest import check_directory
from recompress.integrity.model_files import MODEL_FOLDER, check_version, mend_manifest
from recompress.ledger import Entry, Head, Ledger, Lock
from recompress.promotion.registry import HEAD_TAG, MODEL_TAG, ModelRegistry
from recompress.promotion.states import Progress, PromotionRefused, refuse, step
from recompress.records import ChampionRef

CrashPoint = Callable[[str], None]
log = logging.getLogger(__name__)

_BOTH = (
    "proposed",
    "judged",
    "lock-taken",
    "cleared",
    "files-checked",
    "intent-written",
    "alias-moved",
    "move-recorded",
    "files-checked-again",
    "check-recorded",
    "committed",
    "anchored",
)
CRASH_POINTS = (
    *(f"promotion:{name}" for name in _BOTH),
    "promotion:version-made",
    *(f"rollback:{name}" for name in _BOTH),
)
"""Where every promotion and every rollback passes."""
UNDO_POINTS = tuple(f"{kind}:{name}" for kind in ("promotion", "rollback") for name in ("undo-written", "alias-moved-back", "undo-recorded"))
"""Where they pass when the files behind the alias turn out to be bad after the move."""


def no_crash(_name: str) -> None:
    pass


@dataclass(frozen=True)
class Effects:
    """The hands of a promoter. Whoever uses them holds the ledger's lock."""

    ledger: Ledger
    registry: ModelRegistry
    lock: Lock
    actor: str
    crash_point: CrashPoint = no_crash

    def at(self, progress: Progress, name: str) -> None:
        self.crash_point(f"{progress.plan.kind}:{name}")

    def check_files(self, progress: Progress, version: str, manifest_sha256: str) -> None:
        """Raises ``IntegrityError`` when the version's files are not what the plan and its manifest say."""
        directory = self.registry.fetch(progress.plan.model, version)
        if not self.registry.shared and mend_manifest(directory, manifest_sha256):  # of a shared one, what was fetched is a copy
            log.warning("the manifest of version %s of %s was cut short; its files are whole, and it is written anew from them", version, progress.plan.model)
        try:
            check_version(directory, manifest_sha256)
            check_directory(directory / MODEL_FOLDER, progress.plan.model_sha256)
        except IntegrityError as error:
            raise IntegrityError(f"version {version} of {progress.plan.model}: {error}") from None

    def carry_out(self, progress: Progress, version: str, manifest_sha256: str) -> Progress:
        """From approved to committed."""
        expected = progress.plan.expected
        approval = progress.latest("approval", "promotion-approved")
        body = {
            "version": version,
            "expected": expected.as_json() if expected else None,
            "manifest_sha256": manifest_sha256,
            "model_sha256": progress.plan.model_sha256,
            "approval": approval.hash if approval else None,
            "rows": self.registry.rows(progress.plan.model, version),
        }
        progress = step(self.ledger, progress, "promotion-intent", body, actor=self.actor)
        self.at(progress, "intent-written")
        self.lock.check()
        self.registry.move_champion(progress.plan.model, version)
        self.at(progress, "alias-moved")
        return self.finish(progress)

    def finish(self, progress: Progress) -> Progress:
        """The alias has been moved: record it, hash the files behind it again, and commit; or move it back."""
        intent = progress.said("promotion-intent")
        version, manifest = intent["version"], intent["manifest_sha256"]
        if progress.state == "intent":
            progress = step(self.ledger, progress, "promotion-alias-moved", {"version": version}, actor=self.actor)
            self.at(progress, "move-recorded")
        if progress.state in ("alias-moved", "verified"):
            try:
                self.check_files(progress, version, manifest)
            except IntegrityError as error:
                self.undo(progress, str(error))
                raise IntegrityError(f"the alias was moved back to where it was, because of what it led to: {error}") from None
            self.at(progress, "files-checked-again")
        if progress.state == "alias-moved":
            progress = step(self.ledger, progress, "promotion-verified", {"version": version, "manifest_sha256": manifest}, actor=self.actor)
            self.at(progress, "check-recorded")
        body = {"version": version, "manifest_sha256": manifest, "model_sha256": progress.plan.model_sha256}
        progress = step(self.ledger, progress, "promotion-committed", body, actor=self.actor)
        self.at(progress, "committed")
        self.anchor(progress)
        self.at(progress, "anchored")
        return progress

    def anchor(self, progress: Progress) -> None:
        """Leave the ledger's head on the version, where nobody who cuts the ledger's tail will find it. Doing it twice is doing it once."""
        committed = progress.entries[-1]
        version = progress.said("promotion-intent")["version"]
        tags = self.registry.tags(progress.plan.model, version)
        if tags is None:  # somebody deleted it; ``note_outside_move`` will say so
            return
        tag = tags.get(HEAD_TAG)
        if tag is None or Head.parse(tag).sequence < committed.sequence:
            self.registry.set_tag(progress.plan.model, version, HEAD_TAG, str(committed.head))

    def undo(self, progress: Progress, reason: str) -> Progress:
        """Move the alias back."""
        if progress.state != "undoing":
            progress = step(
                self.ledger, progress, "promotion-undo", {"reason": reason, "expected": progress.said("promotion-intent")["expected"]}, actor=self.actor
            )
            self.at(progress, "undo-written")
        self.lock.check()
        self.registry.move_champion(progress.plan.model, self.way_back(progress))
        self.at(progress, "alias-moved-back")
        return self.record_undone(progress)

    def way_back(self, progress: Progress) -> str | None:
        """The champion to go back to. Where that version was deleted in between: none, because no champion is better than a bad one."""
        expected = progress.plan.expected
        return expected.version if expected and self.registry.tags(progress.plan.model, expected.version) is not None else None

    def record_undone(self, progress: Progress) -> Progress:
        progress = step(self.ledger, progress, "promotion-rolled-back", {"champion": self.way_back(progress)}, actor=self.actor)
        self.at(progress, "undo-recorded")
        return progress

    def note_outside_move(self, model: str, *, moved_to: str | None = None) -> Entry | None:
        """Compare the registry with the ledger, and record an alias that was moved behind its back. ``moved_to``: where an unfinished promotion had moved it."""
        champion, known = self.registry.champion(model), moved_to or champion_by_ledger(self.ledger, model)
        if champion == known:
            return None
        return self.ledger.append("alias-moved-outside", {"model": model, "ledger": known, "registry": champion}, actor=self.actor)

    def refuse(self, progress: Progress, reason: str, detail: str) -> PromotionRefused:
        return refuse(self.ledger, progress, reason, detail, actor=self.actor)


def champion_by_ledger(ledger: Ledger, model: str) -> str | None:
    """The version that the alias should name: what was committed last, or found there last when somebody else had moved it."""
    last = ledger.last("promotion-committed", "alias-moved-outside", model=model)
    if last is None:
        return None
    version: str | None = last.body["version"] if last.kind == "promotion-committed" else last.body["registry"]
    return version


def present_champion(registry: ModelRegistry, model: str) -> ChampionRef | None:
    """The version that the alias names, with the digest of its model as its tag says."""
    version = registry.champion(model)
    if version is None:
        return None
    return ChampionRef(version=version, model_sha256=(registry.tags(model, version) or {}).get(MODEL_TAG))
