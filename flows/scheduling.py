"""The command that puts recipes on a schedule."""

from __future__ import annotations

from pathlib import Path

import click

from flows.terminal import FILE, as_json, say, show
from recompress.errors import InputError
from tasks.running.home import only_recipe


@click.command()
@click.argument("recipe", type=FILE, required=False)
@click.option("--cron", metavar="LINE", help="When: minute, hour, day, month, weekday, like '15 3 * * *'.")
@click.option("--every", metavar="DURATION", help="Or how often: a number with m, h or d behind it, like 1d; counted from now.")
@click.option("--timezone", "zone", metavar="NAME", help="The zone of --cron, like Europe/Berlin; UTC when left out.")
@click.option("--watch", is_flag=True, help="Schedule a look at all recipes (recompress watch --once) in place of a run of one.")
@click.option("--remove", "removing", is_flag=True, help="Take the schedule away; runs that were stay on record.")
@click.option("--write", "writing", is_flag=True, help="Write prefect.yaml from the recipes, for `prefect deploy`; needs no server.")
@as_json
@click.pass_obj
def schedule(
    root: Path, recipe: Path | None, cron: str | None, every: str | None, zone: str | None, watch: bool, removing: bool, writing: bool, json_: bool
) -> None:
    """Run a recipe at times, by a worker of the Prefect server that PREFECT_API_URL names: `prefect worker start --pool recompress`. Without options, what is
    scheduled is listed. RECIPE may be left out where the project has but one. The same command again changes nothing; with another time it changes that.

    Needs PostgreSQL under Prefect, MLflow (MLFLOW_TRACKING_URI) and the ledger (RECOMPRESS_LEDGER).

    Example:  recompress schedule recipes/quickstart.yaml --cron '15 3 * * *' --timezone Europe/Berlin
    """
    from tasks.running.orchestrate import prepare
    from tasks.schedule import deployed
    from tasks.schedule.prefect_yaml import stale, write_prefect_yaml

    here, when = root.resolve(), any(value is not None for value in (cron, every, zone))
    if watch and recipe is not None:
        raise InputError(f"--watch looks at all recipes, so it takes none, got {recipe}; leave one of the two out")
    if writing:
        if recipe is not None or when or watch or removing:
            raise InputError("--write is for all recipes and knows no times; give it alone")
        changed = write_prefect_yaml(here)
        return show(
            {"file": str(here / "prefect.yaml"), "changed": changed}, json_, lambda: f"prefect.yaml {'is written' if changed else 'is that of the recipes'}"
        )
    prepare(here)
    if why := stale(here):
        say(f"prefect.yaml: {why}")
    if removing:
        if when:
            raise InputError("--remove takes no time; leave --cron, --every and --timezone out")
        return _remove(here, recipe, watch, json_)
    if recipe is not None or when or watch:
        return _put(here, recipe, watch, (cron, every, zone), json_)
    rows = deployed.listed(here)
    return show(rows, json_, lambda: deployed.tell(rows))


def _put(root: Path, recipe: Path | None, watch: bool, when: tuple[str | None, str | None, str | None], json_: bool) -> None:
    from tasks.running.recompression import read_plan
    from tasks.schedule.deployment import deployment_of, deployment_of_watch
    from tasks.schedule.scheduling import put
    from tasks.schedule.timing import read_timing

    timing = read_timing(*when)
    wanted = (
        deployment_of_watch(root) if watch else deployment_of(root, read_plan(str(recipe or only_recipe(root)), root).path)
    )  # refused now, and not in the night
    scheduled = put(root, wanted, timing)
    show(scheduled.as_json(), json_, scheduled.text)


def _remove(root: Path, recipe: Path | None, watch: bool, json_: bool) -> None:
    from tasks.schedule.deployment import place_of
    from tasks.schedule.scheduling import remove

    what = "" if watch else place_of(root, recipe or only_recipe(root))
    gone = remove(root, what)
    show({"removed": gone}, json_, lambda: f"no longer scheduled: {', '.join(gone)}" if gone else f"{what or 'the watch'} was not scheduled")


SCHEDULING = (schedule,)
