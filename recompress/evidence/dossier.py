"""What a bundle is made of: the dossier that is kept before a promotion, and the story that the ledger and the version's files add to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recompress.errors import InputError, IntegrityError
from recompress.integrity.digest import FileEntry, sha256_json
from recompress.integrity.model_files import MODEL_FOLDER, read_manifest
from recompress.ledger import Entry, Head, LedgerBroken
from recompress.promotion.states import OPENERS, PLAN_KINDS, Progress, follow
from recompress.records import Evaluation, PromotionPlan, Record, Verdict


class Dossier(Record):
    """Everything that a verdict was reached on, in full. It is kept before the plan is carried out, so that a crash between the two loses no evidence."""

    LATER = ("trainings",)
    verdict: Verdict
    policy: dict[str, Any]
    policy_text: str
    recipe: dict[str, Any]
    """What ``digests["recipe"]`` of the plan is the digest of."""
    recipe_text: str
    evaluations: tuple[Evaluation, ...]
    trainings: tuple[tuple[Evaluation, Evaluation], ...] = ()
    """What was measured on each further training, in the verdict's order: candidate, then baseline."""
    data_check: dict[str, Any]
    base: dict[str, Any]
    dataset: dict[str, Any]
    environment: dict[str, str]
    """Versions of Python, of the libraries, and the machine."""
    candidate_uri: str = ""
    """Where the candidate's model directory can be fetched until it has a version of its own. Never part of a bundle."""
    baseline_uri: str = ""
    """Where the baseline's model directory can be fetched: a later baseline is held against it, on a test split of its time. Never part of a bundle."""

    def evaluation(self, role: str) -> Evaluation | None:
        """The evaluation of the ``candidate``, the ``baseline`` or the ``champion`` that the verdict speaks of."""
        wanted = self.verdict.evaluations.get(role)
        return next((evaluation for evaluation in self.evaluations if evaluation.digest == wanted), None)


@dataclass(frozen=True)
class Story:
    """One promotion from its first record to its last. ``chain`` is the whole ledger up to that last record."""

    progress: Progress
    origin: Progress
    """The promotion by which the version was made: the same one, or, for a rollback, an earlier one."""
    chain: tuple[Entry, ...]
    files: tuple[FileEntry, ...]
    """Everything that the version holds."""
    dossier: Dossier

    @property
    def plan(self) -> PromotionPlan:
        return self.progress.plan

    @property
    def version(self) -> str:
        return str(self.progress.said("promotion-committed")["version"])

    @property
    def committed(self) -> Entry:
        return self.progress.entries[-1]

    @property
    def head(self) -> Head:
        return self.committed.head

    @property
    def manifest_sha256(self) -> str:
        return str(self.progress.said("promotion-committed")["manifest_sha256"])

    @cached_property
    def model_files(self) -> tuple[FileEntry, ...]:
        """The files of the model directory inside, by their path there."""
        inside = f"{MODEL_FOLDER}/"
        return tuple(FileEntry(f.path.removeprefix(inside), f.size, f.sha256) for f in self.files if f.path.startswith(inside))

    @property
    def approval(self) -> Entry | None:
        return self.progress.latest("approval")

    @property
    def name(self) -> str:
        """The name of its folder."""
        return folder_name(self.chain, self.progress)


def folder_name(chain: Iterable[Entry], progress: Progress) -> str:
    """``ner-v3``. Where the name was given before, the number of the plan's last record stands behind it: a rollback promotes a version again, and a registry
    that was lost counts from 1 again."""
    last, committed = progress.entries[-1].sequence, progress.said("promotion-committed")
    name = f"{progress.plan.model}-v{committed['version']}"
    if progress.plan.kind == "rollback":
        return f"{name}-rollback-{last}"
    same = {"model": committed["model"], "version": committed["version"]}.items()
    again = any(entry.sequence < last and entry.kind == "promotion-committed" and same <= entry.body.items() for entry in chain)
    return f"{name}-{last}" if again else name


def tell(chain: list[Entry], plan: str, directory: Path, dossier: Dossier) -> Story:
    """The story of a promotion that was committed. ``directory`` holds its version's files.

    Raises ``InputError`` for a plan that was not carried out, and ``IntegrityError`` when the dossier or the files are not those of the plan.
    """
    progress = committed_plan(chain, plan)
    origin = origin_of(chain, progress)
    if sha256_json(dossier.verdict.as_json()) != origin.plan.verdict_sha256:
        raise IntegrityError(f"the evidence that was kept is not that of plan {plan[:12]}…: its verdict has another digest")
    files = read_manifest(directory, str(progress.said("promotion-committed")["manifest_sha256"]))
    until = tuple(entry for entry in chain if entry.sequence <= progress.entries[-1].sequence)
    return Story(progress, origin, until, files, dossier)


def committed_plan(chain: list[Entry], plan: str) -> Progress:
    """Raises ``InputError`` for a plan that does not exist or was not carried out."""
    progress = follow(_about(chain, plan))
    if progress is None or progress.state != "committed":
        raise InputError(f"plan {plan[:80]!r} was not carried out{f': it is {progress.state}' if progress else ''}; there is no evidence to show")
    return progress


def origin_of(chain: list[Entry], progress: Progress) -> Progress:
    """The promotion that made the version: a rollback names the one before, which may be a rollback itself."""
    while progress.plan.kind == "rollback":
        judged = progress.latest("promotion-judged")
        before = str(judged.body.get("promoted_before")) if judged else ""
        earlier = follow(_about(chain, before))
        if judged is None or earlier is None or earlier.state != "committed" or earlier.entries[-1].sequence > judged.sequence:
            raise LedgerBroken(
                judged.sequence if judged else progress.entries[0].sequence, f"the rollback does not name an earlier promotion, it says {before[:12]!r}"
            )
        progress = earlier
    return progress


def _about(chain: list[Entry], plan: str) -> list[Entry]:
    return [entry for entry in chain if entry.kind in PLAN_KINDS and entry.body.get("plan") == plan]


def committed_plans(chain: list[Entry], model: str | None = None) -> list[Progress]:
    """Every promotion and rollback that was carried out, in the order in which it was."""
    done = [entry for entry in chain if entry.kind == "promotion-committed" and model in (None, entry.body["model"])]
    plans: dict[str, list[Entry]] = {str(entry.body["plan"]): [] for entry in done}
    for entry in chain:
        if entry.kind in PLAN_KINDS and (named := entry.body.get("plan")) in plans:
            plans[named].append(entry)
    promotions = [follow(entries) for entries in plans.values() if entries[0].kind in OPENERS]
    return [progress for progress in promotions if progress is not None]
