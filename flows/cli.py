"""The person's door: ``recompress COMMAND``.

Results go to stdout (one JSON object with ``--json``), progress and errors to stderr. Exit codes: 0 done · 1 an unexpected failure · 2 the input is wrong ·
3 the data was refused · 4 the gate refused every variant · 5 something does not match its digest · 6 waiting for approval.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import click

from flows.begin import init
from flows.people import PEOPLE
from flows.shipping import SHIPPING
from flows.stdout import only_results, write_result
from flows.terminal import FILE, as_json, check_text, project, read_lines, say, show
from recompress import __version__
from recompress.errors import InputError, RecompressError, StorageError
from tasks.ledger.user import give_home
from tasks.running.home import check_project, find_root, only_recipe

NEEDS_PROJECT = {"run", "predict", "report", "policy", "serve", "export", "approve", "reject", "promote", "rollback", "reproduce"}
"""Commands that work on a project's stores. ``audit`` checks by itself, because a bundle verifies anywhere, and ``data``, because a file can be looked at anywhere."""


class Door(click.Group):
    """Turns every error that a person is meant to read into one line and its exit code."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta["json"], context.meta["help"], context.meta["args"] = "--json" in args, bool({"--help", "-h"} & set(args)), tuple(args)
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            check_text(context.meta["args"])
            with nullcontext() if context.meta["help"] else only_results():
                return super().invoke(context)
        except RecompressError as error:
            self._refuse(context, error)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            from tasks.running.lock import OUT_OF_ROOM

            if error.errno not in OUT_OF_ROOM:
                raise
            self._refuse(context, StorageError(f"{OUT_OF_ROOM[error.errno]} at {error.filename or context.obj}; mend that and run again"))
        except KeyboardInterrupt:
            click.echo("\nrecompress: stopped. The same command goes on after the last finished step.", err=True)
            context.exit(130)

    def _refuse(self, context: click.Context, error: RecompressError) -> None:
        if context.meta["json"]:
            with suppress(RecompressError):  # where stdout cannot be written, stderr says so
                write_result(json.dumps({"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}))
        click.echo(f"recompress: {error}", err=True)
        context.exit(error.exit_code)


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="recompress")
@click.option("--root", type=click.Path(path_type=Path), default=None, help="The project's folder; found from here upwards when left out.")
@click.option("--verbose", is_flag=True, help="Show what the libraries log, and tracebacks.")
@click.pass_context
def main(context: click.Context, root: Path | None, verbose: bool) -> None:
    """Keep the small versions of language models current, proven and reproducible.

    Begin with:  recompress doctor  ·  recompress init --data FILE --base MODEL  ·  recompress run
    """
    try:
        context.obj = (root or find_root(Path.cwd())).resolve()
    except FileNotFoundError:
        raise InputError("the current folder is gone; go to one that is there, or give --root with the whole path of the project") from None
    give_home(context.obj)
    if context.invoked_subcommand in NEEDS_PROJECT:
        need_project(context)
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.INFO if verbose else logging.CRITICAL)  # on the handler: libraries set the levels of their own loggers
    logging.basicConfig(level=logging.INFO, handlers=[shown], format="%(name)s: %(message)s")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")


def need_project(context: click.Context) -> None:
    """Raises ``InputError`` outside of a project, unless help is all that was asked for."""
    if not context.meta["help"]:
        check_project(context.obj)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@as_json
@click.pass_obj
def run(root: Path, recipe: Path | None, json_: bool) -> None:
    """Recompress: data, checks, baseline, variants, measures, verdicts, promotion, page. RECIPE may be left out where the project has but one.

    Example:  recompress run recipes/quickstart.yaml
    """
    from tasks.running.orchestrate import run_flow
    from tasks.running.recompression import read_plan

    recipe = recipe or only_recipe(root)
    read_plan(str(recipe), root.resolve())  # a mistake is refused at once, before any server starts
    outcome = run_flow("recompress", root, say, recipe=str(recipe))
    show(outcome.as_json, json_, lambda: outcome.text)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


@main.command()
@click.argument("model")
@click.argument("text", nargs=-1)
@as_json
@click.pass_obj
def predict(root: Path, model: str, text: tuple[str, ...], json_: bool) -> None:
    """Ask a model: a registered one (name or name@alias) or a model folder. Reads lines from stdin when no text is given.

    Example:  recompress predict quickstart@champion "Return the shortest path between two nodes."
    """
    from tasks.steps.promote import predict as ask

    lines = text or read_lines()
    empty = next((number for number, line in enumerate(lines, start=1) if not line.strip()), None)
    if not lines or empty is not None:
        raise InputError("there is no text to predict; give some as arguments or on stdin" if not lines else f"text {empty} is empty; leave it out")
    answers = ask(root, model, lines)
    show(
        {"model": model, "predictions": answers}, json_, lambda: "\n".join(f"{answer['summary']}\t{line}" for line, answer in zip(lines, answers, strict=True))
    )


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@as_json
@click.pass_obj
def report(root: Path, recipe: Path | None, json_: bool) -> None:
    """Where the last page of a recipe is. RECIPE may be left out where the project has but one.

    Example:  recompress report recipes/quickstart.yaml
    """
    from tasks.steps.report import last_page

    quickstart = Path("recipes/quickstart.yaml")
    last_report = last_page(root, recipe or (quickstart if (root / quickstart).is_file() else only_recipe(root)))
    show(last_report, json_, lambda: f"{last_report['page']}\n{last_report['summary']}")


@main.command()
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="The table as Markdown, as docs/methods.md holds it.")
@as_json
def methods(name: str | None, markdown: bool, json_: bool) -> None:
    """Every method of compression, or one in full.

    Example:  recompress methods prune_structure
    """
    from recompress.methods.catalogue import describe, describe_all, explain, table

    if name:
        show(describe(name), json_, lambda: explain(name))
    else:
        show(describe_all(), json_, lambda: table(markdown=markdown))


@main.group()
@click.pass_context
def data(context: click.Context) -> None:
    """The data sets: what is here, and how to bring what is not."""
    if context.invoked_subcommand != "explain":
        need_project(context)


@data.command("status")
@as_json
@click.pass_obj
def data_status(root: Path, json_: bool) -> None:
    """What is pinned, and what of it is here.

    Example:  recompress data status
    """
    from tasks.data.bring import status

    rows = status(root)
    show(rows, json_, lambda: "\n".join(f"{row['name']:<16} {row['state']:<10} {row['detail']}" for row in rows))


@data.command("adopt")
@click.argument("directory", type=click.Path(path_type=Path))
@as_json
@click.pass_obj
def data_adopt(root: Path, directory: Path, json_: bool) -> None:
    """Take a local copy of a pinned data set, if and only if it hashes to its pin.

    Example:  recompress data adopt ~/masakhane-ner/MasakhaNER2.0/data
    """
    from tasks.data.bring import adopt

    name = adopt(root, directory)
    show({"adopted": name, "from": str(directory)}, json_, lambda: f"{name}: adopted; it hashes to its pin")


@data.command("accept")
@click.argument("name")
@as_json
@click.pass_obj
def data_accept(root: Path, name: str, json_: bool) -> None:
    """Take the present hash of a prepared data set as its pin, after you have looked at what changed.

    Example:  recompress data accept pydocs
    """
    from tasks.data.bring import accept

    changed = accept(root, name)
    show({"accepted": name, "changed": changed}, json_, lambda: f"{name}: the new hash stands in dvc.lock; commit it")


@data.command("fetch")
@click.argument("name")
@as_json
@click.pass_obj
def data_fetch(root: Path, name: str, json_: bool) -> None:
    """Bring a data set from the hub that its entry in params.yaml names (hub:), at that commit, and pin it with DVC.

    Example:  recompress data fetch tickets
    """
    from tasks.data.hub import fetch

    fetched = fetch(root, name, say)
    show({"fetched": name, **fetched}, json_, lambda: f"{name}: {fetched['folder']} is here and pinned; `recompress data accept {name}` prepares it")


@data.command("explain")
@click.argument("what", metavar="NAME_OR_FILE")
@click.option(
    "--set", "dials", multiple=True, metavar="KEY=VALUE", help="A dial of the entry that is known already, e.g. --set text=body --set encoding=cp1252."
)
@as_json
@click.pass_obj
def data_explain(root: Path, what: str, dials: tuple[str, ...], json_: bool) -> None:
    """How a data set, or any file or folder, is understood: the entry of params.yaml that reads it, counts, and the first rows as they were read.

    Example:  recompress data explain tickets.csv
    """
    from recompress.data.explain import as_json as facts
    from recompress.data.explain import explain as in_words
    from tasks.data.explain import explain

    understood = explain(root, what, dials)
    show(facts(understood), json_, lambda: in_words(understood))


@main.group()
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


@main.command()
@as_json
@click.pass_obj
def doctor(root: Path, json_: bool) -> None:
    """What is missing on this machine, and how to get it.

    Example:  recompress doctor
    """
    from tasks.people.doctor import examine

    findings = examine(root)
    show([f._asdict() for f in findings], json_, lambda: "\n".join(f.line for f in findings))
    if any(f.state == "missing" for f in findings):
        raise InputError("something is missing; the lines above say how to get it")


@main.command()
@click.argument("model", required=False)
@click.option("--port", default=5001, show_default=True, help="Where MODEL answers.")
@click.option("--prefect-port", default=4200, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; no server here asks for a login.")
@click.pass_obj
def serve(root: Path, model: str | None, port: int, prefect_port: int, mlflow_port: int, host: str) -> None:
    """The pages of Prefect and MLflow over this project's stores, on this machine only, until Ctrl-C. With MODEL (name@champion or name@3), the model itself:
    every file is held against the ledger before anything of it is imported, and a private copy is what answers.

    Example:  recompress serve quickstart@champion
    """
    if model is not None:
        from tasks.people.serve import serve_model

        sys.exit(serve_model(project(root), model, host, port, say))
    from tasks.running.orchestrate import serve_pages

    sys.exit(serve_pages(root, host, prefect_port, mlflow_port, say))


for command in (init, *PEOPLE, *SHIPPING):
    main.add_command(command)

if __name__ == "__main__":
    main()
