"""A project that an earlier version ran goes on: its champions are served, traced, verified and rolled back to, although the code has moved since.

``project-1`` holds two promotions of the toy project (version 2 is champion), made at commit 5ed767d in ``/srv/toy`` and packed without the artifacts of steps.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main

GOLDEN = Path(__file__).parent.parent / "golden"
PLACES = (("runs", "artifact_uri"), ("experiments", "artifact_location"), ("model_versions", "source"), ("model_versions", "storage_location"))
"""Where MLflow's database names the folder that the project was made in."""
SERVE = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
served = mlflow.pyfunc.load_model("models:/toy@champion")
import recompress
print(json.dumps({"answers": served.predict(pandas.DataFrame({"text": ["leo kula jana"]})), "code": recompress.__file__}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden") / "project"
    with tarfile.open(GOLDEN / "project-1.tar.xz") as archive:
        archive.extractall(root, filter="data")
    with sqlite3.connect(root / "mlflow" / "store" / "mlflow.db") as database:
        for table, column in PLACES:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, '/srv/toy', ?)", (str(root),))
    database.close()
    return root


def ask(project: Path, *arguments: str) -> Any:
    result = CliRunner().invoke(main, ["--root", str(project), *arguments, "--json"], env={"RECOMPRESS_ACTOR": "tester"})
    assert result.exit_code == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def served(project: Path) -> dict[str, Any]:
    """What MLflow's own loading of the champion answers, in a clean process."""
    inside = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "RECOMPRESS_", "PYTHONPATH"))}
    command = [sys.executable, "-c", SERVE, f"sqlite:///{project / 'mlflow' / 'store' / 'mlflow.db'}"]
    completed = subprocess.run(command, cwd=project, capture_output=True, text=True, env=inside, timeout=240, check=False)
    assert completed.returncode == 0, completed.stderr[-2000:]
    answer: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return answer


def test_its_champion_is_verified_traced_served_and_rolled_back_to(project: Path) -> None:
    assert ask(project, "audit", "verify")["holds"] is True
    trace = ask(project, "audit", "trace", "toy@champion")
    assert (trace["model"], trace["version"]) == ("toy", "2")

    before = ask(project, "predict", "toy@champion", "leo kula jana")["predictions"]
    newer = served(project)
    assert [row["label"] for row in newer["answers"]] == [row["label"] for row in before]
    assert Path(newer["code"]).is_relative_to(project), "a version is served by the code that it carries"

    ask(project, "rollback", "toy", "--reason", "the newer one is too small for its task")
    trace = ask(project, "audit", "trace", "toy@champion")
    assert (trace["model"], trace["version"]) == ("toy", "1")
    assert [row["label"] for row in served(project)["answers"]] == [
        row["label"] for row in ask(project, "predict", "toy@champion", "leo kula jana")["predictions"]
    ]
    assert ask(project, "audit", "verify")["holds"] is True


@pytest.mark.parametrize("version", ["1", "2"])
def test_its_bundles_verify(project: Path, version: str) -> None:
    report = ask(project, "audit", "verify", str(project / "evidence" / f"toy-v{version}"), "--key", str(project / "keys" / "recompress.pub.pem"))
    assert (report["model"], report["version"]) == ("toy", version)
