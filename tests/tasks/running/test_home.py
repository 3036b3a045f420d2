"""Which folder is a project, and which one a command means."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.errors import InputError
from tasks.running.home import check_project, find_root, is_project, only_recipe

OURS = "stages:\n  prepare:\n    foreach: ${datasets}\n    do:\n      cmd: python -m recompress.data.prepare ${key}\n"
THEIRS = "stages:\n  train:\n    cmd: python train.py\n"


def put(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dvc.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(("text", "ours"), [(OURS, True), ("stages: {}\n", True), ("", True), (THEIRS, False), (THEIRS + OURS[8:], True), ("stages: [", True)])
def test_another_tools_dvc_yaml_makes_no_project(tmp_path: Path, text: str, ours: bool) -> None:
    assert is_project(put(tmp_path, text)) is ours


def test_the_nearest_above_then_the_only_one_below(tmp_path: Path) -> None:
    put(tmp_path, THEIRS)
    assert find_root(tmp_path) == tmp_path
    with pytest.raises(InputError, match="its dvc.yaml has no stage of Recompress; .* begin one: recompress init"):
        check_project(tmp_path)
    first = put(tmp_path / "first", OURS)
    (first / "recipes" / "deep").mkdir(parents=True)
    assert find_root(tmp_path) == find_root(first / "recipes" / "deep") == first
    put(tmp_path / "second", OURS)
    assert find_root(tmp_path) == tmp_path
    with pytest.raises(InputError, match=r"give --root \(here are: first, second\)"):
        check_project(tmp_path)


def test_a_recipe_need_not_be_named_where_there_is_but_one(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    with pytest.raises(InputError, match="has no recipes; write one, .*: recompress data add FILE --base MODEL"):
        only_recipe(tmp_path)
    (tmp_path / "recipes" / "b.yaml").touch()
    assert only_recipe(tmp_path) == Path("recipes/b.yaml")
    (tmp_path / "recipes" / "a.yaml").touch()
    with pytest.raises(InputError, match="has 2 recipes: a.yaml, b.yaml; say which: recompress run recipes/a.yaml"):
        only_recipe(tmp_path)
