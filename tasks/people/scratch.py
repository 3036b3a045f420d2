"""A project to throw away, in which a version is made again: the same pointers, data, base and recipe, and nothing that is remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recompress.data.sources import read_settings_of
from recompress.errors import DataRefused, InputError, RecompressError
from recompress.evidence import Dossier
from recompress.models.base import find_base
from recompress.settings.file import SettingsFile
from tasks.data.fetch import from_cache
from tasks.data.pins import Pin, is_here, measure, pins_of, pointers
from tasks.data.workbench import bench
from tasks.running.project import Project
from tasks.running.threads import VARIABLE

Say = Callable[[str], None]
POINTERS = ("dvc.yaml", "dvc.lock", "params.yaml")


@contextmanager
def scratch_project(root: Path, name: str, *, keep: bool, say: Say) -> Iterator[Path]:
    folder = root / ".recompress" / "reproduce" / f"{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def point_to_data(root: Path, scratch: Path, commit: str, say: Say) -> None:
    """The files in git that say which data, from the version's commit where there is one that was clean."""
    names = [*POINTERS, *(path.relative_to(root).as_posix() for path in pointers(root))]
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
        completed = subprocess.run(["git", "show", f"{commit}:./{name}"], cwd=root, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout if completed.returncode == 0 else None


def bring_pinned(root: Path, scratch: Path, dossier: Dossier, say: Say) -> str:
    """The pinned data, from the project where it still is, else from DVC's cache. Gives the md5 of the prepared splits."""
    chosen = dossier.recipe["dataset"]
    md5 = ""
    for name in [chosen["name"], *([chosen["unlabelled"]] if chosen.get("unlabelled") else [])]:
        raw, prepared = pins_of(scratch, name, read_settings_of(scratch, name).source)
        for pin in (raw, prepared):
            _place(root, scratch, pin, say)
        md5 = md5 or prepared.md5
    return md5


def _place(root: Path, scratch: Path, pin: Pin, say: Say) -> None:
    target = scratch / pin.path
    if target.exists():
        return
    if (root / pin.path).is_dir() and measure(root / pin.path, legacy=pin.legacy, root=root).md5 == pin.md5:
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


def find_pinned_base(project: Project, dossier: Dossier) -> Path:
    """The base model's folder. Raises ``IntegrityError`` when its weights are not the pinned ones."""
    base = dossier.recipe["base"]
    if str(base["model"]).startswith("models:/"):
        from tasks.tracking.registry import fetch_model

        return fetch_model(project.store, base["model"], project.ledger)
    return find_base(base["model"], revision=base.get("revision"), sha256=base.get("sha256"), root=project.root)


def write_recipe(scratch: Path, dossier: Dossier, variant: str, base: Path) -> None:
    """The recipe as it was, but for one variant, with the base where it lies. JSON is YAML too."""
    text = scratch / "told.yaml"
    text.write_text(dossier.recipe_text, encoding="utf-8")
    recipe = SettingsFile(text).values
    text.unlink()
    if variant not in recipe["variants"]:
        raise InputError(f"the recipe that was kept knows no variant {variant!r}")
    recipe |= {"variants": {variant: recipe["variants"][variant]}, "policy": "policy.yaml", "register": {"model": "reproduction"}}
    recipe["base"] = {"model": str(base.resolve()), "sha256": dossier.recipe["base"].get("sha256")}
    policy = dossier.policy | {"approval": {"mode": "none"}, "first_promotion": "refused"}  # nothing is to be promoted here
    for name, value in (("recipe.yaml", recipe), ("policy.yaml", policy)):
        (scratch / name).write_text(json.dumps(value, indent=1), encoding="utf-8")


def run_recipe(scratch: Path, say: Say) -> dict[str, Any]:
    """A recompression in a process of its own that knows nothing of this project's stores. Raises ``RecompressError`` with what it said last."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "RECOMPRESS_")) or name == VARIABLE}
    command = [sys.executable, "-m", "flows.cli", "--root", str(scratch), "run", str(scratch / "recipe.yaml"), "--json"]
    outcome = scratch / "outcome.json"
    with outcome.open("w") as out:  # a file, because a full pipe would stop the child while we read its other one
        environment = inherited | {"PREFECT_HOME": str(scratch / ".prefect")}
        with subprocess.Popen(command, cwd=scratch, env=environment, stdout=out, stderr=subprocess.PIPE, text=True) as child:
            lines = _follow(child, say)
    if child.returncode not in (0, 4):
        raise RecompressError(f"the recipe could not be run again: {lines[-1] if lines else f'exit code {child.returncode}'}")
    result: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
    return result


def _follow(child: subprocess.Popen[str], say: Say) -> list[str]:
    """Pass on what the run says while it runs."""
    lines = []
    for line in child.stderr or ():
        if line.strip():
            lines.append(line.strip())
            say(line.strip().split("s  ", 1)[-1])
    return lines
