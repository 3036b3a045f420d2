"""The person's door: ``recompress COMMAND``.

Results go to stdout (one JSON object with ``--json``), progress and errors to stderr. Exit codes: 0 done · 1 an unexpected failure · 2 the input is wrong ·
3 the data was refused · 4 the gate refused every variant · 5 something does not match its digest · 6 waiting for approval · 7 a source is not
visible (``watch``).
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import click

from flows.begin import init
from flows.data import data
from flows.people import PEOPLE
from flows.policy import policy
from flows.scheduling import SCHEDULING
from flows.serving import serve
from flows.shipping import SHIPPING
from flows.stdout import only_results, write_result
from flows.terminal import Terminated, as_json, check_text, clearing_up, need_project, read_lines, say, show
from flows.watching import WATCHING
from recompress import __version__
from recompress.errors import InputError, RecompressError, StorageError
from tasks.ledger.user import give_home
from tasks.running.home import find_root, only_recipe

NEEDS_PROJECT = {"run", "predict", "report", "policy", "serve", "export", "approve", "reject", "promote", "rollback", "reproduce", "plan", "watch", "schedule"}
"""Commands that work on a project's stores. ``audit`` checks by itself, because a bundle verifies anywhere, and ``data``, because a file can be looked at anywhere."""
ANSWERS = {"plan", "predict", "report", "audit", "approve", "doctor", "methods"}
"""Commands that end as soon as they have answered."""


def workers_asked(_context: click.Context, _parameter: click.Parameter, value: str) -> int | Literal["auto"]:
    """A number, or ``auto``."""
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor auto") from None


class Door(click.Group):
    """Turns every error that a person is meant to read into one line and its exit code."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta["json"], context.meta["help"], context.meta["args"] = "--json" in args, bool({"--help", "-h"} & set(args)), tuple(args)
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            check_text(context.meta["args"])
            with nullcontext() if context.meta["help"] else only_results(), clearing_up():
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
        except Terminated:
            click.echo("\nrecompress: ended by SIGTERM. Nothing half-made was left.", err=True)
            context.exit(143)

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
    if context.invoked_subcommand in ANSWERS:  # a tenth of their time would go into looking for garbage, all of which ends with the process
        gc.disable()
        context.call_on_close(gc.enable)
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.INFO if verbose else logging.CRITICAL)  # on the handler: libraries set the levels of their own loggers
    logging.basicConfig(level=logging.INFO, handlers=[shown], format="%(name)s: %(message)s")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option("--propose", is_flag=True, help="End at the plan: what the gate lets through waits for an approval, whatever the policy says.")
@click.option(
    "--workers",
    callback=workers_asked,
    metavar="N|auto",
    default="1",
    show_default=True,
    help="How many variants are compressed at the same time; auto: as many as there are cores for. What comes out is the same; time is measured alone.",
)
@click.option("--pool", default="", metavar="NAME", help="A Prefect process work pool: its workers, on other machines, take the steps of variants.")
@as_json
@click.pass_obj
def run(root: Path, recipe: Path | None, propose: bool, workers: int | Literal["auto"], pool: str, json_: bool) -> None:
    """Recompress: data, checks, baseline, variants, measures, verdicts, promotion, page. RECIPE may be left out where the project has but one.

    Example:  recompress run recipes/quickstart.yaml

    Other recipes of the project may run beside it. Variants beside each other:  recompress run recipes/quickstart.yaml --workers auto
    """
    from flows.whole_way import found_again
    from tasks.running.orchestrate import prepare, run_flow
    from tasks.running.recompression import read_plan
    from tasks.running.threads import check_sharing, workers_for
    from tasks.watch.tell import begin_telling, tell_people

    recipe = recipe or only_recipe(root)
    plan = read_plan(str(recipe), root.resolve())  # a mistake is refused at once, before any server starts
    prepare(root)
    count = workers_for(workers, len(plan.steps), pool)
    check_sharing(count, pool)
    begin_telling(root)
    outcome = found_again(str(recipe), str(root), say, propose=propose) or run_flow(
        "recompress", root, say, recipe=str(recipe), propose=propose, workers=count, pool=pool
    )
    tell_people(root, say)
    show(outcome.as_json, json_, lambda: outcome.text)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


@main.command()
@click.argument("model")
@click.argument("text", nargs=-1)
@click.option("--context", help='The text that questions are asked about. Without it, each line is JSON: {"question": …, "context": …}.')
@click.option(
    "--tokens", type=click.IntRange(min=0), help="What a model of language writes at most, 128 when left out. 0: how well it foresees the text instead."
)
@click.option("--plain", is_flag=True, help="Continue the text as it stands, without the model's chat template.")
@as_json
@click.pass_obj
def predict(root: Path, model: str, text: tuple[str, ...], context: str | None, tokens: int | None, plain: bool, json_: bool) -> None:
    """Ask a model: a registered one (name or name@alias) or a model folder. Reads lines from stdin when no text is given.

    Example:  recompress predict quickstart@champion "Return the shortest path between two nodes."

    A model that finds answers takes questions:  recompress predict xquad@champion "Who won?" --context "The Broncos won."

    A model of language writes:  recompress predict smollm@champion "Who was Ada Lovelace?" --tokens 64
    """
    from tasks.tracking.registry import load_for_prediction
    from tasks.tracking.track import Store

    lines = text or read_lines()
    empty = next((number for number, line in enumerate(lines, start=1) if not line.strip()), None)
    if not lines or empty is not None:
        raise InputError("there is no text to predict; give some as arguments or on stdin" if not lines else f"text {empty} is empty; leave it out")
    answers = load_for_prediction(Store(root), root, model)(list(lines), context, tokens, plain)
    told = [answer["summary"] if "completion" in answer else f"{answer['summary']}\t{line}" for line, answer in zip(lines, answers, strict=True)]
    show({"model": model, "predictions": answers}, json_, lambda: "\n".join(told))


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@as_json
@click.pass_obj
def report(root: Path, recipe: Path | None, json_: bool) -> None:
    """Where the last page of a recipe is. RECIPE may be left out where the project has but one.

    Example:  recompress report recipes/quickstart.yaml
    """
    from tasks.people.pages import last_page

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


for command in (init, data, policy, serve, *WATCHING, *SCHEDULING, *PEOPLE, *SHIPPING):
    main.add_command(command)

if __name__ == "__main__":
    main()
