"""The commands of those who decide about promotions. Everything heavy is imported inside a command, so that help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from flows.asking import audit
from flows.terminal import FILE, as_json, fail, project, say, show
from recompress.errors import InputError, IntegrityError


@click.command()
@click.argument("digest", required=False)
@click.option("--key", type=FILE, help="Your private key (PEM, Ed25519), where the policy asks for signed approvals.")
@as_json
@click.pass_obj
def approve(root: Path, digest: str | None, key: Path | None, json_: bool) -> None:
    """Let a plan go on. Shows it first; without DIGEST, shows every plan that waits. DIGEST is the whole digest of the plan.

    Example:  recompress approve 466d6454850cc2505f491ef3e61297fc6b87cb87377a79fe1afaa01134849cdd
    """
    from tasks.people import decide

    here = project(root)
    if digest is None:
        return show(decide.waiting(here), json_, lambda: decide.show_waiting(here.ledger))
    details, text = decide.look(here, digest)
    click.echo(text, err=True)
    _ask("Approve this plan?", json_)
    entry = decide.approve(here, digest, key=key)
    approval = {
        "approved": digest,
        "approver": entry.actor,
        "expires": entry.body["expires"],
        "signed": "signature" in entry.body,
        "record": entry.sequence,
        **details,
    }
    return show(approval, json_, lambda: f"approved by {entry.actor}, until {entry.body['expires']}; carry it out: recompress promote {digest}")


@click.command()
@click.argument("digest")
@click.option("--reason", required=True, help="Why; whoever made the candidate will read it.")
@as_json
@click.pass_obj
def reject(root: Path, digest: str, reason: str, json_: bool) -> None:
    """Stop a plan for good. Anybody may. DIGEST is the whole digest of the plan.

    Example:  recompress reject 466d6454850cc2505f491ef3e61297fc6b87cb87377a79fe1afaa01134849cdd --reason "not before Monday"
    """
    from tasks.people import decide

    here = project(root)
    details, text = decide.look(here, digest)
    click.echo(text, err=True)
    entry = decide.reject(here, digest, reason)
    show({"rejected": digest, "by": entry.actor, "reason": reason.strip(), "record": entry.sequence, **details}, json_, lambda: f"rejected by {entry.actor}")


@click.command()
@click.argument("digest")
@as_json
@click.pass_obj
def promote(root: Path, digest: str, json_: bool) -> None:
    """Carry out a plan that was approved, as running its recipe again would.

    Example:  recompress promote 466d6454850cc2505f491ef3e61297fc6b87cb87377a79fe1afaa01134849cdd
    """
    from tasks.people import decide

    promoted = decide.carry_out(project(root), digest, say)
    show(_promoted(promoted), json_, lambda: f"version {promoted.version} is champion of {promoted.model}; ledger head {promoted.head}")


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
    from tasks.people import decide

    promoted = decide.rollback(project(root), model, to, reason, say)
    show(_promoted(promoted), json_, lambda: f"version {promoted.version} is champion of {promoted.model} again; ledger head {promoted.head}")


@click.command()
@click.argument("version")
@click.option("--keep", is_flag=True, help="Keep the scratch project.")
@as_json
@click.pass_obj
def reproduce(root: Path, version: str, keep: bool, json_: bool) -> None:
    """Make a version again from the same data, base and recipe, without the cache, and compare. VERSION is MODEL@NUMBER or MODEL@champion.

    Example:  recompress reproduce quickstart@champion
    """
    from tasks.people.reproduce import reproduce as again

    reproduction = again(project(root), version, say, keep=keep)
    show(reproduction.as_json(), json_, reproduction.text)
    if not reproduction.same_inputs:
        fail(IntegrityError("it was not made from the same data and base, so it says nothing about the version; what was said above names what differs"), json_)


def _ask(question: str, json_: bool) -> None:
    """A person at a terminal is asked once more; a script has said what it wants by giving the whole digest."""
    if not json_ and sys.stdin.isatty() and sys.stderr.isatty() and not click.confirm(question, err=True):
        raise InputError("nothing was recorded")


def _promoted(promoted: Any) -> dict[str, Any]:
    return {"model": promoted.model, "version": promoted.version, "plan": promoted.plan, "ledger_head": str(promoted.head)}


PEOPLE = (approve, reject, promote, rollback, audit, reproduce)
