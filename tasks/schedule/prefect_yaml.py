"""``prefect.yaml``, written from the recipes: what ``prefect deploy --all`` makes is what ``recompress schedule`` would make, but for when it begins."""

from __future__ import annotations

from pathlib import Path

import yaml

from recompress.errors import InputError, RecompressError
from tasks.schedule.deployment import deployments_of

FILE = "prefect.yaml"
MARK = "# Made from the recipes by `recompress schedule --write`"
"""Begins a file that is ours; one without it belongs to somebody, and is neither looked at nor written."""
HEAD = f"""{MARK}; what is changed here by hand is lost.
# prefect deploy --all deploys every recipe without a schedule (PREFECT_API_URL names the server; run it in this folder);
# recompress schedule RECIPE --cron '15 3 * * *' deploys one with a schedule. prefect deploy leaves schedules as they are.
"""


class _Written(yaml.SafeDumper):
    """What stands twice is written twice: YAML's aliases are for machines."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def text_of(root: Path) -> str:
    """What the file has to say. Raises ``InputError`` where a recipe cannot be read."""
    body = {"name": "recompress", "deployments": [one.as_yaml() for one in deployments_of(root)]}
    return HEAD + yaml.dump(body, Dumper=_Written, sort_keys=False, allow_unicode=True, width=160)


def write_prefect_yaml(root: Path) -> bool:
    """Write the file; gives whether it changed. Raises ``InputError`` where a file of that name is not ours."""
    file, text = root / FILE, text_of(root)
    before = _read(file)
    if before == text:
        return False
    if before is not None and not before.startswith(MARK):
        raise InputError(f"{file} was not made by this command, so it stays; move it away and write again")
    whole = file.with_name(f".{FILE}.new")
    whole.write_text(text, encoding="utf-8")
    whole.replace(file)
    return True


def stale(root: Path) -> str:
    """Why the file is not that of the recipes, in a line; empty where it is, where there is none, and where it is not ours."""
    before = _read(root / FILE)
    if before is None or not before.startswith(MARK):
        return ""
    try:
        if before == text_of(root):
            return ""
        wanted, there = ({one["name"] for one in yaml.safe_load(text)["deployments"]} for text in (text_of(root), before))
    except RecompressError as error:
        return str(error)
    except (yaml.YAMLError, KeyError, TypeError):
        wanted, there = set(), set()
    differing = [f"{name} is missing" for name in sorted(wanted - there)] + [f"{name} is of no recipe" for name in sorted(there - wanted)]
    return f"it is not that of the recipes ({', '.join(differing) or 'an entry differs'}); write it anew: recompress schedule --write"


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
