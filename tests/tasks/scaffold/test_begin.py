"""``recompress init``: a project that stands, in an empty folder and in somebody's repository, of which nothing changes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from flows.cli import main
from recompress.errors import DataRefused, InputError
from recompress.recipe import read_recipe
from tasks.data.bring import status
from tasks.data.workbench import run_dvc
from tasks.running.home import find_root
from tasks.scaffold import begin as beginning
from tasks.scaffold.begin import begin
from tests.tasks.scaffold.conftest import write_tickets

MADE = {".dvc", ".dvcignore", ".gitignore", "dvc.lock", "dvc.yaml", "params.yaml", "policies", "prepared", "raw", "recipes", "tickets.csv"}


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file, git's own left out: it writes when it is asked."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def test_in_a_folder_with_nothing_but_data_the_project_stands(here: Path, base: Path) -> None:
    before = contents(here)
    lines: list[str] = []
    begun = begin(None, here, Path("tickets.csv"), str(base), say=lines.append)
    assert (begun.folder, begun.name) == (here, "tickets")
    assert {path.name for path in here.iterdir()} == MADE
    assert contents(here).items() >= before.items()
    told = "\n".join(lines)
    for fact in ("csv", "id, text, label", "text-classification", "food", "Latin", "test, dev" if "test, dev" in told else "dev, test"):
        assert fact in told, fact
    [row] = status(here)
    assert (row["state"], sum(row["rows"].values())) == ("ready", 400)
    assert row["rows"]["test"] >= 100
    plan = read_recipe(here / "recipes" / "tickets.yaml", here)
    assert plan.recipe.baseline.max_length == 32
    assert plan.policy.min_examples.overall <= row["rows"]["test"]
    assert "up to date" in run_dvc(here, here, "status").stdout
    assert find_root(here / "recipes") == here
    with pytest.raises(InputError, match=r"is a Recompress project already"):
        begin(None, here, Path("tickets.csv"), str(base))


def test_every_dial_has_a_comment(here: Path, base: Path) -> None:
    begin(None, here, Path("tickets.csv"), str(base))
    for file in ("recipes/tickets.yaml", "policies/tickets.yaml"):
        lines = (here / file).read_text().splitlines()
        plain = ("name:", "benchmark:", "base:", "  model:", "  batch_size:", "    - ", "policy:", "metric:", "limits:")
        bare = [line for line in lines if line.strip() and "#" not in line and not line.startswith(plain)]
        assert bare == [], file


def test_in_a_repository_with_dvc_it_is_a_folder_of_its_own_and_shares_the_cache(here: Path, base: Path) -> None:
    """Nothing that is there changes, DVC's own files and git's index included; the surrounding ``dvc status`` and ``dvc repro`` say what they said."""
    subprocess.run(["git", "init", "-q"], cwd=here, check=True)
    run_dvc(here, here, "init", "-q")
    (here / "params.yaml").write_text("alpha: 1\n")
    (here / "dvc.yaml").write_text("stages:\n  train:\n    cmd: cp params.yaml model\n    deps: [params.yaml]\n    outs: [model]\n")
    assert run_dvc(here, here, "repro").returncode == 0
    subprocess.run(["git", "add", "-A"], cwd=here, check=True)
    before, index = contents(here), (here / ".git" / "index").read_bytes()
    begun = begin(None, here, Path("tickets.csv"), str(base))
    assert begun.folder == here / "tickets"
    assert str(here) in begun.place
    after = contents(here)
    assert {path: after[path] for path in before} == before
    assert (here / ".git" / "index").read_bytes() == index
    assert {path.split("/")[0] for path in after.keys() - before.keys()} == {"tickets", ".dvc"}
    assert {"/".join(path.split("/")[:2]) for path in after.keys() - before.keys() if path.startswith(".dvc/")} <= {".dvc/cache", ".dvc/tmp"}
    assert not (here / "tickets" / ".dvc").exists()
    assert find_root(here) == here / "tickets", "the next command is `recompress run`, from where init was called"
    assert "up to date" in run_dvc(here, here, "status").stdout
    untracked = subprocess.run(["git", "status", "--short", "-uall"], cwd=here, check=True, capture_output=True, text=True).stdout.split()[1::2]
    assert {path for path in untracked if "prepared" in path or "tickets/raw/tickets/" in path} == set()
    assert "tickets/raw/tickets.dvc" in untracked


def test_a_folder_that_was_asked_for_and_has_such_files_is_refused_by_name(here: Path, base: Path) -> None:
    other = here / "other"
    other.mkdir()
    (other / "params.yaml").write_text("alpha: 1\n")
    (other / "prepared").mkdir()
    with pytest.raises(InputError, match=r"params\.yaml, prepared are in .*other already, and nothing there is overwritten; .*recompress init .*other/tickets"):
        begin(Path("other"), here, Path("tickets.csv"), str(base))
    assert {path.name for path in other.iterdir()} == {"params.yaml", "prepared"}
    with pytest.raises(InputError, match=r"tickets\.csv is a file; name a folder"):
        begin(Path("tickets.csv"), here, Path("tickets.csv"), str(base))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": "nothing.csv"}, (DataRefused, InputError), "nothing.csv"),
        ({"base": "nowhere"}, InputError, "nowhere"),
        ({"base": "package://not_installed_anywhere/model"}, InputError, "is not installed"),
        ({"name": "Übel/../x"}, InputError, "--name is of at most 60"),
        ({"data": "few.csv"}, DataRefused, "60 rows are too few: the gate judges at least 100"),
    ],
)
def test_what_will_not_do_is_refused_and_leaves_nothing(here: Path, base: Path, change: dict[str, str], error: type[Exception], message: str) -> None:
    write_tickets(here / "few.csv", 60)
    before = contents(here)
    given = {"data": "tickets.csv", "base": str(base), **change}
    with pytest.raises(error, match=message) as refused:
        begin(Path("new/project"), here, Path(given["data"]), given["base"], name=given.get("name"))
    assert "\n" not in str(refused.value)
    assert contents(here) == before
    assert not (here / "new").exists()


def test_data_that_cannot_be_prepared_leaves_nothing(here: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DataRefused("no")

    monkeypatch.setattr(beginning, "accept", refuse)
    before = contents(here)
    for folder in (None, Path("new/project")):
        with pytest.raises(DataRefused):
            begin(folder, here, Path("tickets.csv"), str(base))
        assert contents(here) == before
    assert {path.name for path in here.iterdir()} == {"tickets.csv"}


def test_the_command_says_what_it_understood_and_what_comes_next(here: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    done = CliRunner().invoke(main, ["init", "mine", "--data", "tickets.csv", "--base", str(base), "--name", "t-1", "--json"])
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["folder"], facts["name"], sum(facts["rows"].values())) == (str(here / "mine"), "t-1", 400)
    assert yaml.safe_load((here / "mine" / "recipes" / "t-1.yaml").read_text())["register"] == {"model": "t-1"}
    for missing in (["--base", str(base)], ["--data", "tickets.csv"]):
        refused = CliRunner().invoke(main, ["init", *missing])
        assert refused.exit_code == 2
        assert "is missing: recompress init --data" in refused.stderr
