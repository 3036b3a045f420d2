"""The bill of materials: CycloneDX 1.6 (ECMA-424), with the model card that its ML-BOM defines.

A hash stands only where it is the hash of a file, as CycloneDX means it; digests of directories are properties, because they are this project's own.
"""

from __future__ import annotations

import uuid
from math import isfinite
from typing import Any

import recompress
from recompress.evidence.dossier import Story
from recompress.integrity.digest import FileEntry
from recompress.records import Evaluation

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:recompress:evidence")
MODEL, BASE, DATA = "model", "base", "data"


def bom(story: Story) -> dict[str, Any]:
    """The same promotion gives the same bill: its time is that of the last record, its serial number follows from the plan."""
    libraries = [_library(name, version) for name, version in sorted(story.dossier.environment.items()) if not name.startswith("machine.")]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, story.progress.digest)}",
        "version": 1,
        "metadata": {
            "timestamp": story.committed.time,
            "tools": {"components": [{"type": "application", "name": "recompress", "version": recompress.__version__}]},
            "component": _model(story),
        },
        "components": [_base(story), _data(story), *libraries],
        "dependencies": [{"ref": MODEL, "dependsOn": [BASE, DATA, *(library["bom-ref"] for library in libraries)]}],
    }


def _model(story: Story) -> dict[str, Any]:
    plan, origin = story.plan, story.origin.plan
    properties = {
        "model_sha256": plan.model_sha256,
        "manifest_sha256": story.manifest_sha256,
        "plan_sha256": story.progress.digest,
        "verdict_sha256": str(origin.verdict_sha256),
        "policy_sha256": str(origin.policy_sha256),
        "recipe_sha256": origin.digests["recipe"],
        "code_sha256": origin.digests["code"],
        "git_commit": origin.facts.get("git_commit", ""),
        "steps": origin.facts.get("steps", ""),
        "ledger_head": str(story.head),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": plan.model,
        "version": story.version,
        "description": f"{origin.candidate}, made from {origin.facts.get('base_model', 'its base')} by {origin.facts.get('steps') or 'training'}",
        "modelCard": _card(story),
        "components": [_file(file) for file in story.model_files],
        "properties": _properties(properties),
    }


def _card(story: Story) -> dict[str, Any]:
    candidate = story.dossier.evaluation("candidate")
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": str(story.dossier.recipe.get("benchmark", "")),
            "datasets": [{"ref": DATA}],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "labels and scores"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(story, candidate) if candidate else []},
    }


def _metrics(story: Story, candidate: Evaluation) -> list[dict[str, Any]]:
    whole = [{"type": name, "value": repr(value)} for name, value in sorted(candidate.metrics.items()) if isfinite(value)]
    parts = [
        {"type": name, "value": repr(value), "slice": part}
        for part, metrics in sorted(candidate.slices.items())
        for name, value in sorted(metrics.items())
        if isfinite(value)
    ]
    return whole + parts


def _base(story: Story) -> dict[str, Any]:
    origin = story.origin.plan
    base = story.dossier.recipe.get("base") or {}
    weights = base.get("sha256")
    files = [{"type": "file", "bom-ref": "base/model.safetensors", "name": "model.safetensors", "hashes": [_hash(weights)]}] if weights else []
    return {
        "type": "machine-learning-model",
        "bom-ref": BASE,
        "name": origin.facts.get("base_model", "base"),
        **({"version": base["revision"]} if base.get("revision") else {}),
        **({"components": files} if files else {}),
        "properties": _properties({"directory_sha256": origin.digests["base"]}),
    }


def _data(story: Story) -> dict[str, Any]:
    origin, dataset = story.origin.plan, story.dossier.dataset
    properties = {"directory_sha256": origin.digests["data"], "dvc_md5": origin.facts.get("data_md5", ""), "slices": ", ".join(dataset.get("slices") or ())}
    name = origin.facts.get("dataset", "data")
    return {
        "type": "data",
        "bom-ref": DATA,
        "name": name,
        "data": [{"type": "dataset", "name": name, "contents": {"properties": _properties({k: str(v) for k, v in (dataset.get("rows") or {}).items()})}}],
        "properties": _properties(properties),
    }


def _library(name: str, version: str) -> dict[str, Any]:
    if name == "python":
        return {"type": "platform", "bom-ref": f"python@{version}", "name": "python", "version": version}
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _file(file: FileEntry) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file/{file.path}",
        "name": file.path,
        "hashes": [_hash(file.sha256)],
        "properties": _properties({"size": str(file.size)}),
    }


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}


def _properties(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": f"recompress:{name}", "value": value} for name, value in values.items() if value]
