"""Serving through the door that checks from outside: what was changed is refused before a line of it is run, and what answers is a copy that nobody else can change."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
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
from tests.tasks.tracking.stores import new_store
from tests.tasks.tracking.test_registry import MODEL, Project
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
TEXTS = ["leo kula jana", "juma cheza"]


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


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


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
@pytest.mark.parametrize("command", ["serve", "audit check", "audit check --to"])
def test_a_replaced_check_is_refused_from_outside_and_never_runs(served: Served, tmp_path: Path, name: str, command: str) -> None:
    more = [str(tmp_path / "copy")] if command.endswith("--to") else ["--port", free_port()] if command == "serve" else []
    verb, *options = command.replace("audit check", "audit-check").split()
    with served.changed(name):
        line = served.refused(*verb.split("-"), f"{MODEL}@champion", *options, *more)
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
        assert MANIFEST_FILE in served.refused("serve", f"{MODEL}@champion", "--port", free_port())
        served.registry.set_tag(MODEL, "1", MANIFEST_TAG, served.manifest)
        (served.version / MANIFEST_FILE).write_bytes(before)


def test_an_alias_that_the_ledger_did_not_move_is_refused(served: Served) -> None:
    version = served.registry.create_version(MODEL, served.root / "candidate", {})
    served.registry.move_champion(MODEL, version)
    try:
        assert f"names version {version}, but by the ledger it is version 1" in served.refused("audit", "check", f"{MODEL}@champion")
        served.refused("serve", MODEL, "--port", free_port())
        assert "1" in served.refused("audit", "check", f"{MODEL}@{version}", code=2), "it was never promoted"
        assert served.call("audit", "check", f"{MODEL}@1")[0] == 0
    finally:
        served.registry.move_champion(MODEL, "1")


def test_a_port_that_is_taken_is_named_before_anything_is_copied(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another port with --port" in served.refused("serve", f"{MODEL}@champion", "--port", port, code=1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_what_answers_is_a_private_copy_and_a_signal_ends_it_all(served: Served, number: signal.Signals, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "flows.cli", "--root", str(served.root), "serve", f"{MODEL}@champion", "--port", port]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not any("it answers at" in line for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        assert served.manifest in lines[0]
        [private] = tmp_path.glob("recompress-serve-*")
        assert private.stat().st_mode & 0o077 == 0
        with served.changed("pyfunc_model.py"):
            body = json.dumps({"inputs": TEXTS}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                predictions = json.loads(answer.read())["predictions"]
            assert not served.marker.exists()
        assert predictions == json.loads(json.dumps(Predictor(served.version / MODEL_FOLDER)(TEXTS)))
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        after = process.stderr.read()
        assert (process.wait(), "ended by SIGTERM" in after, "Traceback" in after) == (128 + number, True, False), after
    _, left = psutil.wait_procs(children, timeout=5)
    assert left == []
    assert list(tmp_path.iterdir()) == [], "the copy is gone"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2)
