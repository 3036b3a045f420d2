"""A project over the real MLflow, made in seconds: steps that were kept, two versions promoted, one that waits, bundles and keys. Nothing in it was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from recompress.integrity.digest import sha256_directory
from recompress.ledger import Ledger
from recompress.models.checkpoint import save
from recompress.promotion import Promoter, present_champion
from recompress.records import ApprovalRule
from tasks.people.bundle import heal, store_dossier
from tasks.running.project import Project
from tasks.running.recompression import Recompression
from tests.evidence.stories import make_dossier, make_plan
from tests.promotion.stage import MODEL, sha
from tests.tasks.tracking.stores import new_store
from tests.tiny import tiny_checkpoint

STEPS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "check tiny": ("", {"record": {"passed": True}}),
    "baseline": ("baseline", {"kind": "baseline"}),
    "int8/1 dynamic_int8": ("int8", {"claims": [{"what": "smaller", "holds": True}], "runtime": "onnx"}),
    "int8/quality": ("int8", {"metrics": {"accuracy": 0.404}, "slices": {}, "types": {}}),
    "int8/speed": ("int8", {"metrics": {"latency_p50_ms": 1.5}, "machine": {"processor": "made up"}}),
    "verdicts": ("", {"verdicts": [{"candidate": "int8", "passed": False}]}),
}
"""What was done: its run, and what came out."""


def key_of(step: str) -> str:
    return sha(f"the key of {step}")


def open_run(root: Path) -> Recompression:
    """A recompression as a new process would have it, with the least of a plan."""
    recipe = SimpleNamespace(name="tiny", register_=SimpleNamespace(model=MODEL))
    run = Recompression(root, SimpleNamespace(recipe=recipe, sha256="0" * 64, policy=SimpleNamespace(sha256="1" * 64)))  # type: ignore[arg-type]
    run._log_dials = lambda: None  # type: ignore[method-assign]
    return run


def do_steps(root: Path) -> Recompression:
    """Every step, found again or done."""
    run = open_run(root)

    def do(folder: Path, result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
        (folder / "predictions").write_text(json.dumps(result))
        return result, {"predictions": folder / "predictions"}

    for name, (model, result) in STEPS.items():
        run.step(name, key=key_of(name), run=model, do=lambda folder, result=result: do(folder, result))  # type: ignore[misc]
    return run


def promote(root: Path, number: int, rule: ApprovalRule | None = None) -> str:
    """Propose a candidate, and promote it where nobody has to agree. Gives the plan's digest."""
    run, project = open_run(root), Project(root)
    directory = root / "candidates" / str(number)
    champion = present_champion(project.registry, MODEL)
    dossier = make_dossier(directory, champion.model_sha256 if champion else None, str(directory))
    plan = make_plan(dossier, directory, project.registry, rule)  # type: ignore[arg-type]
    store_dossier(run, plan, dossier)
    promoter = Promoter(project.ledger, project.registry, "ada", lock_timeout=5)
    digest = promoter.propose(plan, dossier.verdict).digest
    if rule is None:
        promoter.promote(digest, directory)
    run.finish("FINISHED")
    return digest


def small_project(root: Path) -> Path:
    """Made from nothing. Version 2 is champion, and a plan for a third waits for an approval."""
    new_store(root)
    (root / "dvc.yaml").write_text("stages: {}\n")
    for number in range(3):
        save(tiny_checkpoint("text-classification", seed=number), root / "candidates" / str(number))
        assert sha256_directory(root / "candidates" / str(number))
    Ledger(root / "ledger" / "ledger.db")
    do_steps(root).finish("FINISHED")
    promote(root, 0)
    promote(root, 1)
    promote(root, 2, ApprovalRule(required=True))
    assert len(heal(Project(root))) == 2
    return root
