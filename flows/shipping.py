"""The commands that hand a model over: to another runtime, and to a hub."""

from __future__ import annotations

from pathlib import Path

import click

from flows.terminal import FILE, as_json, project, say, show


@click.command()
@click.argument("model")
@click.argument("folder", type=FILE)
@click.option("--to", "to", required=True, help="onnx, transformers, openvino, gguf or compressed-tensors.")
@as_json
@click.pass_obj
def export(root: Path, model: str, folder: Path, to: str, json_: bool) -> None:
    """Write a promoted version for another runtime, and prove that it answers there as it was judged. FOLDER is new.

    Example:  recompress export quickstart@champion --to onnx /srv/quickstart-onnx
    """
    from tasks.people.export import export_version, tell_export

    done = export_version(project(root), model, to, folder, say)
    show(done.as_json(), json_, lambda: tell_export(done))


@click.command()
@click.argument("folder", type=FILE)
@click.argument("repository")
@click.option("--public", is_flag=True, help="Let everybody see it; without this a repository that is made new is private.")
@as_json
@click.pass_obj
def push(root: Path, folder: Path, repository: str, public: bool, json_: bool) -> None:
    """Upload an exported folder to a hub repository, in one commit, after every file of it was checked. It is never done by itself.

    Example:  recompress push /srv/quickstart-onnx my-team/topics-int8
    """
    from tasks.people.push import push_export

    pushed = push_export(root, folder, repository, public=public, say=say)
    show(pushed, json_, lambda: f"{pushed['repository']} at {pushed['commit']}: {pushed['files']} files")


SHIPPING = (export, push)
