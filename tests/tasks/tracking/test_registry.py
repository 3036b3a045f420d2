"""The real MLflow behind the promoter: versions that are whole, an alias that only promotions move, and a model that answers plain text."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.integrity.digest import sha256_directory
from recompress.integrity.model_files import MANIFEST_FILE, MODEL_FOLDER, check_version
from recompress.policy import Approval
from recompress.predict import Predictor
from recompress.promotion import HEAD_TAG, MANIFEST_TAG, MODEL_TAG, PLAN_TAG, ModelRegistry, present_champion
from tasks.tracking.registry import ALIAS, MlflowRegistry, champion_of, fetch_model, load_for_prediction, open_registry
from tasks.tracking.track import Store
from tests.promotion.stage import make_plan
from tests.tasks.tracking.promoting import MODEL, Project
from tests.tasks.tracking.stores import new_store

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
TEXTS = ["leo kula jana", "juma cheza"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(new_store(tmp_path / "project"))


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, candidates: list[Path]) -> Project:
    """A project in which the first candidate was promoted. Tests leave it as it is."""
    project = Project(new_store(tmp_path_factory.mktemp("promoted")))
    assert project.promote(candidates[0]).version == "1"
    return project


@pytest.fixture
def mlflow_uri(promoted: Project) -> Iterator[str]:
    import mlflow

    mlflow.set_tracking_uri(promoted.store.uri)
    mlflow.set_registry_uri(promoted.store.uri)
    yield f"models:/{MODEL}@{ALIAS}"
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def test_mlflow_is_a_registry_as_promotions_need_it(project: Project, candidates: list[Path]) -> None:
    registry: ModelRegistry = open_registry(project.store)
    assert registry.champion(MODEL) is None
    assert registry.tags(MODEL, "1") is None
    assert registry.find_version(MODEL, "p" * 64) is None
    version = registry.create_version(MODEL, candidates[0], {PLAN_TAG: "p" * 64})
    tags = registry.tags(MODEL, version)
    assert tags is not None
    assert tags.keys() == {PLAN_TAG, MANIFEST_TAG}
    assert registry.find_version(MODEL, "p" * 64) == version == "1"
    check_version(registry.fetch(MODEL, version), tags[MANIFEST_TAG])
    assert registry.champion(MODEL) is None
    registry.move_champion(MODEL, version)
    assert registry.champion(MODEL) == version
    registry.set_tag(MODEL, version, HEAD_TAG, "x")
    assert (registry.tags(MODEL, version) or {})[HEAD_TAG] == "x"
    registry.move_champion(MODEL, None)
    assert registry.champion(MODEL) is None
    with pytest.raises(IntegrityError, match="version 7 of ner is not in the registry"):
        registry.fetch(MODEL, "7")


def test_a_version_is_on_the_disk_before_the_registry_names_it(project: Project, candidates: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    usual, client = os.fsync, project.store.client
    name = client.create_model_version
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(Path(f"/proc/self/fd/{number}").readlink()) or usual(number))

    def name_what_is_there(model: str, place: str, *arguments: object, **named: object) -> object:
        root = project.store.fetch(place)
        assert {root, *root.rglob("*"), root.parent, root.parent.parent} <= set(seen)
        assert seen.index(root / "MLmodel") < seen.index(root / MANIFEST_FILE), "the manifest comes last"
        return name(model, place, *arguments, **named)

    monkeypatch.setattr(client, "create_model_version", name_what_is_there)
    assert project.registry.create_version(MODEL, candidates[0], {PLAN_TAG: "p" * 64}) == "1"


def test_a_version_that_was_cut_before_it_was_promoted_is_made_again_and_a_cut_manifest_is_mended(project: Project, candidates: list[Path]) -> None:
    plan, verdict = make_plan(candidates[0], None)
    digest = project.promoter.propose(plan, verdict).digest
    tags = {PLAN_TAG: digest}

    def announce(manifest: str) -> None:
        body = {"plan": digest, "model": MODEL, "manifest_sha256": manifest, "model_sha256": plan.model_sha256}
        project.ledger.append("version-uploading", body, actor="ada")

    weights = project.registry.fetch(MODEL, project.registry.create_version(MODEL, candidates[0], tags, announce)) / MODEL_FOLDER / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    assert project.promoter.promote(digest, candidates[0]).version == "2"
    manifest = project.registry.fetch(MODEL, "2") / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes()[:77])
    project.promoter.settle(MODEL)
    check_version(manifest.parent, (project.registry.tags(MODEL, "2") or {})[MANIFEST_TAG])


def test_the_champion_says_what_it_was_made_from(promoted: Project, candidates: list[Path]) -> None:
    champion = champion_of(promoted.store, MODEL)
    assert champion is not None
    assert (champion.version, champion.model_sha256) == ("1", sha256_directory(candidates[0]))
    assert sha256_directory(promoted.store.fetch(champion.model_uri)) == champion.model_sha256
    expected = {f"recompress.{name}_sha256" for name in ("data", "base", "recipe", "policy", "code", "model", "manifest", "verdict")}
    assert expected | {HEAD_TAG, PLAN_TAG, "recompress.git_commit"} <= champion.tags.keys()
    assert champion.tags[HEAD_TAG] == str(promoted.ledger.last("promotion-committed").head)  # type: ignore[union-attr]
    assert champion_of(promoted.store, "other") is None


def test_a_version_holds_no_pickle_and_carries_its_code(promoted: Project) -> None:
    directory = promoted.registry.fetch(MODEL, "1")
    paths = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert {"MLmodel", "pyfunc_model.py", "requirements.txt", "code/recompress/predict.py", f"{MODEL_FOLDER}/model.safetensors", MANIFEST_FILE} <= paths
    assert not {Path(path).suffix for path in paths} & {".pkl", ".pickle", ".bin", ".pt", ".pyc"}
    assert all("==" in line for line in (directory / "requirements.txt").read_text().split())


def test_it_answers_plain_text_as_pyfunc(promoted: Project, mlflow_uri: str, candidates: list[Path]) -> None:
    import mlflow.pyfunc
    import pandas as pd

    expected = Predictor(candidates[0])(TEXTS)
    model = mlflow.pyfunc.load_model(mlflow_uri)
    assert model.predict(TEXTS) == expected
    assert model.predict(TEXTS[0]) == expected[:1]
    assert model.predict(pd.DataFrame({"text": TEXTS})) == expected
    with pytest.raises(ValueError, match="the table needs a column 'text', it has id"):
        model.predict(pd.DataFrame({"id": ["1", "2"], "text": TEXTS}))
    assert expected[0].keys() == {"label", "score"}
    check_version(promoted.registry.fetch(MODEL, "1"), (promoted.registry.tags(MODEL, "1") or {})[MANIFEST_TAG])


def test_a_model_that_was_changed_is_not_served(
    project: Project, candidates: list[Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    project.promote(candidates[0])
    directory = project.registry.fetch(MODEL, "1")
    mlflow.pyfunc.load_model(str(directory))
    monkeypatch.setenv("RECOMPRESS_SERVE_MANIFEST", "0" * 64)
    with pytest.raises(IntegrityError, match="belongs to another model"):
        mlflow.pyfunc.load_model(str(directory))
    monkeypatch.delenv("RECOMPRESS_SERVE_MANIFEST")
    weights = bytearray((directory / MODEL_FOLDER / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (directory / MODEL_FOLDER / "model.safetensors").write_bytes(weights)
    with pytest.raises(IntegrityError, match=r"model\.safetensors in .* has sha256"):
        mlflow.pyfunc.load_model(str(directory))
    with caplog.at_level(logging.WARNING, "recompress.served"):
        mlflow.pyfunc.load_model(str(directory), model_config={"unverified": True})
        monkeypatch.setenv("RECOMPRESS_SERVE_UNVERIFIED", "1")
        assert mlflow.pyfunc.load_model(str(directory)).predict(TEXTS)
    assert [record.message.count("UNVERIFIED") for record in caplog.records if record.name == "recompress.served"] == [1, 1]
    with pytest.raises(IntegrityError, match="has sha256"):
        fetch_model(project.store, f"models:/{MODEL}@{ALIAS}")


def test_models_are_fetched_and_asked_by_name(promoted: Project, candidates: list[Path]) -> None:
    expected = Predictor(candidates[0])(TEXTS)
    for name in (MODEL, f"{MODEL}@{ALIAS}", f"{MODEL}/1", str(candidates[0])):
        answers = load_for_prediction(promoted.store, promoted.root, name)(TEXTS)
        assert [{key: answer[key] for key in ("label", "score")} for answer in answers] == expected
        assert re.fullmatch(r"\w+ \d\.\d\d", answers[0]["summary"])
    assert sha256_directory(fetch_model(promoted.store, f"models:/{MODEL}/1")) == sha256_directory(candidates[0])
    for uri in ("models:/ner@nobody", "models:/ner/9", "models:/other@champion", "models:/ner", "models:/../x/1"):
        with pytest.raises(InputError, match="there is no model"):
            fetch_model(promoted.store, uri)


def test_the_ledger_knows_better_than_the_tag(project: Project, candidates: list[Path]) -> None:
    """Somebody replaces files, manifest and tag: for MLflow all is well."""
    from recompress.integrity.model_files import write_manifest

    project.promote(candidates[0])
    directory = project.registry.fetch(MODEL, "1")
    (directory / MODEL_FOLDER / "config.json").write_bytes((candidates[0] / "config.json").read_bytes() + b"\n")
    project.registry.set_tag(MODEL, "1", MANIFEST_TAG, write_manifest(directory))
    fetch_model(project.store, f"models:/{MODEL}@{ALIAS}")
    with pytest.raises(IntegrityError, match="belongs to another model"):
        load_for_prediction(project.store, project.root, MODEL)


def test_the_heads_that_versions_keep_tell_of_a_ledger_that_is_gone(project: Project, candidates: list[Path], tmp_path: Path) -> None:
    assert MlflowRegistry(Store(tmp_path / "nowhere")).heads() == {}
    assert not (tmp_path / "nowhere").exists(), "asking makes no store"
    promoted = project.promote(candidates[0])
    assert project.registry.heads() == {(MODEL, "1"): str(promoted.head)}
    load_for_prediction(project.store, project.root, MODEL)
    for file in (project.root / "ledger").iterdir():
        file.unlink()
    with pytest.raises(IntegrityError, match=f"the ledger is gone or empty, but the tag of version 1 of ner names its record {promoted.head.sequence} "):
        load_for_prediction(project.store, project.root, MODEL)
    assert load_for_prediction(project.store, project.root, str(candidates[0]))(TEXTS), "a folder needs no ledger"


def test_an_alias_that_is_gone_is_missed_by_the_ledger(project: Project, candidates: list[Path]) -> None:
    project.promote(candidates[0])
    project.store.client.delete_registered_model_alias(MODEL, ALIAS)
    with pytest.raises(IntegrityError, match="nothing has the alias champion of ner, but by the ledger it is version 1; recompress rollback ner --to 1"):
        load_for_prediction(project.store, project.root, MODEL)
    assert load_for_prediction(project.store, project.root, f"{MODEL}/1")(TEXTS)
    assert project.promoter.rollback(MODEL, to="1", reason="somebody took the alias away").version == "1"
    assert load_for_prediction(project.store, project.root, MODEL)(TEXTS)


@pytest.mark.parametrize("lost", ["alias", "files", "ledger", "record"])
def test_a_run_stops_before_any_work_where_champion_or_ledger_do_not_hold(
    project: Project, candidates: list[Path], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    from tasks.running import recompression

    project.promote(candidates[0])
    recipe = SimpleNamespace(name="toy", register_=SimpleNamespace(model=MODEL), policy="policy.yaml")
    plan = SimpleNamespace(recipe=recipe, policy=SimpleNamespace(approval=Approval(), sha256="0" * 64), sha256="0" * 64, path=project.root / "recipe.yaml")
    monkeypatch.setattr(recompression, "read_plan", lambda *_: plan)
    monkeypatch.setattr(recompression, "record_policy", lambda *_: None)
    with recompression.recompression("recipe.yaml", str(project.root)):
        pass
    if lost == "alias":
        project.store.client.delete_registered_model_alias(MODEL, ALIAS)
    elif lost == "files":
        (project.registry.fetch(MODEL, "1") / MODEL_FOLDER / "config.json").unlink()
    else:
        with sqlite3.connect(project.root / "ledger" / "ledger.db") as connection:
            connection.execute("DROP TRIGGER recompress_no_delete")
            connection.execute("DELETE FROM recompress_ledger" + (" WHERE sequence > 3" if lost == "record" else ""))
        connection.close()
    messages = {
        "alias": "nothing has the alias champion",
        "files": "config.json",
        "ledger": "the ledger is gone or empty",
        "record": "ledger record 4: it is missing",
    }
    with pytest.raises(IntegrityError, match=messages[lost]), recompression.recompression("recipe.yaml", str(project.root)):
        raise AssertionError("work was begun")


def test_a_changed_ledger_lets_no_registered_model_answer(project: Project, candidates: list[Path]) -> None:
    project.promote(candidates[0])
    with sqlite3.connect(project.root / "ledger" / "ledger.db") as connection:
        connection.execute("DROP TRIGGER recompress_no_update")
        connection.execute("UPDATE recompress_ledger SET actor = 'eve' WHERE sequence = 2")
    connection.close()
    with pytest.raises(IntegrityError, match="ledger record 2: it was changed"):
        load_for_prediction(project.store, project.root, MODEL)


def test_what_was_uploaded_in_part_or_by_hand_never_becomes_champion(project: Project, candidates: list[Path]) -> None:
    """MLflow calls both READY."""
    client = project.store.client
    first = project.promote(candidates[0])
    plan, verdict = make_plan(candidates[1], present_champion(project.registry, MODEL))
    digest = project.promoter.propose(plan, verdict).digest
    run = project.store.open_run("by hand", {})
    client.log_artifact(run, str(candidates[1] / "config.json"), f"version/{MODEL_FOLDER}")
    version = client.create_model_version(MODEL, f"{client.get_run(run).info.artifact_uri}/version", run, tags={PLAN_TAG: digest, MODEL_TAG: plan.model_sha256})
    assert version.status == "READY"
    with pytest.raises(IntegrityError, match="version 2 of ner carries the tag of plan .* but this ledger has uploaded none for it"):
        project.promoter.promote(digest, candidates[1])
    assert project.registry.champion(MODEL) == first.version
    client.set_registered_model_alias(MODEL, ALIAS, str(client.create_model_version(MODEL, candidates[1].as_uri()).version))
    with pytest.raises(IntegrityError, match="was not made here"):
        champion_of(project.store, MODEL)
    assert project.promoter.rollback(MODEL, reason="somebody moved it").version == "1"


def test_a_champion_that_was_deleted_is_noticed(project: Project, candidates: list[Path]) -> None:
    project.promote(candidates[0])
    project.store.client.delete_model_version(MODEL, "1")
    assert project.registry.champion(MODEL) is None
    entry = project.promoter.watch(MODEL)
    assert entry is not None
    assert entry.body == {"model": MODEL, "ledger": "1", "registry": None}


def test_a_registry_that_is_away_is_one_clear_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StorageError, match="check MLFLOW_TRACKING_URI and that the server runs") as refusal:
        open_registry(Store(project.root)).champion(MODEL)
    assert "\n" not in str(refusal.value)
