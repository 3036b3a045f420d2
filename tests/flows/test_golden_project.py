"""A project that an earlier version ran goes on: its champions are served, traced, verified and rolled back to, although the code has moved since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main

SERVE = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
served = mlflow.pyfunc.load_model("models:/toy@champion")
import recompress
print(json.dumps({"answers": served.predict(pandas.DataFrame({"text": ["leo kula jana"]})), "code": recompress.__file__}))
"""


def ask(golden: Path, *arguments: str) -> Any:
    result = CliRunner().invoke(main, ["--root", str(golden), *arguments, "--json"], env={"RECOMPRESS_ACTOR": "tester"})
    assert result.exit_code == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def served(golden: Path) -> dict[str, Any]:
    """What MLflow's own loading of the champion answers, in a clean process."""
    inside = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "RECOMPRESS_", "PYTHONPATH"))}
    command = [sys.executable, "-c", SERVE, f"sqlite:///{golden / 'mlflow' / 'store' / 'mlflow.db'}"]
    completed = subprocess.run(command, cwd=golden, capture_output=True, text=True, env=inside, timeout=240, check=False)
    assert completed.returncode == 0, completed.stderr[-2000:]
    answer: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return answer


@pytest.mark.long
def test_its_champion_is_verified_traced_served_and_rolled_back_to(golden: Path) -> None:
    assert ask(golden, "audit", "verify")["holds"] is True
    trace = ask(golden, "audit", "trace", "toy@champion")
    assert (trace["model"], trace["version"]) == ("toy", "2")

    before = ask(golden, "predict", "toy@champion", "leo kula jana")["predictions"]
    newer = served(golden)
    assert [row["label"] for row in newer["answers"]] == [row["label"] for row in before]
    assert Path(newer["code"]).is_relative_to(golden), "a version is served by the code that it carries"

    ask(golden, "rollback", "toy", "--reason", "the newer one is too small for its task")
    trace = ask(golden, "audit", "trace", "toy@champion")
    assert (trace["model"], trace["version"]) == ("toy", "1")
    assert [row["label"] for row in served(golden)["answers"]] == [
        row["label"] for row in ask(golden, "predict", "toy@champion", "leo kula jana")["predictions"]
    ]
    assert ask(golden, "audit", "verify")["holds"] is True


@pytest.mark.parametrize("version", ["1", "2"])
def test_its_bundles_verify(golden: Path, version: str) -> None:
    report = ask(golden, "audit", "verify", str(golden / "evidence" / f"toy-v{version}"), "--key", str(golden / "keys" / "recompress.pub.pem"))
    assert (report["model"], report["version"]) == ("toy", version)
