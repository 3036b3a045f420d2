"""What people ask of the ledger, with what MLflow and the bundles add to its answers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.audit import AuditReport, Trace, Trouble, check_all, find_plan, log_lines, parse_time
from recompress.audit import trace as core_trace
from recompress.audit import who_was as core_who_was
from recompress.audit.history import check_model
from recompress.errors import InputError, IntegrityError, RecompressError, StorageError
from recompress.evidence import BundleReport, committed_plans, folder_name, verify_bundle
from recompress.evidence.cut import cut_file
from recompress.evidence.dossier import Dossier, origin_of
from recompress.evidence.file_list import named_key
from recompress.integrity.digest import canonical_json
from recompress.integrity.signing import public_pem
from recompress.ledger import Head, Ledger, LedgerBroken, NoLedger, read_lines, verify, write_lines
from recompress.ledger.anchor import sign_head
from recompress.ledger.store import rfc3339
from recompress.promotion.states import Progress
from tasks.ledger.access import open_ledger
from tasks.ledger.anchors import check_not_lost
from tasks.ledger.keys import own_key, own_public_key, trusted_keys
from tasks.people.audit_keys import check_keys
from tasks.people.audit_steps import check_steps
from tasks.people.bundle import NoEvidence, check_named, recall_dossier
from tasks.running.project import Project
from tasks.tracking.memory import Memory
from tasks.tracking.reading import means_alias

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def log(project: Project, model: str | None) -> list[dict[str, Any]]:
    entries = project.ledger.entries()
    if model is not None:
        check_model(entries, model)
    return log_lines(entries, model)


def who_was(project: Project, model: str, at: str) -> dict[str, Any]:
    """Every champion at a moment, or in the course of a day. Raises ``InputError`` for a model that is not known and a time that is none."""
    begin, end = parse_time(at, project.ledger.clock())
    entries = project.ledger.entries()
    check_model(entries, model)
    reigns = core_who_was(entries, model, begin, end)
    return {"model": model, "from": rfc3339(begin), "to": rfc3339(end), "champions": [reign.as_json() for reign in reigns]}


def trace(project: Project, reference: str) -> Trace:
    """Everything that is known of a version. Raises ``InputError`` for one that does not exist or was never promoted, ``IntegrityError`` for such a champion."""
    model, version = project.resolve(reference)
    tags = project.registry.tags(model, version)
    if tags is None:
        raise InputError(f"there is no version {version} of {model} in the registry")
    entries = project.ledger.entries()
    traced = core_trace(entries, model, version, tags, by_alias=means_alias(reference))
    try:
        dossier = recall_dossier(project.memory, origin_of(entries, find_plan(entries, model, version)).plan)
    except NoEvidence:
        return traced
    candidate = dossier.evaluation("candidate")
    return traced.model_copy(update={"metrics": candidate.metrics if candidate else {}, "split_left": _split_left(project, traced, dossier)})


def _split_left(project: Project, traced: Trace, dossier: Dossier) -> str:
    """What is left of the test split on which a version was judged; empty for one from before looks were counted."""
    if traced.look is None:
        return ""
    from recompress.gate.looks_left import left_after
    from tasks.ledger.looks import history_of

    history = history_of(project.ledger, traced.model, traced.look.split)
    left = left_after(history, dossier.verdict, alpha=traced.look.budget, power=float(dossier.policy["power"]))
    return str(left["told"])


def _told_look(traced: Trace) -> str:
    if traced.look is None:
        return ""
    from recompress.gate.looks import tell_look

    return f"{tell_look(traced.look)}; it has had {traced.looks} by now"


def verify_one(root: Path, bundle: Path, key: Path | None, model_key: Path | None, model: Path | None) -> BundleReport:
    """One bundle, offline. Raises ``BundleBroken`` that names the first bad file."""
    try:
        pinned = model_key.read_text(encoding="utf-8") if model_key else None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"the key {model_key} cannot be read") from None
    if model is not None and not model.is_dir():
        raise InputError(f"there is no folder {model} with the model's files")
    return verify_bundle(bundle, own_public_key(root, key), model=model, model_key=pinned)


def verify_all(project: Project) -> AuditReport:
    """The chain, its anchors in the registry and in the bundles, the registry against the ledger, and every bundle. Writes nothing."""
    try:
        ledger = open_ledger(project.root, create=False)  # as it is: whether it holds is the question
    except NoLedger:
        check_not_lost(project.root, project.registry)
        raise
    anchors, troubles = _bundles(project, ledger)
    report = check_all(ledger, project.registry, anchors)
    with suppress(LedgerBroken):  # nothing that such a ledger says can be held against anything
        ledger.verify()
        troubles += [*check_keys(project.root, ledger), *check_steps(Memory(project.store, ledger))]
    return replace(report, troubles=(*report.troubles, *troubles))


def _bundles(project: Project, ledger: Ledger) -> tuple[list[tuple[str, Head]], list[Trouble]]:
    """Every bundle that is here, checked; their heads are anchors of the ledger."""
    anchors, troubles = [], []
    try:
        chain = ledger.entries()
        promoted = {folder_name(chain, progress): progress for progress in committed_plans(chain)}
    except IntegrityError:
        promoted = {}  # the ledger is broken, and is told to be so elsewhere
    folders = sorted(path for path in project.evidence.glob("*") if path.is_dir() and not path.name.startswith("."))
    for folder in folders:
        where = f"evidence/{folder.name}"
        try:
            report = _by_any(folder, trusted_keys(project.root))
            anchors.append((where, Head.parse(report.ledger_head)))
            if folder.name in promoted:
                check_named(folder, promoted[folder.name])
        except RecompressError as error:
            troubles.append(Trouble(where, "broken", f"{error}{_way_out(folder, promoted.get(folder.name))}"))
    for name, progress in promoted.items():
        if not (project.evidence / name).is_dir():
            version = f"{progress.plan.model}@{progress.said('promotion-committed')['version']}"
            troubles.append(Trouble(f"evidence/{name}", "notice", f"it is missing; `recompress audit bundle {version}` writes it"))
    return anchors, troubles


def _way_out(folder: Path, progress: Progress | None) -> str:
    """What mends a bundle that was cut short; nothing does for one that was altered, which is a person's to look at."""
    if progress is None or cut_file(folder) is None:
        return ""
    return f"; it was cut short, and `recompress audit bundle {progress.plan.model}@{progress.said('promotion-committed')['version']}` writes it anew"


def _by_any(folder: Path, keys: list[Ed25519PublicKey]) -> BundleReport:
    """A bundle checked with whichever key it names, if that is one of ours. Raises ``BundleBroken``."""
    inside = named_key(folder)
    return verify_bundle(folder, next((key for key in keys if public_pem(key) == inside), keys[0] if keys else own_public_key(folder.parent.parent)))


def take_over(root: Path, file: Path) -> int:
    """Import an exported ledger, and give the number of records added. Raises ``InputError``, ``LedgerBroken``, and ``IntegrityError`` for other records."""
    if not (root / "dvc.yaml").is_file():
        raise InputError(f"{root} is not a Recompress project: it has no dvc.yaml; go to the project's folder or give --root")
    if not file.is_file():
        raise InputError(f"{file} is no file; name one that recompress audit export has written")
    entries = list(read_lines(file))
    verify(entries)  # before a ledger is made to put them in
    return open_ledger(root).import_entries(entries)


def export(project: Project, file: Path) -> dict[str, Any]:
    """The ledger as JSON lines, verified, with its signed head in ``FILE.head.json``. Raises ``InputError`` when the file exists."""
    if file.exists():
        raise InputError(f"{file} exists already and is not overwritten; choose another name")
    beside = file.with_name(f"{file.name}.head.json")
    entries = project.ledger.entries()
    head = verify(entries)
    signed = canonical_json(sign_head(own_key(project.root), head))  # before anything is written: there may be no key to sign with
    try:
        beside.write_bytes(signed)  # first: a kill in between leaves a head without records, which the next export replaces, and never records without a head
    except OSError as error:
        raise StorageError(f"the signed head cannot be written to {beside}: {error.strerror}; choose a place that can be written and has space") from None
    count = write_lines(entries, file)
    return {"file": str(file), "records": count, "head": str(head), "signed_head": str(beside)}


def tell_reigns(reigns: dict[str, Any]) -> str:
    lines = []
    for reign in reigns["champions"]:
        version = f"version {reign['version']}" if reign["version"] else "no version"
        approved = f", approved by {reign['approver']}" if reign["approver"] else ""
        lines.append(
            f"{version:<12} {reign['since']} – {reign['until'] or 'now'}  {reign['how']} by {reign['by']}{approved}  (ledger record {reign['record']})"
        )
    return "\n".join(lines) or f"{reigns['model']} had no champion then"


def tell_trace(traced: Trace) -> str:
    rows = [
        ("Model", f"{traced.model} version {traced.version}: {traced.candidate} ({traced.steps})"),
        ("model sha256", traced.model_sha256),
        *((f"Data {name}", value) for name, value in traced.data.items()),
        *((f"Base {name}", value) for name, value in traced.base.items()),
        *((f"Code {name}", value) for name, value in traced.code.items()),
        *((f"Recipe {name}", value) for name, value in traced.recipe.items()),
        (traced.metric or "Score", f"{traced.score}"),
        *((name, f"{value:g}") for name, value in sorted(traced.metrics.items()) if name != traced.metric),
        ("Policy sha256", traced.policy_sha256),
        ("Verdict sha256", traced.verdict_sha256),
        ("Judged by", _told_look(traced)),
        ("Test split", traced.split_left),
        ("Proposed by", traced.author),
        ("Approved by", f"{traced.approver} at {traced.approved_at}" if traced.approver else "nobody was asked"),
        ("Champion since", f"{traced.promoted_at}, by {traced.promoted_by}, instead of {f'version {traced.instead_of}' if traced.instead_of else 'none'}"),
        ("Put back because", traced.rollback),
        *(("Watch", line) for line in traced.watched),
        ("Plan", traced.plan_sha256),
        ("Ledger head", traced.ledger_head),
        *(("✗", line) for line in traced.disagreements),
    ]
    return "\n".join(f"{name:<18} {value}" for name, value in rows if value)


def tell_report(report: AuditReport) -> str:
    lines = [f"{'✗' if trouble.kind == 'broken' else '·'} {trouble.where}: {trouble.detail}" for trouble in report.troubles]
    champions = ", ".join(f"{model} version {version}" if version else f"{model} none" for model, version in report.models.items()) or "none"
    lines.append(f"{report.head.sequence:,} records, {report.anchors} heads anchored elsewhere, champions: {champions}")
    lines.append("Something does not hold." if report.broken else "Everything holds.")
    return "\n".join(lines)


def tell_bundle(report: BundleReport) -> str:
    about = f"{report.model} version {report.version}, champion since {report.promoted_at}, approved by {report.approver or 'nobody: nobody was asked'}"
    lines = [*(f"✓ {line}" for line in report.checked), about, f"model sha256 {report.model_sha256}"]
    return "\n".join([*lines, f"signed by the key {report.key_id}", "Everything holds."])
