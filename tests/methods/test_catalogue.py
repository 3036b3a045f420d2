"""What the methods say of themselves: complete, and the same in the command and in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.methods.catalogue import describe_all, example, explain, table
from recompress.methods.registry import FAMILIES, all_methods
from recompress.settings.file import SettingsFile


def test_the_table_in_the_docs_is_the_present_one(root: Path) -> None:
    assert (root / "docs" / "methods.md").read_text(encoding="utf-8") == table(markdown=True) + "\n", "make docs writes it again"


def test_every_method_names_its_source_and_explains_every_dial() -> None:
    descriptions = describe_all()
    assert {method["family"] for method in descriptions} == set(FAMILIES)
    for method in descriptions:
        assert method["source"], method["name"]
        assert method["architectures"], method["name"]
        assert all(dial["help"] and dial["is"] for dial in method["dials"]), method["name"]


@pytest.mark.parametrize("name", all_methods())
def test_the_example_is_a_step_that_a_recipe_may_hold(name: str, tmp_path: Path) -> None:
    method = all_methods()[name]
    (tmp_path / "step.yaml").write_text(example(method), encoding="utf-8")
    SettingsFile(tmp_path / "step.yaml").read_as(method.config, (0, name))
    assert example(method) in explain(name)
