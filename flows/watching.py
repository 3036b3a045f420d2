"""The commands that look ahead: what a run would do, and what has changed in the world."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flows.terminal import FILE, as_json, say, show
from tasks.running.home import only_recipe


@click.command()
@click.argument("recipe", type=FILE, required=False)
@as_json
@click.pass_obj
def plan(root: Path, recipe: Path | None, json_: bool) -> None:
    """What a run would do now, and why: each source, pinned and present; each step, found, changed or new, with the time that it took. Changes nothing.

    Example:  recompress plan recipes/quickstart.yaml
    """
    from tasks.watch.forecast import forecast

    foreseen = forecast(root.resolve(), str(recipe or only_recipe(root)))
    show(foreseen.as_json(), json_, foreseen.text)
    if foreseen.run.exit_code:
        sys.exit(foreseen.run.exit_code)


@click.command()
@click.argument("recipes", type=FILE, nargs=-1)
@click.option("--once", is_flag=True, help="One look, for cron and systemd; without it looks go on until Ctrl-C.")
@click.option("--listen", type=click.IntRange(0, 65535), help="A port on this machine at which any POST makes the next look sooner; for webhooks.")
@as_json
@click.pass_obj
def watch(root: Path, recipes: tuple[Path, ...], once: bool, listen: int | None, json_: bool) -> None:
    """Look at everything that recipes depend on (all of the project where none is named), and propose or run what has changed. watch.yaml says how often and how.

    Ends with 0 where nothing is wrong, 6 where a person has to decide, 7 where a source is not visible, and with what a run ended with.

    Example:  recompress watch --once
    """
    from recompress.watch.settings import read_watch_settings
    from tasks.watch.loop import look_once, recipes_of, watch_on
    from tasks.watch.tell import begin_telling, tell_people
    from tasks.watch.watcher import Watcher

    here = root.resolve()
    begin_telling(here)
    if not once:
        sys.exit(watch_on(here, recipes, say, lambda settings: tell_people(here, say, settings.budget), port=listen))
    looks, code = look_once(Watcher(here, read_watch_settings(here), say), recipes_of(here, recipes))
    tell_people(here, say)
    show(
        {"exit_code": code, "looks": [look.as_json() for look in looks]},
        json_,
        lambda: "\n".join(look.text() for look in looks) or "no recipe could be looked at",
    )
    sys.exit(code)


WATCHING = (plan, watch)
