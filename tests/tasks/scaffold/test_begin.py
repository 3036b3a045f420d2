"""``recompress init``: a project that stands, in an empty folder and in somebody's repository, of which nothing changes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from flows.cli import main
from recompress.data.version import version_of
from recompress.errors import DataRefused, InputError
from recompress.integrity.digest import sha256_file
from recompress.models.checkpoint import save
from recompress.recipe import read_recipe
from recompress.settings.file import SettingsFile
from tasks.data.bring import status
from tasks.data.pins import measure, tracked
from tasks.data.workbench import run_dvc
from tasks.people.doctor import examine
from tasks.running.home import find_root, only_recipe
from tasks.scaffold import cutting
from tasks.scaffold.begin import begin
from tasks.scaffold.dials import margin_for
from tasks.scaffold.filling import Wanted, slug
from tasks.scaffold.place import place_for
from tasks.scaffold.staging import STAGING
from tests.tasks.scaffold.conftest import write_tickets
from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parents[3]
MADE = {".dvc", ".dvcignore", ".gitignore", "dvc.lock", "dvc.yaml", "params.yaml", "policies", "prepared", "raw", "recipes", "tickets.csv"}


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file, git's own left out: it writes when it is asked."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Path, Result]:
    """A project in a folder that held nothing but data, and what the command said."""
    folder = tmp_path_factory.mktemp("somebody") / "an ä % folder"
    folder.mkdir()
    write_tickets(folder / "tickets.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(main, ["init", "--data", "tickets.csv", "--base", str(base), "--json"])
    assert done.exit_code == 0, done.stderr
    return folder, done


def test_in_a_folder_with_nothing_but_data_the_project_stands(begun: tuple[Path, Result]) -> None:
    folder, done = begun
    facts = json.loads(done.stdout)
    assert (facts["folder"], facts["name"], sum(facts["rows"].values())) == (str(folder), "tickets", 400)
    assert {path.name for path in folder.iterdir()} == MADE
    for fact in ("csv", "id, text, label", "text-classification", "food", "Latin", "drawn from train"):
        assert fact in done.stderr, fact
    [row] = status(folder)
    assert (row["state"], row["rows"]) == ("ready", facts["rows"])
    assert row["rows"]["test"] >= 100
    assert (folder / "raw" / "tickets" / "tickets.csv").read_bytes() == (folder / "tickets.csv").read_bytes()
    assert measure(folder / "raw" / "tickets").md5 == tracked(folder)["raw/tickets"].md5
    assert "up to date" in run_dvc(folder, folder, "status").stdout
    assert find_root(folder / "recipes") == folder
    assert [finding for finding in examine(folder) if finding.state == "missing"] == []
    before = contents(folder)
    with pytest.raises(InputError, match="is a Recompress project already, and nothing in it was touched"):
        begin(None, folder, Wanted(Path("tickets.csv"), "no matter"))
    assert contents(folder) == before


def test_recipe_and_policy_fit_the_data_and_the_base(begun: tuple[Path, Result]) -> None:
    folder, done = begun
    plan, rows = read_recipe(folder / only_recipe(folder), folder), json.loads(done.stdout)["rows"]
    assert (plan.recipe.baseline.max_length, plan.recipe.baseline.epochs, plan.recipe.register_.model) == (16, 5, "tickets")
    assert (plan.recipe.base.sha256, plan.recipe.dataset.name) == (sha256_file(Path(plan.recipe.base.model) / "model.safetensors"), "tickets")
    assert plan.policy.min_examples.overall <= rows["test"]
    assert plan.policy.baseline.margin == margin_for(rows["test"])
    assert SettingsFile(folder / "params.yaml").values["code"] == {"prepare": version_of("prepare")}


@pytest.mark.parametrize("width, dials", [(32, {"embeddings": "int4"}), (40, {})])
def test_tables_in_4_bits_are_proposed_where_the_width_of_the_base_has_blocks(here: Path, tmp_path: Path, width: int, dials: dict[str, str]) -> None:
    """Elsewhere the step would be refused when everything before it has been trained."""
    save(tiny_checkpoint("text-classification", hidden=width), tmp_path / "base")
    begin(None, here, Wanted(Path("tickets.csv"), str(tmp_path / "base")))
    text = (here / "recipes" / "tickets.yaml").read_text()
    assert SettingsFile(here / "recipes" / "tickets.yaml").values["variants"]["small"][-1] == {"dynamic_int8": dials}
    assert ("in 4 bits" in text, "{ }" in text) == (bool(dials), False)


def test_every_dial_has_a_comment(begun: tuple[Path, Result]) -> None:
    plain = ("name:", "benchmark:", "base:", "  model:", "  batch_size:", "    - ", "policy:", "metric:", "limits:")
    for file in ("recipes/tickets.yaml", "policies/tickets.yaml"):
        lines = (begun[0] / file).read_text().splitlines()
        assert [line for line in lines if line.strip() and "#" not in line and not line.startswith(plain)] == [], file


def test_in_a_repository_with_dvc_it_is_a_folder_of_its_own_and_shares_the_cache(here: Path, base: Path) -> None:
    """Nothing that is there changes, DVC's own files and git's index included; the surrounding ``dvc status`` and ``dvc repro`` say what they said."""
    subprocess.run(["git", "init", "-q"], cwd=here, check=True)
    run_dvc(here, here, "init", "-q")
    (here / "params.yaml").write_text("alpha: 1\n")
    (here / "dvc.yaml").write_text("stages:\n  train:\n    cmd: cp params.yaml model\n    deps: [params.yaml]\n    outs: [model]\n")
    assert run_dvc(here, here, "repro").returncode == 0
    subprocess.run(["git", "add", "-A"], cwd=here, check=True)
    before, index = contents(here), (here / ".git" / "index").read_bytes()
    begun = begin(None, here, Wanted(Path("tickets.csv"), str(base)))
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
        begin(Path("other"), here, Wanted(Path("tickets.csv"), str(base)))
    assert {path.name for path in other.iterdir()} == {"params.yaml", "prepared"}
    with pytest.raises(InputError, match=r"tickets\.csv is a file; name a folder"):
        begin(Path("tickets.csv"), here, Wanted(Path("tickets.csv"), str(base)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": "nothing.csv"}, (DataRefused, InputError), "nothing.csv"),
        ({"base": "nowhere"}, InputError, "nowhere"),
        ({"base": "package://not_installed_anywhere/model"}, InputError, "is not installed"),
        ({"name": "Übel/../x"}, InputError, "--name is of at most 60"),
        ({"name": "null"}, InputError, "--name 'null' is no word in YAML, where it will stand, but NoneType; begin it with a word"),
        ({"data": "few.csv"}, DataRefused, "60 rows are too few: the gate judges at least 100"),
        ({"data": "empty.csv"}, DataRefused, r"empty\.csv is empty"),
        ({"data": "head.csv"}, DataRefused, "there is no row with a column or key"),
        (
            {"data": "one.csv"},
            InputError,
            r"no column of text, label tells two or more labels apart, so .* say which column is the label \(--set label=COLUMN\)",
        ),
        ({"data": "one.csv", "set": "label=label"}, DataRefused, r"one\.csv has one label, 'food'; a classifier needs two to tell apart"),
        ({"data": "tickets.csv", "set": "labl=x"}, InputError, "did you mean 'label'"),
    ],
)
def test_what_will_not_do_is_refused_and_leaves_nothing(here: Path, base: Path, change: dict[str, str], error: type[Exception], message: str) -> None:
    write_tickets(here / "few.csv", 60)
    for name, text in (("empty", ""), ("head", "text,label\n"), ("one", "text,label\n" + "".join(f"leo kula {i},food\n" for i in range(300)))):
        (here / f"{name}.csv").write_text(text)
    before = contents(here)
    given = {"data": "tickets.csv", "base": str(base), **change}
    with pytest.raises(error, match=message) as refused:
        begin(Path("new/project"), here, Wanted(Path(given["data"]), given["base"], name=given.get("name"), dials=(given["set"],) if "set" in given else ()))
    assert "\n" not in str(refused.value)
    assert contents(here) == before
    assert not (here / "new").exists()


def test_a_broken_dvc_yaml_is_told_by_its_line(here: Path, base: Path) -> None:
    (here / "dvc.yaml").write_text("stages:\n  - [\n")
    with pytest.raises(InputError, match=r"not valid YAML: .*dvc\.yaml:3"):
        begin(None, here, Wanted(Path("tickets.csv"), str(base)))


def test_data_that_cannot_be_prepared_leaves_nothing(here: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DataRefused("no")

    monkeypatch.setattr(cutting, "accept", refuse)
    before = contents(here)
    for folder in (None, Path("new/project")):
        with pytest.raises(DataRefused):
            begin(folder, here, Wanted(Path("tickets.csv"), str(base)))
        assert contents(here) == before
    assert {path.name for path in here.iterdir()} == {"tickets.csv"}


@pytest.mark.parametrize("given", ["--base", "--data"])
def test_what_is_needed_is_named(given: str) -> None:
    refused = CliRunner().invoke(main, ["init", given, "x"])
    assert refused.exit_code == 2
    assert f"{'--data' if given == '--base' else '--base'} is missing: recompress init --data" in refused.stderr


@pytest.mark.parametrize(
    ("number", "code"), [*(pytest.param(number, 128 + number, marks=pytest.mark.long) for number in (signal.SIGTERM, signal.SIGINT)), (signal.SIGKILL, -9)]
)
def test_ended_in_the_middle_nothing_of_a_project_is_left_and_the_next_one_works(here: Path, base: Path, number: signal.Signals, code: int) -> None:
    """While DVC prepares the data. A kill that cannot be told of leaves one folder, which the next ``init`` clears away."""
    command = [sys.executable, "-m", "flows.cli", "init", "--data", "tickets.csv", "--base", str(base)]
    with subprocess.Popen(
        command,
        cwd=here,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it is ignored where the tests run in a shell's background
    ) as process:
        assert process.stderr is not None
        while "preparing the data" not in (line := process.stderr.readline()):
            assert line, "it ended before"
        process.send_signal(number)
        said = process.stderr.read()
    assert (process.returncode, "Traceback" in said) == (code, False), said
    assert {path.name for path in here.iterdir()} == {"tickets.csv"} | ({STAGING} if number == signal.SIGKILL else set())
    if number == signal.SIGKILL:
        assert begin(None, here, Wanted(Path("tickets.csv"), str(base))).folder == here
        assert {path.name for path in here.iterdir()} == MADE


@pytest.mark.parametrize(
    ("file", "name"),
    [("Tickets 2024", "tickets-2024"), ("123", "data-123"), ("null", "data-null"), ("2024-01-31", "data-2024-01-31"), ("yes", "data-yes"), ("Größe", "groe")],
)
def test_a_name_is_a_word_whatever_the_file_is_called(file: str, name: str) -> None:
    assert slug(file) == name
    assert yaml.safe_load(f"{name}: {name}") == {name: name}


@pytest.mark.parametrize("file", ["1e4", "1e-4", "12e03", "1_0e4", "0o17", "0x1f", "1_000", "12", "4e", "e4", "0b11", "1-2", "3d", "1e4-a"])
def test_a_name_is_a_word_for_dvc_too_which_reads_another_yaml(file: str) -> None:
    from ruamel.yaml import YAML

    name = slug(file)
    assert name in (file, f"data-{file}")
    assert YAML(typ="safe").load(name) == name == yaml.safe_load(name)


def test_a_project_below_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("kept")
    with pytest.raises(InputError, match=r"afile is no folder, so .*p5 cannot lie below it; choose another place"):
        place_for(tmp_path / "afile" / "p5", tmp_path, "topics")
