"""Making a version again: the same data, base and recipe in a project of their own, with nothing remembered, and what comes out beside what was promoted.

The pointers to the data are those of the version's git commit where it is still there. The code is the one that is here now: whether that is the same is said.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recompress.audit import find_plan
from recompress.base import find_base
from recompress.data.sources import read_settings_of
from recompress.digest import sha256_directory
from recompress.errors import DataRefused, InputError, RecompressError
from recompress.evidence import Dossier
from recompress.evidence.dossier import origin_of
from recompress.fingerprint import code_fingerprint
from recompress.records import PromotionPlan
from recompress.settings_file import SettingsFile
from tasks.bundle import environment, recall_dossier
from tasks.pins import Pin, is_here, measure, pins_of
from tasks.project import Project
from tasks.ways import from_cache
from tasks.workbench import bench

Say = Callable[[str], None]
POINTERS = ("dvc.yaml", "dvc.lock", "params.yaml")


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
        told = f"another model came out ({self.model_sha256['now'][:12]}…, promoted was {self.model_sha256['was'][:12]}…)"
        return "\n".join([*lines, f"{self.model} version {self.version} was made again: {told}; its metrics moved as shown."])


def reproduce(project: Project, told: str, say: Say, *, keep: bool = False) -> Reproduction:
    """Run a version's recipe again from nothing. Raises ``InputError``, ``DataRefused`` when the data cannot be had any more, ``IntegrityError`` without evidence."""
    model, version = project.resolve(told)
    chain = project.ledger.entries()
    plan = origin_of(chain, find_plan(chain, model, version)).plan
    dossier = recall_dossier(project.store, plan)
    with _scratch(project.root, f"{model}-v{version}", keep=keep, say=say) as scratch:
        _point(project.root, scratch, plan.facts.get("git_commit", ""), say)
        inputs = {"data md5": {"was": plan.facts.get("data_md5", ""), "now": _bring(project.root, scratch, dossier, say)}}
        base = _base(project, dossier)
        inputs["base sha256"] = {"was": plan.digests["base"], "now": sha256_directory(base)}
        inputs["recipe sha256"] = {"was": plan.digests["recipe"], "now": plan.digests["recipe"]}
        _write_recipe(scratch, dossier, plan.candidate, base)
        outcome = _run(scratch, say)
    return _compare(project, model, version, plan, dossier, inputs, outcome)


def _compare(
    project: Project, model: str, version: str, plan: PromotionPlan, dossier: Dossier, inputs: dict[str, dict[str, str]], outcome: Mapping[str, Any]
) -> Reproduction:
    from tasks.promote import CODE, git_commit

    made = next(e for e in outcome["evaluations"] if e["model"] == plan.candidate)
    inputs["data sha256"] = {"was": plan.digests["data"], "now": made["dataset_sha256"]}
    was, now = dossier.environment, environment()
    before = dossier.evaluation("candidate")
    known = before.metrics if before else {}
    names = sorted({name for part in made["slices"].values() for name in part} | {"size_bytes", "parameters"})
    return Reproduction(
        model=model,
        version=version,
        equal=made["model_sha256"] == plan.model_sha256,
        same_inputs=all(both["was"] == both["now"] for both in inputs.values()),
        same_code=code_fingerprint(*CODE) == plan.digests["code"],
        model_sha256={"was": plan.model_sha256, "now": made["model_sha256"]},
        inputs=inputs,
        git_commit={"was": plan.facts.get("git_commit", ""), "now": git_commit(project.root)},
        libraries={name: {"was": was.get(name, ""), "now": now.get(name, "")} for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)},
        metrics={
            name: {"was": known[name], "now": made["metrics"][name], "moved": made["metrics"][name] - known[name]}
            for name in names
            if name in known and name in made["metrics"]
        },
    )


@contextmanager
def _scratch(root: Path, name: str, *, keep: bool, say: Say) -> Iterator[Path]:
    folder = root / ".recompress" / "reproduce" / f"{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _point(root: Path, scratch: Path, commit: str, say: Say) -> None:
    """The files in git that say which data, from the version's commit where there is one that was clean."""
    names = [*POINTERS, *(path.relative_to(root).as_posix() for path in (*root.glob("*.dvc"), *root.glob("raw/*.dvc")) if path.is_file())]
    clean = len(commit) == 40 and set(commit) <= set("0123456789abcdef")
    for name in names:
        past = _git_show(root, commit, name) if clean else None
        if past is None and not (root / name).is_file():
            continue
        place = scratch / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(past if past is not None else (root / name).read_bytes())
    if not clean:
        say("the version was not made from a clean git commit, so the pointers to its data are today's")


def _git_show(root: Path, commit: str, name: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "show", f"{commit}:./{name}"], cwd=root, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _bring(root: Path, scratch: Path, dossier: Dossier, say: Say) -> str:
    """The pinned data, from the project where it still is, else from DVC's cache. Gives the md5 of the prepared splits."""
    chosen = dossier.recipe["dataset"]
    found = ""
    for name in [chosen["name"], *([chosen["unlabelled"]] if chosen.get("unlabelled") else [])]:
        raw, prepared = pins_of(scratch, name, read_settings_of(scratch, name).source)
        for pin in (raw, prepared):
            _place(root, scratch, pin, say)
        found = found or prepared.md5
    return found


def _place(root: Path, scratch: Path, pin: Pin, say: Say) -> None:
    target = scratch / pin.path
    if target.exists():
        return
    if (root / pin.path).is_dir() and measure(root / pin.path).md5 == pin.md5:
        shutil.copytree(root / pin.path, target, copy_function=shutil.copyfile)
        return
    with bench(root, say) as work:
        place = from_cache(work, pin)
        if place is None:
            raise DataRefused(
                f"{pin.path} with md5 {pin.md5[:12]}… is neither in the project nor in DVC's cache any more; bring it back: dvc pull {pin.target}"
            )
        shutil.copytree(place, target, copy_function=shutil.copyfile)
    assert is_here(scratch, pin)


def _base(project: Project, dossier: Dossier) -> Path:
    """The base model's folder. Raises ``IntegrityError`` when its weights are not the pinned ones."""
    told = dossier.recipe["base"]
    if str(told["model"]).startswith("models:/"):
        from tasks.registry import fetch_model

        return fetch_model(project.store, told["model"], project.ledger)
    return find_base(told["model"], revision=told.get("revision"), sha256=told.get("sha256"), root=project.root)


def _write_recipe(scratch: Path, dossier: Dossier, variant: str, base: Path) -> None:
    """The recipe as it was, but for one variant, with the base where it lies. JSON is YAML too."""
    text = scratch / "told.yaml"
    text.write_text(dossier.recipe_text, encoding="utf-8")
    said = SettingsFile(text).values
    text.unlink()
    if variant not in said["variants"]:
        raise InputError(f"the recipe that was kept knows no variant {variant!r}")
    said |= {"variants": {variant: said["variants"][variant]}, "policy": "policy.yaml", "register": {"model": "reproduction"}}
    said["base"] = {"model": str(base.resolve()), "sha256": dossier.recipe["base"].get("sha256")}
    policy = dossier.policy | {"approval": {"mode": "none"}, "first_promotion": "refused"}  # nothing is to be promoted here
    for name, value in (("recipe.yaml", said), ("policy.yaml", policy)):
        (scratch / name).write_text(json.dumps(value, indent=1), encoding="utf-8")


def _run(scratch: Path, say: Say) -> dict[str, Any]:
    """A recompression in a process of its own that knows nothing of this project's stores. Raises ``RecompressError`` with what it said last."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "RECOMPRESS_"))}
    command = [sys.executable, "-m", "flows.cli", "--root", str(scratch), "run", str(scratch / "recipe.yaml"), "--json"]
    outcome = scratch / "outcome.json"
    with outcome.open("w") as out:  # a file, because a full pipe would stop the child while we read its other one
        environment = kept | {"PREFECT_HOME": str(scratch / ".prefect")}
        with subprocess.Popen(command, cwd=scratch, env=environment, stdout=out, stderr=subprocess.PIPE, text=True) as child:
            said = _follow(child, say)
    if child.returncode not in (0, 4):
        raise RecompressError(f"the recipe could not be run again: {said[-1] if said else f'exit code {child.returncode}'}")
    found: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
    return found


def _follow(child: subprocess.Popen[str], say: Say) -> list[str]:
    """Pass on what the run says while it runs."""
    lines = []
    for line in child.stderr or ():
        if line.strip():
            lines.append(line.strip())
            say(line.strip().split("s  ", 1)[-1])
    return lines


def _git(commits: Mapping[str, str]) -> str:
    was, now = commits["was"] or "no git commit", commits["now"] or "no git commit"
    return f"git {was}" if was == now else f"git {was}, now {now}"
