"""The commands of those who ask: what was decided, by whom, on which evidence, and whether it still holds."""

from __future__ import annotations

from pathlib import Path

import click

from flows.terminal import FILE, as_json, fail, project, show
from recompress.errors import InputError, IntegrityError
from recompress.integrity.model_files import EXPORT_FILE


@click.group()
def audit() -> None:
    """What was decided, by whom, on which evidence; and whether all of it still holds."""


@audit.command("log")
@click.option("--model", help="Only what concerns this model.")
@as_json
@click.pass_obj
def audit_log(root: Path, model: str | None, json_: bool) -> None:
    """Every record of the ledger, a line each.

    Example:  recompress audit log --model quickstart
    """
    from tasks.people import audit_queries

    rows = audit_queries.log(project(root), model)
    show(rows, json_, lambda: "\n".join(f"{row['record']:>5}  {row['time'][:19]}Z  {row['actor']:<20} {row['kind']:<22} {row['told']}" for row in rows))


@audit.command("who-was")
@click.argument("model")
@click.option("--at", "at", required=True, help="A day (2026-11-17) or a moment (2026-11-17T14:30, UTC unless it says otherwise).")
@as_json
@click.pass_obj
def audit_who_was(root: Path, model: str, at: str, json_: bool) -> None:
    """Which version was champion then.

    Example:  recompress audit who-was quickstart --at 2026-11-17
    """
    from tasks.people import audit_queries

    reigns = audit_queries.who_was(project(root), model, at)
    show(reigns, json_, lambda: audit_queries.tell_reigns(reigns))


@audit.command("trace")
@click.argument("version")
@as_json
@click.pass_obj
def audit_trace(root: Path, version: str, json_: bool) -> None:
    """From an alias alone to data, code, base, recipe, metrics, policy and approver.

    Example:  recompress audit trace quickstart@champion
    """
    from tasks.people import audit_queries

    trace = audit_queries.trace(project(root), version)
    show(trace.as_json(), json_, lambda: audit_queries.tell_trace(trace))
    if trace.disagreements:
        fail(IntegrityError(f"registry and ledger disagree about {version}: {trace.disagreements[0]}"), json_)


@audit.command("verify")
@click.argument("bundle", type=FILE, required=False)
@click.option("--key", type=FILE, help="The public key of those who made the bundle; this project's own when left out.")
@click.option("--model-key", type=FILE, help="The public key of the OpenSSF signature, where that is pinned too.")
@click.option("--model", type=FILE, help="The model's files, to be compared with the bundle.")
@as_json
@click.pass_obj
def audit_verify(root: Path, bundle: Path | None, key: Path | None, model_key: Path | None, model: Path | None, json_: bool) -> None:
    """Check everything: the ledger, its anchors, the registry, the bundles. With BUNDLE (a folder or a zip), that one alone: offline, by its public key.

    Example:  recompress audit verify evidence/quickstart-v1 --key recompress.pub.pem
    """
    from tasks.people import audit_queries

    if bundle is not None and (bundle / EXPORT_FILE).is_file():
        from tasks.people.export import as_report, verify_export

        exported = verify_export(root, bundle, key)
        line = f"{exported.facts.get('model', 'model')} version {exported.facts.get('version', '?')}, exported to {exported.to}: {exported.files} files hold, and the signature"
        return show(as_report(exported), json_, lambda: line)
    if bundle is not None:
        bundle_report = audit_queries.verify_one(root, bundle, key, model_key, model)
        return show(bundle_report.as_json(), json_, lambda: audit_queries.tell_bundle(bundle_report))
    if key or model_key or model:
        raise InputError("--key, --model-key and --model go with a BUNDLE")
    report = audit_queries.verify_all(project(root))
    show(report.as_json(), json_, lambda: audit_queries.tell_report(report))
    if report.broken:
        fail(IntegrityError(f"{report.broken[0].where}: {report.broken[0].detail}"), json_)
    return None


@audit.command("check")
@click.argument("version")
@click.option("--to", "target", type=FILE, help="Copy the files there while they are checked: what to serve.")
@as_json
@click.pass_obj
def audit_check(root: Path, version: str, target: Path | None, json_: bool) -> None:
    """Hold every file of a version against the ledger, from outside: nothing of it is run. For servers of your own: mlflow models serve -m FOLDER.

    Example:  recompress audit check quickstart@champion --to /srv/quickstart
    """
    from tasks.people.check import check

    checked = check(project(root), version, target)
    line = f"{checked.model} version {checked.version} is what record {checked.record} of the ledger promoted; manifest sha256 {checked.manifest_sha256}"
    show(checked.as_json(), json_, lambda: f"{line}\n{checked.folder}" if target else line)


@audit.command("guard")
@as_json
@click.pass_obj
def audit_guard(root: Path, json_: bool) -> None:
    """Make the triggers anew by which the ledger's database refuses changes, where `audit verify` says that they were dropped.

    Example:  recompress audit guard
    """
    head = project(root).ledger.guard()
    show({"head": str(head)}, json_, lambda: f"the database refuses changes again, behind record {head.sequence}")


@audit.command("bundle")
@click.argument("version")
@click.option("--zip", "archive", type=FILE, help="Pack it into this file.")
@click.option("--with-model", is_flag=True, help="Put the model's files into the archive too.")
@as_json
@click.pass_obj
def audit_bundle(root: Path, version: str, archive: Path | None, with_model: bool, json_: bool) -> None:
    """Where the evidence of a version is; it is written now if it is missing.

    Example:  recompress audit bundle quickstart@champion --zip evidence.zip --with-model
    """
    from tasks.people.bundle import export_bundle

    place = export_bundle(project(root), version, archive, with_model=with_model)
    show({"version": version, "bundle": str(place)}, json_, lambda: str(place))


@audit.command("import")
@click.argument("file", type=FILE)
@as_json
@click.pass_obj
def audit_import(root: Path, file: Path, json_: bool) -> None:
    """Take over a ledger that was exported as JSON lines: into an empty one, or behind the records that both have. All of it or nothing.

    Example:  recompress audit import ledger.jsonl
    """
    from tasks.people import audit_queries

    added = audit_queries.take_over(root, file)
    show({"added": added}, json_, lambda: f"{added:,} records added")


@audit.command("export")
@click.argument("file", type=FILE)
@as_json
@click.pass_obj
def audit_export(root: Path, file: Path, json_: bool) -> None:
    """The whole ledger as JSON lines, with its signed head beside it.

    Example:  recompress audit export ledger.jsonl
    """
    from tasks.people import audit_queries

    summary = audit_queries.export(project(root), file)
    show(summary, json_, lambda: f"{summary['records']:,} records in {summary['file']}, signed head in {summary['signed_head']}")
