"""The person's door: help at once, one line for every mistake, the design's exit codes, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Path:
    """A project's folder with the recipes and policies of this one, and no data, stores or runs."""
    for name in ("recipes", "policies"):
        (tmp_path / name).mkdir()
        for file in (root / name).glob("*.yaml"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "dvc.yaml").write_bytes((root / "dvc.yaml").read_bytes())
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and ".prefect" not in path.parts}


def call(project: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["--root", str(project), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, flows.cli; heavy = {'torch', 'transformers', 'mlflow', 'prefect', 'pandas', 'numpy', 'great_expectations'} & set(sys.modules); print(sorted(heavy)); sys.exit(bool(heavy))"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


def test_every_command_has_help_with_an_example() -> None:
    groups = {name: command for name, command in main.commands.items() if hasattr(command, "commands")}
    commands = [(name,) for name in main.commands if name not in groups] + [(name, inner) for name, group in groups.items() for inner in group.commands]
    for path in commands:
        shown = CliRunner().invoke(main, [*path, "--help"])
        assert shown.exit_code == 0
        assert "Example:" in shown.stdout, path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("policy:", "polcy:"), "unknown key 'polcy'"),
        (("sparsity: 0.5", "sparsity: 1.5"), "sparsity is a share in [0, 1), got 1.5"),
        (("magnitude:", "magnitud:"), "unknown method 'magnitud'"),
        (("    - finetune: {epochs: 1}", "    - finetune: {epochs: 0}"), "epochs is a whole number from 1 to 1,000, got 0"),
        (("    - magnitude: {sparsity: 0.5}", "    - dynamic_int8: {}"), "dynamic_int8"),
        (("policies/quickstart.yaml", "policies/../../outside.yaml"), "lies outside the project"),
        (("policies/quickstart.yaml", "policies/none.yaml"), "does not exist"),
        (("text-classification", "text-clasification"), "benchmark"),
        (("  sha256: 53aa", "  sha255: 53aa"), "did you mean 'sha256'"),
        (("sparse_50:", "baseline:"), "'baseline' is the name of the uncompressed model"),
        (("sparse_50:", "champion:"), "'champion' is the name of the model in production"),
        (("sparse_50:", "accepted-baseline:"), "'accepted-baseline' is the name of the baseline behind the last promotion"),
        (("distill: {epochs: 5, hard_labels: 0.5}", "distill: {teacher: sparse_50}"), "teacher 'sparse_50' is no variant above 'small' (int8, trimmed_int8)"),
        (("distill: {epochs: 5, hard_labels: 0.5}", "distill: {teacher: int8}"), "teacher 'int8' ends with dynamic_int8, on onnx; name"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_with_its_place_and_writes_nothing(project: Path, change: tuple[str, str], message: str) -> None:
    recipe = project / "recipes" / "quickstart.yaml"
    text = recipe.read_text()
    assert change[0] in text
    recipe.write_text(text.replace(*change))
    before = files(project)
    from recompress.errors import InputError
    from recompress.recipe import read_recipe

    with pytest.raises(InputError, match="quickstart.yaml:") as caught:
        read_recipe(recipe, project)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(project) == before


def test_a_wrong_recipe_ends_with_exit_code_2_and_json_says_so(project: Path) -> None:
    code, out, err = call(project, "run", str(project / "recipes" / "none.yaml"), "--json")
    assert code == 2
    assert json.loads(out)["exit_code"] == 2
    assert err.strip().splitlines()[-1].startswith("recompress: ")
    assert "Traceback" not in err


def test_an_unknown_method_is_refused_with_the_nearest(project: Path) -> None:
    code, _, err = call(project, "methods", "prune_structur")
    assert code == 2
    assert "did you mean 'prune_structure'" in err


def test_methods_tells_all_and_one(project: Path) -> None:
    code, out, _ = call(project, "methods", "--json")
    assert code == 0
    methods = json.loads(out)
    assert {"dynamic_int8", "trim_vocabulary", "prune_structure", "distill", "magnitude", "finetune"} <= {m["name"] for m in methods}
    assert all(m["source"] and m["summary"] and all(dial["help"] for dial in m["dials"]) for m in methods)
    code, out, _ = call(project, "methods", "magnitude")
    assert code == 0
    assert "sparsity" in out


@pytest.mark.parametrize(
    "command", [("predict", "m", "x"), ("report",), ("data", "status"), ("rollback", "m", "--reason", "because of it"), ("reproduce", "m@1")]
)
def test_outside_a_project_nothing_is_written(tmp_path: Path, command: tuple[str, ...]) -> None:
    code, _, err = call(tmp_path, *command)
    assert code == 2
    assert "is not a Recompress project" in err
    assert "or begin one: recompress init --data FILE --base MODEL" in err
    assert not list(tmp_path.iterdir())


def test_text_that_is_not_text_is_refused(project: Path) -> None:
    result = CliRunner().invoke(main, ["--root", str(project), "predict", "m@champion"], input=b"\xff\xfe bad\n")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "stdin is not UTF-8" in result.stderr
    code, _, err = call(project, "predict", "m@champion", "a text", " ")
    assert (code, err) == (2, "recompress: text 2 is empty; leave it out\n")


def test_a_prefect_server_that_is_not_there_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    code, _, err = call(project, "run", str(project / "recipes" / "quickstart.yaml"))
    assert code == 1
    assert err.count("\n") == 1
    assert "PREFECT_API_URL names, http://127.0.0.1:9/api, does not answer" in err
