"""prefect.yaml is that of the recipes: in this repository, in a project of one's own, and where a recipe came, went or changed its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from recompress.errors import InputError
from tasks.people.doctor import examine
from tasks.schedule.deployment import deployments_of
from tasks.schedule.prefect_yaml import stale, text_of, write_prefect_yaml
from tests.tasks.watch.small_project import make_small_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_small_project(tmp_path, model="owner/base", revision="a" * 40, sha256="b" * 64)


def test_the_one_of_this_repository_is_that_of_its_recipes(root: Path) -> None:
    assert (root / "prefect.yaml").read_text() == text_of(root), "make docs writes it anew"
    assert {one.parameters.get("recipe") for one in deployments_of(root)} >= {f"recipes/{path.name}" for path in (root / "recipes").glob("*.yaml")}


def test_every_entry_names_a_flow_of_the_package_with_its_parameters(project: Path) -> None:
    write_prefect_yaml(project)
    entries = yaml.safe_load((project / "prefect.yaml").read_text())["deployments"]
    assert [entry["name"] for entry in entries] == ["toy", "watch", "approve"]
    for entry in entries:
        flow = load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False)
        assert set(entry.get("parameters", {})) <= set(flow.parameters.properties)
        assert entry["work_pool"]["name"] == "recompress"
    assert entries[0]["parameters"] == {"recipe": "recipes/toy.yaml"}
    assert entries[0]["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert str(project) not in (project / "prefect.yaml").read_text()


def test_a_recipe_that_comes_goes_or_changes_is_named_until_it_is_written_anew(project: Path) -> None:
    assert stale(project) == ""
    assert write_prefect_yaml(project)
    assert not write_prefect_yaml(project)
    recipe = project / "recipes" / "toy.yaml"
    text = recipe.read_text()
    (project / "recipes" / "other.yaml").write_text(text.replace("name: toy\nbenchmark", "name: other\nbenchmark"))
    assert "(other is missing)" in stale(project)
    [finding] = [finding for finding in examine(project) if finding.what == "prefect.yaml"]
    assert finding.state == "advice"
    assert "other is missing" in finding.detail
    recipe.unlink()
    assert "(other is missing, toy is of no recipe); write it anew: recompress schedule --write" in stale(project)
    assert write_prefect_yaml(project)
    assert stale(project) == ""
    file = project / "prefect.yaml"
    file.write_text(file.read_text().replace("limit: 1", "limit: 9"))
    assert "(an entry differs)" in stale(project)
    file.write_text(file.read_text()[:200])
    assert "it is not that of the recipes" in stale(project)


def test_somebody_elses_stays_and_two_recipes_of_one_name_are_refused(project: Path) -> None:
    (project / "prefect.yaml").write_text("name: ours\n")
    assert stale(project) == ""
    with pytest.raises(InputError, match="was not made by this command, so it stays"):
        write_prefect_yaml(project)
    assert (project / "prefect.yaml").read_text() == "name: ours\n"
    (project / "prefect.yaml").unlink()
    (project / "recipes" / "twice.yaml").write_text((project / "recipes" / "toy.yaml").read_text())
    with pytest.raises(InputError, match=r"toy\.yaml and .*twice\.yaml have one name, 'toy'"):
        write_prefect_yaml(project)
    assert not (project / "prefect.yaml").exists()


def test_projects_that_share_a_server_have_deployments_of_their_own(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(f"project: support\n{params.read_text()}")
    assert [one.full_name for one in deployments_of(project)] == ["scheduled/support-toy", "watch/support-watch", "approve/support-approve"]
