"""The commands of people: decide about promotions, and ask what was decided. Everything heavy is imported inside a command, so that help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from flows.terminal import as_json, say, show
from recompress.errors import InputError, IntegrityError, RecompressError

FILE = click.Path(path_type=Path)


def project(root: Path) -> Any:
    from tasks.project import Project

    return Project(root)


@click.command()
@click.argument("digest", required=False)
@click.option("--key", type=FILE, help="Your private key (PEM, Ed25519), where the policy asks for signed approvals.")
@as_json
@click.pass_obj
def approve(root: Path, digest: str | None, key: Path | None, json_: bool) -> None:
    """Let a plan go on. Shows it first; without DIGEST, shows every plan that waits. DIGEST is the whole digest of the plan.

    Example:  recompress approve 466d6454850cc2505f491ef3e61297fc6b87cb87377a79fe1afaa01134849cdd
    """
    from tasks import decide

    here = project(root)
    if digest is None:
        return show(decide.waiting(here), json_, lambda: decide.show_waiting(here.ledger))
    told, text = decide.look(here, digest)
    click.echo(text, err=True)
    _ask("Approve this plan?", json_)
    entry = decide.approve(here, digest, key=key)
    found = {
        "approved": digest,
        "approver": entry.actor,
        "expires": entry.body["expires"],
        "signed": "signature" in entry.body,
        "record": entry.sequence,
        **told,
    }
    return show(found, json_, lambda: f"approved by {entry.actor}, until {entry.body['expires']}; carry it out: recompress promote {digest}")


@click.command()
@click.argument("digest")
@click.option("--reason", required=True, help="Why; whoever made the candidate will read it.")
@as_json
@click.pass_obj
def reject(root: Path, digest: str, reason: str, json_: bool) -> None:
    """Stop a plan for good. Anybody may. DIGEST is the whole digest of the plan.

    Example:  recompress reject 466d6454850cc2505f491ef3e61297fc6b87cb87377a79fe1afaa01134849cdd --reason "not before Monday"
    """
    from tasks import decide

    here = project(root)
    told, text = decide.look(here, digest)
    click.echo(text, err=True)
    entry = decide.reject(here, digest, reason)
    show({"rejected": digest, "by": entry.actor, "reason": reason.strip(), "record": entry.sequence, **told}, json_, lambda: f"rejected by {entry.actor}")


@click.command()
@click.argument("digest")
@as_json
@click.pass_obj
def promote(root: Path, digest: str, json_: bool) -> None:
    """Carry out a plan that was approved, as running its recipe again would.

    Example:  recompress promote 466d6454850cc2505f491ef3e61297fc6b87cb87377a79fe1afaa01134849cdd
    """
    from tasks import decide

    done = decide.carry_out(project(root), digest, say)
    show(_promoted(done), json_, lambda: f"version {done.version} is champion of {done.model}; ledger head {done.head}")


@click.command()
@click.argument("model")
@click.option("--to", help="The version to go back to; the one that the present champion replaced when left out.")
@click.option("--reason", required=True, help="Why; it stands in the ledger for ever.")
@as_json
@click.pass_obj
def rollback(root: Path, model: str, to: str | None, reason: str, json_: bool) -> None:
    """Make an earlier champion champion again: a promotion like any other, checked and recorded.

    Example:  recompress rollback ner-masakhane --to 3 --reason "misses Hausa place names"
    """
    from tasks import decide

    done = decide.rollback(project(root), model, to, reason, say)
    show(_promoted(done), json_, lambda: f"version {done.version} is champion of {done.model} again; ledger head {done.head}")


@click.command()
@click.argument("version")
@click.option("--keep", is_flag=True, help="Keep the scratch project.")
@as_json
@click.pass_obj
def reproduce(root: Path, version: str, keep: bool, json_: bool) -> None:
    """Make a version again from the same data, base and recipe, without the cache, and compare. VERSION is MODEL@NUMBER or MODEL@champion.

    Example:  recompress reproduce quickstart@champion
    """
    from tasks.reproduce import reproduce as again

    found = again(project(root), version, say, keep=keep)
    show(found.as_json(), json_, found.text)
    if not found.same_inputs:
        _fail(
            IntegrityError("it was not made from the same data and base, so it says nothing about the version; what was said above names what differs"), json_
        )


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
    from tasks import questions

    rows = questions.log(project(root), model)
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
    from tasks import questions

    found = questions.who_was(project(root), model, at)
    show(found, json_, lambda: questions.tell_reigns(found))


@audit.command("trace")
@click.argument("version")
@as_json
@click.pass_obj
def audit_trace(root: Path, version: str, json_: bool) -> None:
    """From an alias alone to data, code, base, recipe, metrics, policy and approver.

    Example:  recompress audit trace quickstart@champion
    """
    from tasks import questions

    found = questions.trace(project(root), version)
    show(found.as_json(), json_, lambda: questions.tell_trace(found))
    if found.disagreements:
        _fail(IntegrityError(f"registry and ledger disagree about {version}: {found.disagreements[0]}"), json_)


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
    from tasks import questions

    if bundle is not None:
        found = questions.verify_one(root, bundle, key, model_key, model)
        return show(found.as_json(), json_, lambda: questions.tell_bundle(found))
    if key or model_key or model:
        raise InputError("--key, --model-key and --model go with a BUNDLE")
    report = questions.verify_all(project(root))
    show(report.as_json(), json_, lambda: questions.tell_report(report))
    if report.broken:
        _fail(IntegrityError(f"{report.broken[0].where}: {report.broken[0].detail}"), json_)
    return None


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
    from tasks.bundle import export_bundle

    place = export_bundle(project(root), version, archive, with_model=with_model)
    show({"version": version, "bundle": str(place)}, json_, lambda: str(place))


@audit.command("export")
@click.argument("file", type=FILE)
@as_json
@click.pass_obj
def audit_export(root: Path, file: Path, json_: bool) -> None:
    """The whole ledger as JSON lines, with its signed head beside it.

    Example:  recompress audit export ledger.jsonl
    """
    from tasks import questions

    told = questions.export(project(root), file)
    show(told, json_, lambda: f"{told['records']:,} records in {told['file']}, signed head in {told['signed_head']}")


def _ask(question: str, json_: bool) -> None:
    """A person at a terminal is asked once more; a script has said what it wants by giving the whole digest."""
    if not json_ and sys.stdin.isatty() and sys.stderr.isatty() and not click.confirm(question, err=True):
        raise InputError("nothing was recorded")


def _fail(error: RecompressError, json_: bool) -> NoReturn:
    """End with the error's line and exit code. Where the result stands on stdout as JSON already, no second object follows it."""
    if not json_:
        raise error
    click.echo(f"recompress: {error}", err=True)
    sys.exit(error.exit_code)


def _promoted(done: Any) -> dict[str, Any]:
    return {"model": done.model, "version": done.version, "plan": done.plan, "ledger_head": str(done.head)}


PEOPLE = (approve, reject, promote, rollback, audit, reproduce)
