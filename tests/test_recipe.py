"""A recipe's baseline: trained by its dials, or given; and digests that do not change because something can be given."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.errors import InputError
from recompress.recipe import Plan, read_recipe

RECIPE = """
name: toy
benchmark: text-classification
dataset: {name: toy}
BASE
baseline: BASELINE
variants: {int8: [{dynamic_int8: {}}]}
policy: policy.yaml
register: {model: toy}
"""
POLICY = "{metric: accuracy, baseline: {margin: 0.1}, champion: {margin: 0.1}, loss_budget: 0.2, choose: smallest}"


def read(folder: Path, baseline: str, base: str = "") -> Plan:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "recipe.yaml").write_text(RECIPE.replace("BASELINE", baseline).replace("BASE", base))
    return read_recipe(folder / "recipe.yaml", folder)


def test_a_given_model_is_its_own_base_where_no_other_is_named(tmp_path: Path) -> None:
    recipe = read(tmp_path, f"{{model: models/ours, sha256: {'a' * 64}}}").recipe
    assert recipe.baseline.given == recipe.base
    assert recipe.baseline.model_dump(mode="json") == {"model": "models/ours", "revision": None, "sha256": "a" * 64}
    assert recipe.baseline.longest is None
    shorter = read(tmp_path, "{model: models/ours, max_length: 64}").recipe.baseline
    assert shorter.longest == 64
    assert shorter.model_dump(mode="json") == {"model": "models/ours", "revision": None, "sha256": None, "max_length": 64}
    other = read(tmp_path, "{model: models/ours}", "base: {model: bert}").recipe
    assert (other.base.model, other.baseline.model) == ("bert", "models/ours")


def test_a_baseline_that_is_trained_is_written_as_before(tmp_path: Path) -> None:
    trained = read(tmp_path, "{epochs: 2}", "base: {model: bert}").recipe.baseline
    assert trained.given is None
    assert {"model", "revision", "sha256"}.isdisjoint(trained.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("{model: models/ours, epochs: 3, batch_size: 64}", r"trained already, so batch_size, epochs would change nothing; .*recipe\.yaml:6"),
        (f"{{sha256: {'a' * 64}}}", "pins a model and names none"),
        ("{model: owner/name, revision: main}", r"baseline\.revision is a full commit of 40 hex digits, got 'main' \(.*:6\)"),
        ("{model: package://p/model}", r"baseline\.sha256 is missing: a model from a package is pinned by its digest \(.*:6\)"),
        ("{epoch: 3}", r"unknown key 'epoch'.*did you mean 'epochs'"),
    ],
)
def test_what_says_nothing_or_two_things_is_refused_by_line(tmp_path: Path, baseline: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, baseline, "base: {model: bert}")
    if "epoch" in baseline and "model" not in baseline:
        with pytest.raises(InputError, match="base is missing"):
            read(tmp_path, "{epochs: 2}")


@pytest.mark.parametrize(
    ("third", "message"),
    [
        ("rotate: {stream: false, heads: false}", r"rotate is told to turn nothing, .* \(.*recipe\.yaml:11\)"),
        ("rotate: {}", r"rotate cannot follow magnitude: .* \(.*recipe\.yaml:11\)"),
        ("kv_cache: {}", r"kv_cache does not support the benchmark 'text-classification'; .* \(.*recipe\.yaml:11\)"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused_by_its_own_line(tmp_path: Path, third: str, message: str) -> None:
    steps = f"\n  small:\n    - trim_vocabulary: {{}}\n    - magnitude: {{}}\n    - {third}\n    - finetune: {{}}"
    first = steps if third == "rotate: {}" else steps.replace("magnitude: {}", "prune_structure: {layers: 1}")
    (tmp_path / "policy.yaml").write_text(POLICY)
    text = RECIPE.replace("BASELINE", "{epochs: 2}").replace("BASE", "base: {model: bert}").replace(" {int8: [{dynamic_int8: {}}]}", first)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "recipe.yaml", tmp_path)


def test_no_slices_are_not_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    text = RECIPE.replace("BASELINE", "{epochs: 2}").replace("BASE", "base: {model: bert}").replace("{name: toy}\n", "{name: toy, slices: []}\n", 1)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.slices needs 1 or more, got \[\] \(.*recipe\.yaml:4\)"):
        read_recipe(tmp_path / "recipe.yaml", tmp_path)


def test_dials_of_a_benchmark_are_read_with_it_and_kept_by_models(tmp_path: Path) -> None:
    asked = RECIPE.replace("text-classification", "question-answering\nanswering: {stride: 64, threshold: null}")
    (tmp_path / "policy.yaml").write_text(POLICY.replace("accuracy", "f1"))
    (tmp_path / "recipe.yaml").write_text(asked.replace("BASELINE", "{epochs: 2}").replace("BASE", "base: {model: bert}"))
    recipe = read_recipe(tmp_path / "recipe.yaml", tmp_path).recipe
    assert recipe.kept_dials == {"stride": 64, "longest_answer": 30, "threshold": None, "normalisation": "squad"}
    plain = read(tmp_path, "{epochs: 2}", "base: {model: bert}").recipe
    assert plain.kept_dials == {}
    assert "answering" not in plain.model_dump(mode="json"), "recipes of before keep their digests"


@pytest.mark.parametrize(
    ("benchmark", "answering", "message"),
    [
        ("question-answering", "{strid: 3}", r"unknown key 'strid'.*recipe\.yaml:4\).*did you mean 'stride'"),
        ("question-answering", "{stride: -1}", r"stride .*-1 \(.*recipe\.yaml:4\)"),
        ("question-answering", "{normalisation: english}", r"normalisation .*'english' \(.*recipe\.yaml:4\)"),
        ("text-classification", "{stride: 3}", r"text-classification has no dials of its own; leave answering out \(.*recipe\.yaml:4\)"),
    ],
)
def test_dials_that_a_benchmark_does_not_have_are_refused_by_line(tmp_path: Path, benchmark: str, answering: str, message: str) -> None:
    asked = RECIPE.replace("text-classification", f"{benchmark}\nanswering: {answering}")
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "recipe.yaml").write_text(asked.replace("BASELINE", "{epochs: 2}").replace("BASE", "base: {model: bert}"))
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "recipe.yaml", tmp_path)
