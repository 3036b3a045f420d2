"""What somebody can lay into MLflow with nothing but its own client: every member of a team with a shared server has that."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from recompress.integrity.digest import canonical_json
from recompress.integrity.model_files import MODEL_FOLDER, write_manifest
from recompress.promotion import MANIFEST_TAG, PLAN_TAG

Change = Callable[[dict[str, Any]], None]


class Forger:
    """Somebody with the address of the store."""

    def __init__(self, uri: str) -> None:
        self.client = MlflowClient(uri, registry_uri=uri)
        experiment = self.client.get_experiment_by_name("recompress")
        assert experiment is not None
        self.runs = self.client.search_runs([experiment.experiment_id])

    def find(self, place: str) -> tuple[Any, str, dict[str, Any]]:
        """The run whose tag names a result below ``place``, the tag, and the result."""
        for run in self.runs:
            for name, value in run.data.tags.items():
                if name.startswith("step.") and value.startswith(place):
                    file = Path(run.info.artifact_uri.removeprefix("file://")) / value.partition("#")[0]
                    return run, name, json.loads(file.read_text())
        raise AssertionError(f"no tag names {place}")

    def lay(self, place: str, change: Change, files: Mapping[str, Path] | None = None, *, run_id: str | None = None) -> tuple[str, str]:
        """Lay another result in the place of one that is remembered. Gives the run and the tag."""
        run, tag, result = self.find(place)
        change(result)
        for label, path in (files or {}).items():
            self.client.log_artifact(run.info.run_id, str(path), f"steps/mine/{label}")
            uri = f"{run.info.artifact_uri}/steps/mine/{label}/{path.name}"
            result["artifacts"][label] = {"uri": uri, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        target = run_id or run.info.run_id
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "step.json"
            note.write_bytes(canonical_json(result))
            self.client.log_artifact(target, str(note), "steps/mine")
            self.client.set_tag(target, tag, f"steps/mine/step.json#{hashlib.sha256(note.read_bytes()).hexdigest()}")
        return target, tag

    def overwrite(self, place: str, change: Change) -> None:
        """Put other bytes where a remembered result lies, and leave its tag."""
        run, tag, result = self.find(place)
        change(result)
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "step.json"
            note.write_bytes(canonical_json(result))
            self.client.log_artifact(run.info.run_id, str(note), run.data.tags[tag].partition("/step.json")[0])

    def lay_version(self, model: str, like: Path, candidate: Path, plan: str, folder: Path) -> str:
        """Register a version under a plan's tag: the very model that was judged, served by code of one's own."""
        root = folder / "version"
        shutil.copytree(like, root)
        (root / "recompress-manifest.json").unlink()
        shutil.rmtree(root / MODEL_FOLDER)
        shutil.copytree(candidate, root / MODEL_FOLDER)
        with (root / "pyfunc_model.py").open("a") as file:
            file.write("\n# and whatever else I like\n")
        manifest = write_manifest(root)
        run = self.client.create_run(self.runs[0].info.experiment_id, run_name=f"register {model}")
        self.client.log_artifacts(run.info.run_id, str(root), "version")
        place = f"{run.info.artifact_uri}/version"
        return str(self.client.create_model_version(model, place, run.info.run_id, tags={PLAN_TAG: plan, MANIFEST_TAG: manifest}).version)
