"""What a schedule needs and does not find is one line, and nothing is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from tests.tasks.watch.small_project import make_small_project

POSTGRESQL = "postgresql://somebody:S3cret@127.0.0.1:9/ledger"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    for name in ("PREFECT_API_URL", "RECOMPRESS_LEDGER", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return make_small_project(tmp_path / "project", model="owner/base", revision="a" * 40, sha256="b" * 64)


def ask(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--root", str(project), "schedule", *arguments])


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["recipes/toy.yaml"], "say when"),
        (["recipes/toy.yaml", "--cron", "x"], "--cron is five fields"),
        (["recipes/toy.yaml", "--every", "0d"], "--every is at least 1m"),
        (["recipes/none.yaml", "--every", "1d"], "does not exist"),
        (["recipes/toy.yaml", "--watch", "--every", "1d"], "--watch looks at all recipes"),
        (["--watch"], "say when"),
        (["recipes/toy.yaml", "--remove", "--every", "1d"], "--remove takes no time"),
        (["--write", "--every", "1d"], "--write is for all recipes"),
        ([], "PREFECT_API_URL names none; start one"),
        (["--remove"], "PREFECT_API_URL names none; start one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(project: Path, arguments: list[str], line: str) -> None:
    before = sorted(project.rglob("*"))
    result = ask(project, *arguments)
    assert result.exit_code == 2, result.output
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(project.rglob("*")) == before


def test_a_recipe_that_is_wrong_is_refused_by_line(project: Path) -> None:
    recipe = project / "recipes" / "toy.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "sed: 0"))
    result = ask(project, "--every", "1d")
    assert result.exit_code == 2
    assert "unknown key 'sed'" in result.stderr
    assert "toy.yaml:" in result.stderr


def test_sqlite_under_the_ledger_and_under_mlflow_is_refused_by_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal() -> str:
        result = ask(project, "--every", "1d", "--json")
        assert result.exit_code == 2, result.output
        return str(json.loads(result.stdout)["error"])

    assert "RECOMPRESS_LEDGER is not set, so the ledger is SQLite" in refusal()
    monkeypatch.setenv("RECOMPRESS_LEDGER", str(project / "ledger.db"))
    assert "RECOMPRESS_LEDGER is '" in refusal()
    monkeypatch.setenv("RECOMPRESS_LEDGER", POSTGRESQL)
    assert "MLFLOW_TRACKING_URI is not set, so MLflow's runs are in SQLite" in refusal()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'runs.db'}")
    assert "MLFLOW_TRACKING_URI is sqlite:///" in refusal()
    assert not (project / "ledger").exists()
    assert not (project / "mlflow").exists()


def test_a_server_that_does_not_answer_is_one_line_with_the_way_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    result = ask(project)
    assert result.exit_code == 1
    [line] = result.stderr.strip().splitlines()
    assert "http://127.0.0.1:9/api, does not answer" in line
    assert "start it: PREFECT_API_DATABASE_CONNECTION_URL=postgresql+asyncpg://" in line
