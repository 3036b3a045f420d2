"""Making a version again: the same data, base and recipe in a project of their own, with nothing remembered, and what comes out beside what was promoted.

The pointers to the data are those of the version's git commit where it is still there. The code is the one that is here now: whether that is the same is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recompress.audit import find_plan
from recompress.evidence import Dossier
from recompress.evidence.dossier import origin_of
from recompress.integrity.digest import sha256_directory
from recompress.integrity.fingerprint import code_fingerprint
from recompress.records import PromotionPlan
from tasks.people.bundle import environment, recall_dossier
from tasks.people.scratch import bring_pinned, find_pinned_base, point_to_data, run_recipe, scratch_project, write_recipe
from tasks.running.project import Project

Say = Callable[[str], None]


@dataclass(frozen=True)
class Reproduction:
    """What came out, beside what was promoted."""

    model: str
    version: str
    equal: bool
    """The model that came out is the same, byte for byte."""
    same_inputs: bool
    """Data and base are those that the version was made from."""
    same_code: bool
    model_sha256: dict[str, str]
    inputs: dict[str, dict[str, str]]
    """Digests of the inputs, as promoted (``was``) and as used now (``now``)."""
    git_commit: dict[str, str]
    libraries: dict[str, dict[str, str]]
    """Those whose version is another one now."""
    metrics: dict[str, dict[str, float]]
    """The benchmark's metrics, size and parameters: ``was``, ``now`` and how far they ``moved``."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        lines = [f"{'✓' if both['was'] == both['now'] else '✗'} {name:<12} {both['was']}  now {both['now']}" for name, both in self.inputs.items()]
        lines.append(f"{'✓' if self.same_code else '·'} code         {'the same' if self.same_code else 'changed since'}, {_git(self.git_commit)}")
        lines += [f"· {name:<12} {both['was'] or 'none'}, now {both['now'] or 'none'}" for name, both in self.libraries.items()]
        lines += [f"  {name:<12} {row['was']:.6g} → {row['now']:.6g}  ({row['moved']:+.6g})" for name, row in self.metrics.items()]
        if self.equal:
            return "\n".join([*lines, f"{self.model} version {self.version} was made again: equal, byte for byte ({self.model_sha256['now'][:12]}…)."])
        difference = f"another model came out ({self.model_sha256['now'][:12]}…, promoted was {self.model_sha256['was'][:12]}…)"
        return "\n".join([*lines, f"{self.model} version {self.version} was made again: {difference}; its metrics moved as shown."])


def reproduce(project: Project, reference: str, say: Say, *, keep: bool = False) -> Reproduction:
    """Run a version's recipe again from nothing. Raises ``InputError``, ``DataRefused`` when the data cannot be had any more, ``IntegrityError`` without evidence."""
    model, version = project.resolve(reference)
    chain = project.ledger.entries()
    plan = origin_of(chain, find_plan(chain, model, version)).plan
    dossier = recall_dossier(project.memory, plan)
    with scratch_project(project.root, f"{model}-v{version}", keep=keep, say=say) as scratch:
        point_to_data(project.root, scratch, plan.facts.get("git_commit", ""), say)
        inputs = {"data md5": {"was": plan.facts.get("data_md5", ""), "now": bring_pinned(project.root, scratch, dossier, say)}}
        base = find_pinned_base(project, dossier)
        inputs["base sha256"] = {"was": plan.digests["base"], "now": sha256_directory(base)}
        inputs["recipe sha256"] = {"was": plan.digests["recipe"], "now": plan.digests["recipe"]}
        write_recipe(scratch, dossier, plan.candidate, base)
        outcome = run_recipe(scratch, say)
    return _compare(project, model, version, plan, dossier, inputs, outcome)


def _compare(
    project: Project, model: str, version: str, plan: PromotionPlan, dossier: Dossier, inputs: dict[str, dict[str, str]], outcome: Mapping[str, Any]
) -> Reproduction:
    from tasks.running.code import CODE, git_commit

    evaluation = next(e for e in outcome["evaluations"] if e["model"] == plan.candidate)
    inputs["data sha256"] = {"was": plan.digests["data"], "now": evaluation["dataset_sha256"]}
    was, now = dossier.environment, environment()
    before = dossier.evaluation("candidate")
    recorded = before.metrics if before else {}
    names = sorted({name for part in evaluation["slices"].values() for name in part} | {"size_bytes", "parameters"})
    return Reproduction(
        model=model,
        version=version,
        equal=evaluation["model_sha256"] == plan.model_sha256,
        same_inputs=all(both["was"] == both["now"] for both in inputs.values()),
        same_code=code_fingerprint(*CODE) == plan.digests["code"],
        model_sha256={"was": plan.model_sha256, "now": evaluation["model_sha256"]},
        inputs=inputs,
        git_commit={"was": plan.facts.get("git_commit", ""), "now": git_commit(project.root)},
        libraries={name: {"was": was.get(name, ""), "now": now.get(name, "")} for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)},
        metrics={
            name: {"was": recorded[name], "now": evaluation["metrics"][name], "moved": evaluation["metrics"][name] - recorded[name]}
            for name in names
            if name in recorded and name in evaluation["metrics"]
        },
    )


def _git(commits: Mapping[str, str]) -> str:
    was, now = commits["was"] or "no git commit", commits["now"] or "no git commit"
    return f"git {was}" if was == now else f"git {was}, now {now}"
