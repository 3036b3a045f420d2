"""The commands about policies: what was edited, what is pinned, and which baseline counts."""

from __future__ import annotations

from pathlib import Path

import click

from flows.terminal import FILE, as_json, project, show


@click.group()
def policy() -> None:
    """Gate policies: what a candidate must prove."""


@policy.command("accept")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--reason", required=True, help="Why the policy was edited after measuring; stands in the ledger for ever.")
@as_json
@click.pass_obj
def policy_accept(root: Path, recipe: Path, reason: str, json_: bool) -> None:
    """Let a policy count that was edited after models had been measured under it.

    Example:  recompress policy accept recipes/quickstart.yaml --reason "the phone app needs 6 MB, not 8"
    """
    from recompress.recipe import read_recipe
    from tasks.ledger.access import accept_policy, open_ledger
    from tasks.ledger.anchors import sound_ledger

    plan = read_recipe(recipe, root)
    accept_policy(sound_ledger(root, project(root).registry) or open_ledger(root), plan, reason)
    show({"policy_sha256": plan.policy.sha256}, json_, lambda: f"policy {plan.policy.sha256[:12]}… stands in the ledger with its reason")


@policy.command("accept-baseline")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("baseline")
@click.option("--reason", required=True, help="Why a weaker baseline counts; stands in the ledger for ever.")
@click.option("--key", type=FILE, help="Your private key, where approvals of this model must be signed.")
@as_json
@click.pass_obj
def policy_accept_baseline(root: Path, recipe: Path, baseline: str, reason: str, key: Path | None, json_: bool) -> None:
    """Let a baseline count that is worse than the one behind the last promotion. BASELINE is its whole digest, as the refusal prints it.

    Example:  recompress policy accept-baseline recipes/masakhaner.yaml 1f…9a --reason "the new test split is harder"
    """
    from tasks.people.baselines import accept
    from tasks.running.recompression import read_plan

    entry = accept(project(root), read_plan(str(recipe), root), baseline, reason, key)
    facts = {"baseline": baseline, "beside": entry.body["accepted_sha256"], "by": entry.actor, "record": entry.sequence}
    show(facts, json_, lambda: f"baseline {baseline[:12]}… counts by the word of {entry.actor}, record {entry.sequence}; run the recipe again")


@policy.command("pin")
@click.argument("model")
@click.argument("file", metavar="POLICY", type=click.Path(path_type=Path))
@click.option("--reason", required=True, help="Why; whoever is refused by it will read it.")
@click.option("--key", type=FILE, help="Your private key, where the policy that stands, or the new one, asks for signed approvals.")
@as_json
@click.pass_obj
def policy_pin(root: Path, model: str, file: Path, reason: str, key: Path | None, json_: bool) -> None:
    """Let no promotion of MODEL need less than POLICY asks for. A recipe may be stricter, never laxer.

    Example:  recompress policy pin ner policies/ner-pinned.yaml --reason "what the phone team signed off" --key bob.pem
    """
    from tasks.people import pins

    entry = pins.pin(project(root), model, file, reason, key)
    show(
        {"model": model, "pin": entry.hash, "record": entry.sequence, "by": entry.actor, "policy_sha256": entry.body["policy_sha256"]},
        json_,
        lambda: f"pinned for {model} by {entry.actor}, record {entry.sequence} of the ledger; recompress policy pinned {model}",
    )


@policy.command("pinned")
@click.argument("model", required=False)
@as_json
@click.pass_obj
def policy_pinned(root: Path, model: str | None, json_: bool) -> None:
    """What is pinned for MODEL, or for every model, and what a recipe may do with each dial.

    Example:  recompress policy pinned ner
    """
    from tasks.people import pins

    rows = pins.pinned(project(root), model)
    show(rows, json_, lambda: pins.show(rows, model))


@policy.command("unpin")
@click.argument("model")
@click.option("--reason", required=True, help="Why; it stands in the ledger for ever.")
@click.option("--key", type=FILE, help="Your private key, where the pinned policy asks for signed approvals.")
@as_json
@click.pass_obj
def policy_unpin(root: Path, model: str, reason: str, key: Path | None, json_: bool) -> None:
    """Lift what is pinned for MODEL: a recipe's own policy is all that counts from then on. To change a pin, pin anew.

    Example:  recompress policy unpin ner --reason "the model is retired" --key bob.pem
    """
    from tasks.people import pins

    entry = pins.unpin(project(root), model, reason, key)
    show({"model": model, "record": entry.sequence, "by": entry.actor}, json_, lambda: f"nothing is pinned for {model} any more; record {entry.sequence}")
