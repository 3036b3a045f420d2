"""A whole run in a folder with an odd name, and the same project after it was moved; asked with a relative root, and with a server that prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.toy_project import environment, make_project, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def only_int8(place: Path) -> None:
    """One variant and one epoch: what is looked at here is where things lie."""
    recipe = place / "recipe.yaml"
    text = recipe.read_text()
    start, end = text.index("  small:\n"), text.index("policy:")
    recipe.write_text((text[:start] + text[end:]).replace("epochs: 3", "epochs: 1").replace(", unlabelled: words", ""))


def test_a_project_runs_in_a_folder_with_an_odd_name_and_goes_on_where_it_is_moved(tmp_path: Path) -> None:
    place = tmp_path / "My Büro 100%" / "a%20b [x]"
    place.mkdir(parents=True)
    make_project(place)
    only_int8(place)
    first = run(place, "run", "recipe.yaml")
    moved = tmp_path / "moved here"
    place.rename(moved)
    command = [sys.executable, "-m", "flows.cli", "--root", moved.name, "predict", "toy@champion", "kula", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(moved), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["predictions"]
    assert run(moved, "audit", "verify")
    again = run(moved, "run", "recipe.yaml")
    assert again["promotion"]["version"] == first["promotion"]["version"] == "1"
    assert not place.exists(), "nothing is written at the old place"
    assert list((tmp_path / "My Büro 100%").iterdir()) == []
