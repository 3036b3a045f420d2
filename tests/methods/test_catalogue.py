"""What the methods say of themselves: complete, and the same in the command and in the docs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recompress.methods import catalogue
from recompress.methods.catalogue import as_they_are, describe_all, example, explain, table
from recompress.methods.registry import FAMILIES, all_methods
from recompress.settings.file import SettingsFile


def test_the_table_in_the_docs_is_the_present_one(root: Path) -> None:
    assert (root / "docs" / "methods.md").read_text(encoding="utf-8") == table(markdown=True) + "\n", "make docs writes it again"


def test_what_is_kept_is_what_the_methods_say() -> None:
    kept = json.loads(catalogue.CATALOGUE.read_text(encoding="utf-8"))
    assert kept["methods"] == json.loads(json.dumps(as_they_are())), "make docs writes it again"
    assert list(describe_all()) == kept["methods"]


def test_a_method_that_is_not_in_it_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = json.loads(catalogue.CATALOGUE.read_text(encoding="utf-8"))
    (tmp_path / "old.json").write_text(json.dumps({"modules": kept["modules"][1:], "methods": kept["methods"][1:]}), encoding="utf-8")
    for place in (tmp_path / "old.json", tmp_path / "none.json"):
        monkeypatch.setattr(catalogue, "CATALOGUE", place)
        describe_all.cache_clear()
        assert [method["name"] for method in describe_all()] == [method["name"] for method in kept["methods"]]
    describe_all.cache_clear()


def test_a_question_about_methods_imports_none(root: Path) -> None:
    code = "import sys; from recompress.methods.catalogue import explain, table; table(); explain('wanda'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_method_names_its_source_and_explains_every_dial() -> None:
    descriptions = describe_all()
    assert {method["family"] for method in descriptions} == set(FAMILIES)
    for method in descriptions:
        assert method["source"], method["name"]
        assert method["architectures"], method["name"]
        assert all(dial["help"] and dial["is"] for dial in method["dials"]), method["name"]


def test_the_readme_counts_and_names_the_methods_as_they_are(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    of_family: dict[str, set[str]] = {family: {name for name, method in all_methods().items() if method.family == family} for family in FAMILIES}
    rows = dict(re.findall(r"^\| (\w[\w ]*) \| (.*?) \|", readme.split("| family | methods |")[1].split("\n\n")[0], re.MULTILINE))
    plain = {family.replace(" ", "_"): re.sub(r"\([^)]*\)", "", cell) for family, cell in rows.items()}  # what stands in brackets explains
    assert {family: set(re.findall(r"\w+", cell)) for family, cell in plain.items()} == of_family
    [[count, families, trainings]] = re.findall(r"(\d+) in (\w+) families and (\d+) for training", readme)
    assert int(count) == len(all_methods()) - len(of_family["training"])
    assert families == ("five", "six", "seven")[len(FAMILIES) - 1 - 5]
    assert int(trainings) == len(of_family["training"])


@pytest.mark.parametrize("name", all_methods())
def test_the_example_is_a_step_that_a_recipe_may_hold(name: str, tmp_path: Path) -> None:
    method = all_methods()[name]
    (tmp_path / "step.yaml").write_text(example(method), encoding="utf-8")
    SettingsFile(tmp_path / "step.yaml").read_as(method.config, (0, name))
    assert example(method) in explain(name)
