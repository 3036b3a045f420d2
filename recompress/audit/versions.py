"""Every version of a model against the ledger: its files, the rows that lead to them, and versions that nobody promoted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from recompress.audit.trouble import Trouble
from recompress.errors import IntegrityError
from recompress.integrity.model_files import check_version
from recompress.ledger import Entry
from recompress.promotion.registry import PLAN_TAG, ModelRegistry
from recompress.promotion.states import OPENERS, Progress

KNOWING = ("step-kept", "version-uploading")
"""Records that no earlier version wrote. What was uploaded before the first of them has no digest in the ledger until it is promoted."""


def check_files(registry: ModelRegistry, model: str, version: str, manifests: list[str]) -> Iterator[Trouble]:
    """Files that are not those of any manifest that the ledger knows for this version; the last of them is named."""
    try:
        directory = registry.fetch(model, version)
    except IntegrityError as error:
        yield Trouble(f"{model} version {version}", "broken", str(error))
        return
    reason = ""
    for manifest in manifests:
        try:
            check_version(directory, manifest)
            return
        except IntegrityError as error:
            reason = str(error)
    yield Trouble(f"{model} version {version}", "broken", reason)


def check_rows(registry: ModelRegistry, version: str, origin: Progress) -> Iterator[Trouble]:
    """The rows of the registry that the version's promotion recorded: the run that made it, and where its files lie."""
    recorded: dict[str, Any] = origin.said("promotion-intent").get("rows", {})
    rows = registry.rows(origin.plan.model, version)
    for name, value in recorded.items():
        if rows.get(name) != value:
            where = f"{origin.plan.model} version {version}"
            yield Trouble(where, "broken", f"its {name.replace('_', ' ')} is {rows.get(name)!r}, by the ledger it was {value!r}: the row was changed")


def check_others(registry: ModelRegistry, entries: list[Entry], model: str, promoted: set[str]) -> Iterator[Trouble]:
    """Versions that were never promoted: uploaded for a plan that came to nothing, made by hand, or laid under a plan."""
    since = next((entry.sequence for entry in entries if entry.kind in KNOWING), len(entries) + 1)
    opened = {str(entry.body["plan"]): entry.sequence for entry in entries if entry.kind in OPENERS}
    undone = {str(entry.body["plan"]) for entry in entries if entry.kind == "promotion-rolled-back"}
    uploaded = dict[str, list[str]]()
    for entry in entries:
        if entry.kind == "version-uploading":
            uploaded.setdefault(str(entry.body["plan"]), []).append(str(entry.body["manifest_sha256"]))
    for version in registry.versions(model):
        if version in promoted:
            continue
        plan = (registry.tags(model, version) or {}).get(PLAN_TAG, "")
        where = f"{model} version {version}"
        if plan in uploaded:
            for trouble in check_files(registry, model, version, uploaded[plan]):
                yield replace(trouble, kind="notice", detail=f"its promotion was undone; {trouble.detail}") if plan in undone else trouble
        elif opened.get(plan, 0) > since:
            yield Trouble(
                where, "broken", f"it carries the tag of plan {plan[:12]}…, but this ledger has uploaded none for it: somebody laid it there; delete it"
            )
        else:
            yield Trouble(where, "notice", "this ledger never promoted it, and does not know what is in it")
