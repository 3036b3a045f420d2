"""A step that does not know the architecture of the base is refused when the base is found: before anything is trained, and by who only looks ahead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from recompress.errors import InputError
from recompress.methods.known_chains import KnownChains
from recompress.models.base import architecture_in
from recompress.models.checkpoint import save
from recompress.recipe import read_recipe
from tasks.steps.train import find_base_model
from tests.tiny import tiny_checkpoint

RECIPE = """
name: small
benchmark: text-classification
dataset: {name: rows}
base: {model: base}
baseline: {epochs: 1}
variants:
  zeros:
    - magnitude: {}
  turned:
    - trim_vocabulary: {}
    - rotate: {}
policy: policy.yaml
register: {model: small}
"""
POLICY = "metric: accuracy\nbaseline: {margin: 0.1}\nchampion: {margin: 0.1}\nloss_budget: 0.2\nchoose: smallest\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    save(tiny_checkpoint("text-classification"), tmp_path / "base")
    (tmp_path / ".recompress").mkdir()
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("believed", [False, True])
def test_it_is_refused_by_its_line(recipe: Path, believed: bool) -> None:
    for _ in range(2):  # the second time from memory, where that is believed
        known = KnownChains(recipe.parent, believed=believed)
        run = SimpleNamespace(plan=read_recipe(recipe, recipe.parent, known), root=recipe.parent, say=print)
        known.write()
        with pytest.raises(
            InputError, match=r"rotate does not support the architecture 'bert' of the base; it supports llama, mistral, qwen2, qwen3 \(.*recipe.yaml:12\)"
        ):
            find_base_model.fn(run)


def test_a_base_that_all_steps_know_is_taken(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("    - rotate: {}\n", ""))
    run = SimpleNamespace(plan=read_recipe(recipe, recipe.parent), root=recipe.parent, say=print)
    assert find_base_model.fn(run).uri == str(recipe.parent / "base")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_config_that_says_nothing_is_left_to_who_opens_it(tmp_path: Path, text: str) -> None:
    assert architecture_in(tmp_path) is None
    (tmp_path / "config.json").write_text(text)
    assert architecture_in(tmp_path) is None
