"""Chains that were read before say what reading them says; and nothing is believed that code, packages or the recipe itself speak against."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError
from recompress.methods import known_chains
from recompress.methods.chain import check_chain
from recompress.methods.known_chains import FILE, KnownChains
from recompress.recipe import read_recipe

RECIPE = """
name: small
benchmark: text-classification
dataset: {name: rows}
base: {model: base}
baseline: {epochs: 1}
variants:
  wanda:
    - wanda: {sparsity: 0.4}
    - finetune: {epochs: 2}
  int8:
    - dynamic_int8: {}
policy: policy.yaml
register: {model: small}
"""
POLICY = "metric: accuracy\nbaseline: {margin: 0.1}\nchampion: {margin: 0.1}\nloss_budget: 0.2\nchoose: smallest\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / ".recompress").mkdir()
    (tmp_path / "policy.yaml").write_text(POLICY)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def read(recipe: Path, *, believed: bool = True) -> Any:
    known = KnownChains(recipe.parent, believed=believed)
    plan = read_recipe(recipe, recipe.parent, known)
    known.write()
    return plan, set(known.read)


def altered(recipe: Path, change: Any) -> None:
    file = recipe.parent / FILE
    kept = json.loads(file.read_text())
    change(kept)
    file.write_text(json.dumps(kept))


def test_what_was_read_before_is_not_read_again_and_says_the_same(recipe: Path) -> None:
    first, learned = read(recipe, believed=False)
    again, fresh = read(recipe)
    assert (len(learned), fresh) == (2, set())
    assert (again.sha256, again.as_json) == (first.sha256, first.as_json)
    for name, steps in first.steps.items():
        assert [(s.module, s.needs, s.gives) for s in again.steps[name]] == [(s.module, s.needs, s.gives) for s in steps]


def test_who_runs_believes_nothing_and_what_is_remembered_cannot_be_run(recipe: Path) -> None:
    read(recipe)
    _, fresh = read(recipe, believed=False)
    assert len(fresh) == 2
    [step] = read(recipe)[0].steps["int8"]
    with pytest.raises(InputError, match="takes settings of the class"):
        check_chain([(step.method, step.config)], "text-classification", None)


def test_a_chain_that_was_edited_is_read(recipe: Path) -> None:
    read(recipe)
    recipe.write_text(RECIPE.replace("sparsity: 0.4", "sparsity: 0.6"))
    plan, fresh = read(recipe)
    assert (plan.steps["wanda"][0].config.sparsity, len(fresh)) == (0.6, 1)
    recipe.write_text(RECIPE.replace("sparsity: 0.4", "sparsity: 1.6"))
    with pytest.raises(InputError, match=r"sparsity is a share in \[0, 1\), got 1.6"):
        read(recipe)


@pytest.mark.parametrize("what", ["code", "packages", "processor"])
def test_another_reader_reads_anew(recipe: Path, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read(recipe)
    before = known_chains.reader_digest()
    if what == "processor":
        monkeypatch.setattr(known_chains, "_processor", lambda: b"flags : none")
    elif what == "packages":
        monkeypatch.setattr(known_chains, "_names_in", lambda place: ["other-1.0.dist-info"])
    else:
        changed = tmp_path / "package"
        changed.mkdir()
        (changed / "__init__.py").write_text("")
        monkeypatch.setattr(known_chains.recompress, "__file__", str(changed / "__init__.py"))
    known_chains.reader_digest.cache_clear()
    try:
        assert known_chains.reader_digest() != before
        assert len(read(recipe)[1]) == 2
    finally:
        monkeypatch.undo()
        known_chains.reader_digest.cache_clear()


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"read_by": 1}', "null", pytest.param("[" * 5000, id="deep")])
def test_a_torn_file_is_no_memory(recipe: Path, torn: str) -> None:
    read(recipe)
    (recipe.parent / FILE).write_text(torn)
    assert len(read(recipe)[1]) == 2


def test_what_the_recipe_says_is_not_believed_otherwise(recipe: Path) -> None:
    """Somebody lays other dials, fewer steps, or no steps under the chain's key."""
    honest, _ = read(recipe)

    def other_dial(kept: Any) -> None:
        for _, chain in kept["chains"]:
            for step in chain:
                if "sparsity" in step["config"]:
                    step["config"]["sparsity"] = 0.9

    def other_method(kept: Any) -> None:
        for _, chain in kept["chains"]:
            chain[0]["method"] = "gptq"

    def other_module(kept: Any) -> None:
        for _, chain in kept["chains"]:
            chain[0]["module"] = "os"

    def no_module(kept: Any) -> None:
        for _, chain in kept["chains"]:
            chain[0]["module"] = "recompress.methods.pruning.wonda"

    def shorter(kept: Any) -> None:
        for _, chain in kept["chains"]:
            del chain[1:]

    def nonsense(kept: Any) -> None:
        for pair in kept["chains"]:
            pair[1] = [{"method": 3}]

    for change in (other_dial, other_method, other_module, no_module, shorter, nonsense):
        altered(recipe, change)
        plan, fresh = read(recipe)
        assert plan.sha256 == honest.sha256
        assert fresh, change.__name__


def test_what_could_not_be_written_again_is_forgotten(recipe: Path) -> None:
    read(recipe)
    altered(recipe, lambda kept: kept["chains"].append(["another", [{"method": "wanda", "config": {"sparsity": float("nan")}}]]))
    recipe.write_text(RECIPE.replace("sparsity: 0.4", "sparsity: 0.6"))
    assert len(read(recipe)[1]) == 1
    assert "another" not in (recipe.parent / FILE).read_text()


def test_a_dial_that_is_no_number_is_refused_by_its_line(recipe: Path) -> None:
    """No digest is made of such a chain before it is read."""
    recipe.write_text(RECIPE.replace("sparsity: 0.4", "sparsity: .nan"))
    for believed in (True, False):
        with pytest.raises(InputError, match=r"sparsity is a share in \[0, 1\), got NaN \(.*recipe.yaml:9\)"):
            read(recipe, believed=believed)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_where_something_else_has_its_name_nothing_is_left_behind(recipe: Path, make: Any) -> None:
    make(recipe.parent / FILE)
    assert len(read(recipe)[1]) == 2
    assert [path.name for path in (recipe.parent / FILE).parent.iterdir()] == [FILE.name]


def test_where_there_is_no_place_nothing_is_written(recipe: Path) -> None:
    (recipe.parent / ".recompress").rmdir()
    read(recipe)
    assert not (recipe.parent / ".recompress").exists()
