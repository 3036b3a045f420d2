"""Promotions with all that belongs to them, small enough for hundreds of bundles: a verdict, evaluations, a recipe, a data check, and a registry that is a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.evidence import Dossier, Story, tell
from recompress.evidence.dossier import committed_plan, origin_of
from recompress.integrity.digest import sha256_directory, sha256_json
from recompress.ledger import Ledger
from recompress.promotion import Promoter, approve, present_champion
from recompress.records import ApprovalRule, Evaluation, Finding, PromotionPlan, Verdict
from tests.promotion.stage import MODEL, FolderRegistry, model_directory, sha

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
POLICY = {"metric": "f1", "baseline": {"margin": 0.03, "slices": None}, "choose": "smallest"}
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "benchmark": "token-classification",
    "base": {"model": "base", "revision": None, "sha256": sha("weights")},
    "variants": {"int8": [{"method": "dynamic_int8", "config": {}}]},
    "seed": 0,
}
DATA = sha("data")
CHECK = {"dataset": "tiny", "prepared_sha256": DATA, "prepared_md5": "0" * 32 + ".dir", "suite_sha256": sha("suite"), "tool": "by hand", "checks": []}


def evaluation(name: str, model_sha256: str, f1: float, size: float) -> Evaluation:
    return Evaluation(
        model=name,
        model_sha256=model_sha256,
        dataset_sha256=DATA,
        metrics={"f1": f1, "size_bytes": size, "latency_ratio": 2.5, "latency_p50_ms": 1.25},
        slices={"swa": {"f1": f1}, "yor": {"f1": f1 - 0.01}},
        predictions_uri=f"artifacts:/{name}/predictions.parquet",
        predictions_sha256=sha(f"predictions of {name}"),
        machine={"processor": "made up", "threads": "1"},
    )


def make_dossier(directory: Path, champion: str | None, candidate_uri: str = "") -> Dossier:
    model = sha256_directory(directory)
    evaluations = {"candidate": evaluation("int8", model, 0.75, 400.0), "baseline": evaluation("baseline", sha("baseline"), 0.76, 1600.0)}
    if champion is not None:
        evaluations["champion"] = evaluation("champion", champion, 0.755, 500.0)
    verdict = Verdict(
        candidate="int8",
        passed=True,
        findings=(Finding(check="loss-against-baseline", passed=True, measured=0.02, limit=0.03, detail="f1 0.75 against 0.76 | inside the margin"),),
        metric="f1",
        score=0.75,
        size_bytes=400.0,
        first_promotion=champion is None,
        spent_loss=0.0,
        spent_loss_after=0.01,
        policy_sha256=sha256_json(POLICY),
        dataset_sha256=DATA,
        candidate_sha256=model,
        baseline_sha256=sha("baseline"),
        champion_sha256=champion,
        evaluations={role: result.digest for role, result in evaluations.items()},
    )
    return Dossier(
        verdict=verdict,
        policy=POLICY,
        policy_text="metric: f1\n",
        recipe=RECIPE,
        recipe_text="name: tiny\n",
        evaluations=tuple(evaluations.values()),
        data_check=CHECK,
        base={"model": "base", "sha256": sha("base")},
        dataset={"name": "tiny", "slices": ["swa", "yor"], "rows": {"train": 8, "test": 4}},
        environment={"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6"},
        candidate_uri=candidate_uri,
    )


def make_plan(dossier: Dossier, directory: Path, registry: FolderRegistry, rule: ApprovalRule | None = None, author: str = "ada") -> PromotionPlan:
    return PromotionPlan(
        model=MODEL,
        author=author,
        candidate="int8",
        model_sha256=sha256_directory(directory),
        expected=present_champion(registry, MODEL),
        verdict_sha256=dossier.verdict.digest,
        policy_sha256=dossier.verdict.policy_sha256,
        digests={"data": DATA, "base": sha("base"), "recipe": sha256_json(RECIPE), "code": sha("code")},
        facts={
            "git_commit": "0123456789" * 4,
            "data_check": sha256_json(CHECK),
            "data_md5": "0" * 32 + ".dir",
            "dataset": "tiny",
            "base_model": "base",
            "base_revision": "f" * 40,
            "recipe": "tiny",
            "steps": "dynamic_int8",
            "evidence": sha("evidence"),
        },
        approval=rule or ApprovalRule(),
    )


class Project:
    """A ledger, a registry and the promotions in them."""

    def __init__(self, root: Path, clock: Callable[[], Any] | None = None) -> None:
        self.root = root
        self.ledger = Ledger(root / "ledger.db", timeout=5, **({"clock": clock} if clock else {}))
        self.registry = FolderRegistry(root / "registry")
        self.promoter = Promoter(self.ledger, self.registry, "ada", lock_timeout=5)
        self.dossiers: dict[str, Dossier] = {}

    def propose(self, seed: int = 1, rule: ApprovalRule | None = None) -> str:
        directory = model_directory(self.root / f"model {seed}", seed)
        champion = present_champion(self.registry, MODEL)
        dossier = make_dossier(directory, champion.model_sha256 if champion else None, str(directory))
        progress = self.promoter.propose(make_plan(dossier, directory, self.registry, rule), dossier.verdict)
        self.dossiers[progress.digest] = dossier
        return progress.digest

    def promote(self, seed: int = 1, rule: ApprovalRule | None = None, approver: str = "bob", key: Ed25519PrivateKey | None = None) -> str:
        plan = self.propose(seed, rule)
        if rule is not None and rule.required:
            approve(self.ledger, plan, actor=approver, key=key)
        self.promoter.promote(plan, self.root / f"model {seed}")
        return plan

    def story(self, plan: str) -> Story:
        chain = self.ledger.entries()
        progress = committed_plan(chain, plan)
        dossier = self.dossiers[origin_of(chain, progress).digest]
        return tell(chain, plan, self.registry.fetch(MODEL, progress.said("promotion-committed")["version"]), dossier)

    def version(self, version: str = "1") -> Path:
        return self.registry.fetch(MODEL, version)
