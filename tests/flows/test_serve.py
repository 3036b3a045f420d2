"""Serving through the door that checks from outside: what was changed is refused before a line of it is run, and what answers is a copy that nobody else can change."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from flows.cli import main
from recompress.integrity.digest import sha256_manifest
from recompress.integrity.model_files import MANIFEST_FILE, MODEL_FOLDER, check_version, write_manifest
from recompress.models.checkpoint import save
from recompress.predict import Predictor
from recompress.promotion import MANIFEST_TAG
from tests.flows.serving_project import serving
from tests.servers import free_port
from tests.tasks.tracking.stores import new_store
from tests.tasks.tracking.test_registry import MODEL, Project
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
TEXTS = ["leo kula jana", "juma cheza"]
BODIES = (
    {"inputs": TEXTS},
    {"instances": TEXTS},
    {"dataframe_records": [{"text": text} for text in TEXTS]},
    {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}},
)
"""The same question in every form that MLflow's server and ours read."""


class Served(Project):
    """A project whose champion is version 1; ``marker`` is written by code that somebody put into it, when that code runs."""

    def __init__(self, root: Path) -> None:
        super().__init__(new_store(root))
        (root / "dvc.yaml").write_text("stages: {}\n")
        save(tiny_checkpoint("text-classification"), root / "candidate")
        self.promote(root / "candidate")
        self.version = self.registry.fetch(MODEL, "1")
        self.manifest = (self.registry.tags(MODEL, "1") or {})[MANIFEST_TAG]
        self.marker = root / "it-ran"

    def call(self, *arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(main, ["--root", str(self.root), *arguments], catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    def refused(self, *arguments: str, code: int = 5) -> str:
        status, _, err = self.call(*arguments)
        assert status == code, err
        [line] = [line for line in err.splitlines() if line.startswith("recompress: ")]
        assert not self.marker.exists(), "code of the version ran"
        return line

    @contextmanager
    def changed(self, name: str) -> Iterator[None]:
        """Code that leaves a mark when it is imported, or a model that says that nobody need check it."""
        file = self.version / name
        before = file.read_text()
        try:
            if name == "MLmodel":
                assert "unverified: false" in before
                file.write_text(before.replace("unverified: false", "unverified: true"))
            else:
                file.write_text(f"{before}\nfrom pathlib import Path as _P\n_P({str(self.marker)!r}).touch()\n")
            yield
        finally:
            file.write_text(before)
            self.marker.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"))


def test_a_version_that_holds_is_copied_whole(served: Served, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    code, out, err = served.call("audit", "check", f"{MODEL}@champion", "--to", str(target), "--json")
    assert code == 0, err
    checked = json.loads(out)
    assert (checked["model"], checked["version"], checked["manifest_sha256"], checked["folder"]) == (MODEL, "1", served.manifest, str(target))
    assert served.ledger.entries()[checked["record"] - 1].kind == "promotion-committed"
    assert sha256_manifest(check_version(target, served.manifest)) == sha256_manifest(check_version(served.version, served.manifest))
    assert served.manifest in served.call("audit", "check", f"{MODEL}@1")[1]
    assert "exists already" in served.refused("audit", "check", MODEL, "--to", str(target), code=2)


@pytest.mark.parametrize("name", ["pyfunc_model.py", "code/recompress/integrity/model_files.py", "MLmodel"])
@pytest.mark.parametrize("command", ["serve", "serve --with mlflow", "audit check", "audit check --to"])
def test_a_replaced_check_is_refused_from_outside_and_never_runs(served: Served, tmp_path: Path, name: str, command: str) -> None:
    more = [str(tmp_path / "copy")] if command.endswith("--to") else ["--port", str(free_port())] if command.startswith("serve") else []
    verb, *options = command.replace("audit check", "audit_check").split()
    with served.changed(name):
        line = served.refused(*verb.split("_"), f"{MODEL}@champion", *options, *more)
    assert name in line
    assert list(tmp_path.iterdir()) == [], "no part of it was copied"


def test_unguarded_the_replaced_code_runs_whatever_digest_is_pinned(served: Served) -> None:
    """What docs/trust.md says the unguarded way cannot promise: the check comes with the model."""
    load = "import sys, mlflow.pyfunc; mlflow.pyfunc.load_model(sys.argv[1])"
    environment = os.environ | {"MLFLOW_TRACKING_URI": served.store.uri, "RECOMPRESS_SERVE_MANIFEST": served.manifest}
    with served.changed("code/recompress/integrity/model_files.py"):
        done = subprocess.run([sys.executable, "-c", load, str(served.version)], env=environment, capture_output=True, text=True, check=False)
        assert served.marker.exists(), done.stderr


def test_a_new_manifest_over_the_new_code_is_no_way_in(served: Served) -> None:
    """Manifest and tag agree with the files; the ledger does not."""
    with served.changed("pyfunc_model.py"):
        before = (served.version / MANIFEST_FILE).read_bytes()
        served.registry.set_tag(MODEL, "1", MANIFEST_TAG, write_manifest(served.version))
        assert MANIFEST_FILE in served.refused("serve", f"{MODEL}@champion", "--port", str(free_port()))
        served.registry.set_tag(MODEL, "1", MANIFEST_TAG, served.manifest)
        (served.version / MANIFEST_FILE).write_bytes(before)


def test_an_alias_that_the_ledger_did_not_move_is_refused(served: Served) -> None:
    version = served.registry.create_version(MODEL, served.root / "candidate", {})
    served.registry.move_champion(MODEL, version)
    try:
        assert f"names version {version}, but by the ledger it is version 1" in served.refused("audit", "check", f"{MODEL}@champion")
        served.refused("serve", MODEL, "--port", str(free_port()))
        assert "1" in served.refused("audit", "check", f"{MODEL}@{version}", code=2), "it was never promoted"
        assert served.call("audit", "check", f"{MODEL}@1")[0] == 0
    finally:
        served.registry.move_champion(MODEL, "1")


@pytest.mark.parametrize("server", ["recompress", "mlflow"])
def test_a_port_that_is_taken_is_named_before_anything_is_copied(served: Served, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another port with --port" in served.refused("serve", f"{MODEL}@champion", "--port", port, "--with", server, code=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recompress", pytest.param("mlflow", marks=pytest.mark.long)])
def test_what_answers_is_a_private_copy_and_a_signal_ends_it_all(served: Served, name: str, tmp_path: Path) -> None:
    with serving(served.root, f"{MODEL}@champion", "--with", name, TMPDIR=str(tmp_path)) as server:
        server.until("it answers at")
        assert served.manifest in server.lines[0]
        [private] = tmp_path.glob("recompress-serve-*")
        assert private.stat().st_mode & 0o077 == 0
        expected = {"predictions": json.loads(json.dumps(Predictor(served.version / MODEL_FOLDER)(TEXTS)))}
        with served.changed("pyfunc_model.py"):
            for body in BODIES:
                status, _, answer = server.ask(body)
                assert (status, answer) == (200, expected), body
            assert not served.marker.exists()
        children = psutil.Process(server.process.pid).children(recursive=True)
        code, lines = server.end(signal.SIGTERM)
        assert code == 128 + signal.SIGTERM
        assert "ended by SIGTERM" in lines[-1]
        assert not any("Traceback" in line for line in lines)
    _, left = psutil.wait_procs(children, timeout=5)
    assert left == []
    assert list(tmp_path.iterdir()) == [], "the copy is gone"
    with pytest.raises(ConnectionRefusedError):
        server.ask(None, "/ping")
