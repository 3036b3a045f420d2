"""The served model on its own: loaded by a process that has nothing of this project but what the version carries, and over HTTP by MLflow's own server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from recompress.integrity.model_files import check_version
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import save
from recompress.predict import Predictor
from recompress.promotion import MANIFEST_TAG, PLAN_TAG
from recompress.records import Runtime
from tasks.tracking.registry import ALIAS, MlflowRegistry
from tasks.tracking.track import Store
from tests.families import inputs_of
from tests.servers import free_port
from tests.tasks.tracking.stores import new_store
from tests.tiny import tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
MODEL = "ner"
TEXTS = ["asha alikwenda nairobi .", ""]
LOAD = """
import importlib.metadata, json, sys
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = model.predict(json.loads(sys.argv[2]))
import recompress.predict
known = importlib.metadata.packages_distributions()
print(json.dumps({"answers": answers, "code": recompress.predict.__file__, "packages": sorted({d for m in sys.modules for d in known.get(m.split(".")[0], [])})}))
"""


STEPS = {"packed": ("rtn", {"bits": 4, "group_size": 16}), "onnx": ("dynamic_int8", {})}
"""What brings the classifier to the runtimes that it is not on as it was trained."""


class Served:
    """A store with one version of a token classifier, made champion."""

    def __init__(self, root: Path, runtime: Runtime = "torch") -> None:
        self.model = root / "model"
        save(tiny_checkpoint("token-classification"), self.model)
        if runtime in STEPS:
            (name, dials), source = STEPS[runtime], root / "source"
            self.model.rename(source)
            run_step(name, get_method(name).config(**dials), source, self.model, inputs_of(root / "work"))
        self.store = Store(new_store(root))
        self.registry = MlflowRegistry(self.store)
        self.registry.create_version(MODEL, self.model, {PLAN_TAG: "p" * 64})
        self.registry.move_champion(MODEL, "1")
        self.directory = self.registry.fetch(MODEL, "1")
        self.manifest = (self.registry.tags(MODEL, "1") or {})[MANIFEST_TAG]

    def environment(self, **more: str) -> dict[str, str]:
        """Python may write bytecode, as it does everywhere but in tests."""
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
        return {**inherited, "MLFLOW_TRACKING_URI": self.store.uri, "MLFLOW_REGISTRY_URI": self.store.uri, **more}


@pytest.fixture(scope="module", params=["onnx", *(pytest.param(name, marks=pytest.mark.long) for name in get_args(Runtime) if name != "onnx")])
def served_on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"))


def test_a_process_with_nothing_but_the_version_gets_the_same_answers(served_on: Served, tmp_path: Path) -> None:
    served = served_on
    environment = served.environment(RECOMPRESS_SERVE_MANIFEST=served.manifest)
    command = [sys.executable, "-c", LOAD, f"models:/{MODEL}@{ALIAS}", json.dumps(TEXTS)]
    completed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0, completed.stderr
    output = json.loads(completed.stdout.splitlines()[-1])
    assert output["answers"] == json.loads(json.dumps(Predictor(served.model)(TEXTS)))
    assert Path(output["code"]).is_relative_to(served.directory / "code")
    check_version(served.directory, served.manifest)
    pinned = {line.split("==")[0] for line in (served.directory / "requirements.txt").read_text().split()}
    packages = {
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "jaxtyping",
        "rfc8785",
        "regex",
        "onnx",
        "onnxruntime",
        "seqeval",
        "pyarrow",
        "scikit-learn",
    }
    assert packages & set(output["packages"]) - {"pyarrow", "scikit-learn"} <= pinned


def test_words_tags_and_entities(served: Served) -> None:
    answers = Predictor(served.model)(TEXTS)
    assert answers[0]["words"] == ["asha", "alikwenda", "nairobi", "."]
    assert len(answers[0]["tags"]) == 4
    assert answers[1] == {"words": [], "tags": [], "entities": []}
    for entity in answers[0]["entities"]:
        assert entity["text"] == " ".join(answers[0]["words"][entity["start"] : entity["end"]])
        assert 0 < entity["score"] <= 1
    assert Predictor(served.model)([]) == []


@pytest.fixture
def server(served: Served, tmp_path: Path) -> Iterator[str]:
    """``mlflow models serve`` on a free port of this machine; ended by its own process group."""
    port = free_port()
    command = [Path(sys.executable).with_name("mlflow"), "models", "serve", "-m", f"models:/{MODEL}@{ALIAS}", "--env-manager", "local"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        cwd=tmp_path,
        env=served.environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        for _ in range(1500):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


def ask(server: str, body: object) -> list[dict[str, object]]:
    request = urllib.request.Request(f"{server}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        predictions: list[dict[str, object]] = json.loads(answer.read())["predictions"]
    return predictions


@pytest.mark.long
@pytest.mark.slow
def test_mlflow_serves_it_over_http(server: str, served: Served) -> None:
    expected = json.loads(json.dumps(Predictor(served.model)(TEXTS)))
    assert ask(server, {"inputs": TEXTS}) == expected
    assert ask(server, {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}}) == expected
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(server, {"dataframe_split": {"columns": ["id"], "data": [["1"]]}})
    assert re.search("the table needs a column 'text'", refusal.value.read().decode())
    refusal.value.close()
    check_version(served.directory, served.manifest)
