"""A promoted version handed over: taken out of the registry while it is hashed against the ledger, written in another format, proved, signed and recorded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from shlex import quote
from typing import Any

from recompress.audit import find_plan
from recompress.benchmarks import Example
from recompress.data.splits import draw, read_split
from recompress.errors import RecompressError
from recompress.evidence.dossier import origin_of
from recompress.export import Export, Exported, check_asked, check_export, export
from recompress.integrity.digest import check_directory
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.records import PromotionPlan
from tasks.ledger.access import actor
from tasks.ledger.keys import own_key, own_public_key
from tasks.people.check import check
from tasks.running.project import Project

TEXTS = 200
"""Texts of the test split on which both are asked."""


def export_version(project: Project, reference: str, to: str, target: Path, say: Callable[[str], None]) -> Export:
    """Export a version, ``name@champion`` or ``name@3``, to a new folder.

    Raises ``InputError`` for a version that was never promoted or a format that cannot hold it, and ``IntegrityError`` where its files are not what was promoted or
    the exported ones answer otherwise.
    """
    check_asked(target, to)  # before the version is hashed, which takes its time
    with tempfile.TemporaryDirectory(prefix="recompress-export-") as private:
        checked = check(project, reference, Path(private) / "version")
        chain = project.ledger.entries()
        plan = origin_of(chain, find_plan(chain, checked.model, checked.version)).plan
        say(f"{checked.model} version {checked.version}: every file is what record {checked.record} of the ledger promoted")
        facts = facts_of(plan, checked.version) | {"ledger record": str(checked.record), "manifest sha256 of the version": checked.manifest_sha256}
        examples = judged_texts(project, plan, say)
        done = export(checked.folder / MODEL_FOLDER, target, to, examples=examples, facts=facts, key=own_key(project.root))
    body = {"model": checked.model, "version": checked.version, "to": to, "manifest_sha256": done.manifest_sha256}
    project.ledger.append("model-exported", body, actor=actor())
    return done


def facts_of(plan: PromotionPlan, version: str) -> dict[str, str]:
    """What stands in the folder's card."""
    told = {"base model": "base_model", "base revision": "base_revision", "data": "dataset", "recipe": "recipe", "code": "git_commit"}
    facts = {name: plan.facts[fact] for name, fact in told.items() if plan.facts.get(fact)}
    if PurePath(facts.get("base model", "")).is_absolute():
        facts["base model"] = PurePath(facts["base model"]).name  # where it lies on this machine is nobody else's business, and its digest says which it is
    return {"model": plan.model, "version": version} | facts | {f"{name} sha256": digest for name, digest in sorted(plan.digests.items())}


def judged_texts(project: Project, plan: PromotionPlan, say: Callable[[str], None]) -> Sequence[Example]:
    """Texts of the very test split that the version was judged on; none where it is not here any more, which is said."""
    place = project.root / "prepared" / plan.facts.get("dataset", "")
    try:
        check_directory(place, plan.digests["data"])
        return draw(read_split(place, "test"), TEXTS, 0)
    except (RecompressError, OSError) as error:
        say(f"the test split that it was judged on is not here ({error}); it is compared on random tokens alone")
        return ()


def verify_export(root: Path, folder: Path, key: Path | None) -> Exported:
    """An exported folder, offline, by the public key of the project that exported it. Raises ``IntegrityError``."""
    return check_export(folder, own_public_key(root, key))


def tell_export(done: Export) -> str:
    """What was written, for people."""
    agreement = done.agreement
    return (
        f"{done.folder}: {agreement.texts} texts and random tokens get the same decisions as from the model that was judged, and no logit differs by more than "
        f"{agreement.largest_change:.2g} of the largest.\nrecompress audit verify {quote(done.folder)}"
    )


def as_report(exported: Exported) -> dict[str, Any]:
    """What ``audit verify`` says of such a folder."""
    return {
        "kind": "export",
        "to": exported.to,
        "facts": exported.facts,
        "files": exported.files,
        "manifest_sha256": exported.manifest_sha256,
        "signed": exported.signed,
    }
