"""``recompress init`` without data, and ``recompress data add``: an empty project that is filled, and a full one that gets more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from recompress.errors import DataRefused, InputError
from recompress.recipe import read_recipe
from recompress.settings.file import SettingsFile
from tasks.data.bring import status
from tasks.data.workbench import run_dvc
from tasks.running.home import is_project, only_recipe
from tasks.scaffold import adding, staging
from tasks.scaffold.adding import add
from tasks.scaffold.filling import Wanted
from tests.tasks.scaffold.conftest import write_tickets
from tests.tasks.scaffold.test_begin import contents


def call(folder: Path, *arguments: str, code: int = 0) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(main, [*arguments])
    assert done.exit_code == code, done.stderr
    return done


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """An empty project, to which texts without labels and then tickets were added; each command is the one that the last named."""
    folder = tmp_path_factory.mktemp("empty")
    write_tickets(folder / "tickets.csv", 400)
    (folder / "words.txt").write_text("".join(f"leo {i} kula\n" for i in range(80)))
    begun = call(folder, "init")
    assert is_project(folder)
    assert "next: recompress data add FILE --base MODEL" in begun.stdout
    assert "no data set is described in params.yaml yet: recompress data add" in call(folder, "data", "status").stdout
    assert "recompress data add FILE --base MODEL" in call(folder, "run", code=2).stderr
    assert run_dvc(folder, folder, "status").returncode == 0
    first = json.loads(call(folder, "data", "add", "words.txt", "--json").stdout)
    assert (first["added"], first["recipe"], sum(first["rows"].values())) == ("words", "", 80)
    second = call(folder, "data", "add", "tickets.csv", "--base", str(base), "--set", "label=label")
    assert "next: recompress run recipes/tickets.yaml" in second.stdout
    return folder


def test_both_stand_there_pinned_and_the_recipe_can_be_run(filled: Path) -> None:
    assert [(row["name"], row["state"]) for row in status(filled)] == [("words", "ready"), ("tickets", "ready")]
    assert only_recipe(filled) == Path("recipes/tickets.yaml")
    plan = read_recipe(filled / "recipes" / "tickets.yaml", filled)
    assert (plan.recipe.dataset.name, plan.recipe.benchmark) == ("tickets", "text-classification")
    assert "up to date" in run_dvc(filled, filled, "status").stdout
    assert set(SettingsFile(filled / "params.yaml").values["datasets"]) == {"words", "tickets"}
    assert "# labels: [...]" in (filled / "params.yaml").read_text()


def test_a_name_that_is_taken_is_refused_and_nothing_changes(filled: Path, base: Path) -> None:
    before = contents(filled)
    with pytest.raises(InputError, match=r"has datasets\.tickets in params\.yaml, raw/tickets, .*recipes/tickets\.yaml already, .*another name with --name"):
        add(filled, filled, Wanted(Path("tickets.csv"), str(base)))
    write_tickets(filled / "few.csv", 60)
    with pytest.raises(DataRefused, match="60 rows are too few"):
        add(filled, filled, Wanted(Path("few.csv"), str(base)))
    (filled / "few.csv").unlink()
    assert contents(filled) == before


def test_settings_that_somebody_edits_meanwhile_are_not_lost(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, text = adding.fill, (filled / "params.yaml").read_text()

    def edits(*given: object) -> object:
        (filled / "params.yaml").write_text(text + "# mine\n")
        return usual(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(adding, "fill", edits)
    with pytest.raises(InputError, match=r"params\.yaml was changed meanwhile; nothing was added"):
        add(filled, filled, Wanted(Path("words.txt"), name="more"))
    assert (filled / "params.yaml").read_text() == text + "# mine\n"
    assert not (filled / "raw" / "more").exists()
    (filled / "params.yaml").write_text(text)


def test_killed_while_files_move_the_next_command_moves_the_rest(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After raw data, pin and prepared data, and before the settings that speak of them."""

    class Killed(BaseException):
        pass

    rename = Path.rename

    def dies(path: Path, target: Path) -> Path:
        if path.name == "params.yaml" and staging.STAGING in path.parts:
            raise Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(Killed):
        add(filled, filled, Wanted(Path("words.txt"), name="third"))
    monkeypatch.setattr(Path, "rename", rename)
    assert "third" not in (filled / "params.yaml").read_text()
    assert "the rest was moved now" in call(filled, "data", "add", "words.txt", "--name", "fourth", code=2).stderr
    assert [row["state"] for row in status(filled)] == ["ready"] * 3
    assert "fourth" not in (filled / "params.yaml").read_text()


@pytest.mark.parametrize("arguments", [("--base", "x"), ("--data", "x"), ("--name", "x"), ("--set", "text=x")])
def test_a_project_that_was_half_described_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert "is missing" in call(tmp_path, "init", *arguments, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_project_in_a_folder_that_has_such_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: 1\n")
    refused = call(tmp_path, "init", code=2).stderr
    assert "params.yaml is in" in refused
    assert "give the project a folder of its own: recompress init" in refused
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
