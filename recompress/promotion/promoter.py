"""Promote, roll back, recover: the one place that moves the alias ``champion``.

Everything happens under the ledger's lock. The first thing done there is to take up what a killed process left behind, the second to compare the registry
with the ledger, the third to compare the champion with the one that the verdict was made against.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from recompress.errors import GateRefused, InputError, IntegrityError, StorageError
from recompress.integrity.digest import check_directory
from recompress.integrity.model_files import check_model_directory, cut_file, mend_manifest
from recompress.ledger import Entry, Head, Ledger
from recompress.promotion.approvals import check_reason, clear
from recompress.promotion.decisions import judge, named, propose
from recompress.promotion.effects import CrashPoint, Effects, no_crash, present_champion
from recompress.promotion.pins import FACT, hold, standing, tightened
from recompress.promotion.recovery import recover
from recompress.promotion.registry import HEAD_TAG, MANIFEST_TAG, MODEL_TAG, PLAN_TAG, ModelRegistry, tags_of
from recompress.promotion.rollback import judge_rollback, rollback_plan
from recompress.promotion.states import Progress, progress_of
from recompress.records import ApprovalRule, ChampionRef, PromotionPlan, Verdict

log = logging.getLogger(__name__)
UPLOADING = "version-uploading"


class Promoted(NamedTuple):
    """A promotion that holds."""

    model: str
    version: str
    plan: str
    """Digest of the plan."""
    head: Head
    """The ledger's head at its last record."""


@dataclass(frozen=True)
class Promoter:
    """Moves the alias of one registry by the records of one ledger. ``lock_timeout`` is in seconds."""

    ledger: Ledger
    registry: ModelRegistry
    actor: str
    lock_timeout: float = 120.0
    crash_point: CrashPoint = no_crash

    def propose(self, plan: PromotionPlan, verdict: Verdict, *, again: bool = False) -> Progress:
        """Record a plan with its verdict, or find them. Raises ``PromotionRefused`` when the verdict does not carry the plan."""
        self.ledger.verify(anchors=self._anchors(plan.model))
        progress = propose(self.ledger, plan, again=again)
        self.crash_point(f"{plan.kind}:proposed")
        progress = judge(self.ledger, progress.digest, verdict, actor=self.actor)
        self.crash_point(f"{plan.kind}:judged")
        return progress

    def promote(self, digest: str, directory: Path | None = None) -> Promoted:
        """Carry out a plan; ``directory`` is the candidate's model directory. A plan that is carried out already is left alone.

        Raises ``ApprovalPending`` while a person has to decide, ``PromotionRefused`` and ``GateRefused`` with a reason, ``IntegrityError`` for files, approvals
        or records that are not what they were, and ``StorageError`` when the ledger is held or the registry does not answer. The champion is then the old one,
        or the next call finishes or undoes what was begun.
        """
        plan = named(self.ledger, digest).plan
        with self._held(plan.model, plan.kind) as (effects, _):
            progress = progress_of(self.ledger, digest)
            if progress.state == "committed":
                done = self._still(progress)
                effects.check_files(progress, done.version, progress.said("promotion-committed")["manifest_sha256"])
                return done
            progress = clear(self.ledger, progress, actor=self.actor)
            effects.at(progress, "cleared")
            self._check_champion(effects, progress)
            against = hold(self.ledger, progress.plan)
            if against is not None:
                raise effects.refuse(progress, *against)
            version, manifest = self._version(effects, progress, directory)
            progress = clear(self.ledger, progress, actor=self.actor)  # an upload takes its time, in which an approval may run out
            effects.at(progress, "files-checked")
            try:
                return self._done(effects.carry_out(progress, version, manifest))
            except StorageError as error:
                raise StorageError(f"{error}; the promotion was begun, and the next one finishes or undoes it") from None

    def rollback(self, model: str, *, reason: str, to: str | None = None, rule: ApprovalRule | None = None) -> Promoted:
        """Make an earlier champion champion again: the one that the present one replaced, or version ``to``. A promotion like any other, with a reason."""
        reason = check_reason(reason, "a rollback needs a reason: whoever looks at the ledger will want to know")
        self.watch(model)
        pin = standing(self.ledger, model)
        rule = tightened(rule or ApprovalRule(), pin)
        plan = rollback_plan(self.ledger, self._replaced(model), model, to=to, reason=reason, author=self.actor, rule=rule)
        plan = plan if pin is None else plan.model_copy(update={"facts": {FACT: pin.digest}})
        progress = propose(self.ledger, plan, again=True)
        self.crash_point("rollback:proposed")
        progress = judge_rollback(self.ledger, progress, actor=self.actor)
        self.crash_point("rollback:judged")
        return self.promote(progress.digest)

    def recover(self) -> Entry | None:
        """Finish or undo what a killed process left behind, and give the ledger's record of it; ``None`` when nothing was left."""
        with self._held(None) as (_, recovered):
            return recovered

    def watch(self, model: str) -> Entry | None:
        """Compare the registry with the ledger. Gives the ledger's record of an alias that was moved behind its back; ``None`` when all is as it should be."""
        with self._held(model) as (effects, _):
            return effects.note_outside_move(model)

    def settle(self, model: str) -> None:
        """Leave nothing open behind the champion before anything is judged against it: the ledger verifies, what a killed process began is finished or undone,
        the ledger knows the version as promoted, and its files are those that were promoted. Raises ``IntegrityError`` and ``StorageError``."""
        with self._held(model) as (effects, _):
            version = self.registry.champion(model)
            if version is None:
                outside = effects.note_outside_move(model)
                if outside is not None:
                    was = outside.body["ledger"]
                    raise IntegrityError(
                        f"nothing has the alias champion of {model}, but by the ledger it was version {was}; recompress rollback {model} --to {was} --reason '…' "
                        "puts it back, and without it the next run begins with a first promotion, if its policy allows one"
                    )
                return
            committed = self.ledger.last("promotion-committed", model=model, version=version)
            if committed is None:
                effects.note_outside_move(model)
                raise IntegrityError(
                    f"version {version} of {model} is champion, but this ledger promoted no such version; recompress rollback {model} --reason '…' puts one back that it did"
                )
            try:
                effects.check_files(progress_of(self.ledger, committed.body["plan"]), version, committed.body["manifest_sha256"])
            except IntegrityError as error:
                raise IntegrityError(
                    f"version {version}, the champion of {model}, is not what was promoted: {error}; put back a copy of its files, or recompress rollback {model} --reason '…'"
                ) from None

    @contextmanager
    def _held(self, model: str | None, kind: str = "") -> Iterator[tuple[Effects, Entry | None]]:
        """The lock, a ledger that verifies, and nothing left over from a killed process. A ledger that does not verify must not lead a recovery either."""
        with self.ledger.lock(self.lock_timeout) as lock:
            if kind:
                self.crash_point(f"{kind}:lock-taken")
            effects = Effects(self.ledger, self.registry, lock, self.actor, self.crash_point)
            begun = self.ledger.last("promotion-intent")
            models = {model, begun.body["model"] if begun else None} - {None}
            self.ledger.verify(anchors=[anchor for name in models for anchor in self._anchors(str(name))])
            yield effects, recover(effects)

    def _anchors(self, model: str) -> list[Head]:
        """The ledger's head as the champion's version keeps it."""
        version = self.registry.champion(model)
        tag = (self.registry.tags(model, version) or {}).get(HEAD_TAG) if version else None
        return [Head.parse(tag)] if tag else []

    def _replaced(self, model: str) -> ChampionRef | None:
        """The champion that a rollback replaces, with the digest that the ledger promoted: by it a schedule knows later what was rolled back."""
        champion = present_champion(self.registry, model)
        committed = self.ledger.last("promotion-committed", model=model, version=champion.version) if champion else None
        return champion.model_copy(update={"model_sha256": committed.body["model_sha256"]}) if champion and committed else champion

    def _check_champion(self, effects: Effects, progress: Progress) -> None:
        """Compare, before the swap. Raises ``PromotionRefused``."""
        plan = progress.plan
        outside = effects.note_outside_move(plan.model)
        if outside is not None:
            was, now = outside.body["ledger"], outside.body["registry"]
            raise effects.refuse(progress, "alias-moved-outside", f"champion of {plan.model} was version {was}, somebody made it {now}; judge against that one")
        champion = present_champion(self.registry, plan.model)
        if champion != plan.expected:
            was, now = (ref.version if ref else "none" for ref in (plan.expected, champion))
            detail = f"the verdict was made against version {was}, the champion is {now} by now; judge against that one"
            if was == now:
                detail = f"version {now} is not the model that it was, by its tag {MODEL_TAG}; put the tag back, or find out who made that version anew"
            raise effects.refuse(progress, "champion-changed", detail)

    def _version(self, effects: Effects, progress: Progress, directory: Path | None) -> tuple[str, str]:
        """The version to promote and the digest of its files, hashed just now. Made here, unless it was made before."""
        plan = progress.plan
        try:
            if plan.kind == "rollback":
                version, manifest = str(plan.version), str(plan.manifest_sha256)
                if self.registry.tags(plan.model, version) is None:
                    raise effects.refuse(progress, "version-missing", f"version {version} of {plan.model} was deleted")
            else:
                version, manifest = self._made(progress, directory)
                effects.at(progress, "version-made")
            effects.check_files(progress, version, manifest)
        except IntegrityError as error:
            effects.refuse(progress, "files-refused", str(error))
            raise
        return version, manifest

    def _made(self, progress: Progress, directory: Path | None) -> tuple[str, str]:
        plan, digest = progress.plan, progress.digest
        version = self.registry.find_version(plan.model, digest)
        uploaded = [str(entry.body["manifest_sha256"]) for entry in self.ledger.entries(UPLOADING, plan=digest)]
        if version is not None and directory is not None and (cut := self._cut_short(plan.model, version, uploaded)):
            log.warning("version %s of %s was cut short before it was promoted (%s); it is made again", version, plan.model, cut)
            self.registry.set_tag(plan.model, version, PLAN_TAG, "")  # nobody finds it again
            version = None
        if version is None:
            if directory is None:
                raise InputError(f"plan {digest[:12]}… has no version in the registry yet; give the model directory of {plan.candidate}")
            check_directory(directory, plan.model_sha256)
            check_model_directory(directory)

            def announce(manifest: str) -> None:
                uploaded.append(manifest)
                body = {"plan": digest, "model": plan.model, "manifest_sha256": manifest, "model_sha256": plan.model_sha256}
                self.ledger.append(UPLOADING, body, actor=self.actor)

            version = self.registry.create_version(plan.model, directory, {**tags_of(plan), HEAD_TAG: str(self.ledger.head())}, announce)
        if not uploaded:
            raise IntegrityError(
                f"version {version} of {plan.model} carries the tag of plan {digest[:12]}…, but this ledger has uploaded none for it: somebody laid it there; "
                "find out who, delete it, and run again"
            )
        tag = (self.registry.tags(plan.model, version) or {}).get(MANIFEST_TAG, "")
        return version, tag if tag in uploaded else uploaded[-1]  # an upload that was cut off leaves its own; the files have to fit one that the ledger knows

    def _cut_short(self, model: str, version: str, uploaded: Sequence[str]) -> str | None:
        """The file of a version that lost its end before the version was ever promoted. One that was changed is not made again: it is refused, by its name."""
        manifest = (self.registry.tags(model, version) or {}).get(MANIFEST_TAG)
        if manifest is None or manifest not in uploaded:  # it was not made here
            return None
        directory = self.registry.fetch(model, version)
        if not self.registry.shared and mend_manifest(directory, manifest):
            return None
        return cut_file(directory, manifest)

    def _still(self, progress: Progress) -> Promoted:
        """A plan that was carried out before. Raises ``GateRefused`` when its version has been replaced since."""
        done = self._done(progress)
        now = self.registry.champion(done.model)
        if now != done.version:
            at = progress.entries[-1].time
            raise GateRefused(
                f"{progress.plan.candidate} was promoted as version {done.version} at {at} on this very evidence, and version {now} took its place since; say so to try again"
            )
        return done

    def _done(self, progress: Progress) -> Promoted:
        return Promoted(progress.plan.model, progress.said("promotion-committed")["version"], progress.digest, progress.entries[-1].head)
