"""The command that serves: a model, or the pages of Prefect and MLflow."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flows.terminal import project, say


@click.command()
@click.argument("model", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; no server here asks for a login.")
@click.option("--port", default=5001, show_default=True, help="Where MODEL answers.")
@click.option("--max-bytes", default=1 << 20, show_default=True, help="Of a request.")
@click.option("--max-rows", default=256, show_default=True, help="Of a request.")
@click.option("--max-characters", default=20_000, show_default=True, help="Of a row.")
@click.option("--queue", default=1024, show_default=True, help="Rows that may wait; who comes then is told to come again (503).")
@click.option("--threads", type=click.IntRange(min=1), help="Rows that are answered at the same time; as many as there are cores when left out.")
@click.option("--look-every", type=click.FloatRange(min=0.1), default=5.0, show_default=True, metavar="SECONDS", help="How often the alias is looked at.")
@click.option(
    "--with", "server", type=click.Choice(["recompress", "mlflow"]), default="recompress", show_default=True, help="Whose server. The limits are ours."
)
@click.option("--prefect-port", default=4200, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.pass_obj
def serve(
    root: Path,
    model: str | None,
    host: str,
    port: int,
    max_bytes: int,
    max_rows: int,
    max_characters: int,
    queue: int,
    threads: int | None,
    look_every: float,
    server: str,
    prefect_port: int,
    mlflow_port: int,
) -> None:
    """A model over HTTP (name@champion or name@3), on this machine only, until Ctrl-C. Every file is held against the ledger before anything of it is opened, a
    private copy is what answers, and what is promoted next takes over when it was checked too. Without MODEL, the pages of Prefect and MLflow.

    Example:  recompress serve quickstart@champion
    """
    if model is None:
        from tasks.running.orchestrate import serve_pages

        sys.exit(serve_pages(root, host, prefect_port, mlflow_port, say))
    if server == "mlflow":
        from tasks.people.serve_by_mlflow import serve_by_mlflow

        sys.exit(serve_by_mlflow(project(root), model, host, port, say))
    from recompress.serving.limits import Limits
    from tasks.people.serve import serve_model
    from tasks.running.threads import cores

    limits = Limits(body_bytes=max_bytes, rows=max_rows, characters=max_characters, queue=queue, threads=threads or cores())
    sys.exit(serve_model(root, model, host, port, limits, look_every, say))
