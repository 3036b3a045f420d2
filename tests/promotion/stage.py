"""What a promotion needs, small enough for hundreds of runs: model folders of a few bytes, verdicts, plans, and a registry that is a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from recompress.errors import IntegrityError
from recompress.integrity.digest import sha256_directory, sha256_json
from recompress.integrity.model_files import MODEL_FOLDER, write_manifest
from recompress.promotion import HEAD_TAG, MANIFEST_TAG, PLAN_TAG, Promoted, Promoter, present_champion
from recompress.promotion.registry import unannounced
from recompress.records import ApprovalRule, ChampionRef, Finding, PromotionPlan, Verdict

MODEL = "ner"


def sha(word: str) -> str:
    return sha256_json(word)


def safetensors(seed: int) -> bytes:
    """A file with one tensor of four numbers."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes((seed * 7 + i) % 256 for i in range(16))


def model_directory(place: Path, seed: int) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps({"seed": seed}))
    (place / "model.safetensors").write_bytes(safetensors(seed))
    (place / "vocab.txt").write_text("[UNK]\nhabari\n")
    return place


def make_verdict(candidate: str, champion: ChampionRef | None, *, passed: bool = True) -> Verdict:
    return Verdict(
        candidate="int8",
        passed=passed,
        findings=(Finding(check="loss", passed=passed, reason="" if passed else "loss-outside-margin", detail="a loss"),),
        metric="f1",
        first_promotion=champion is None,
        spent_loss_after=0.01,
        policy_sha256=sha("policy"),
        dataset_sha256=sha("data"),
        candidate_sha256=candidate,
        baseline_sha256=sha("baseline"),
        champion_sha256=champion.model_sha256 if champion else None,
        evaluations={"candidate": sha("evaluation")},
    )


def make_plan(directory: Path, champion: ChampionRef | None, *, rule: ApprovalRule | None = None, passed: bool = True) -> tuple[PromotionPlan, Verdict]:
    candidate = sha256_directory(directory)
    verdict = make_verdict(candidate, champion, passed=passed)
    plan = PromotionPlan(
        model=MODEL,
        author="ada",
        candidate="int8",
        model_sha256=candidate,
        expected=champion,
        verdict_sha256=verdict.digest,
        policy_sha256=verdict.policy_sha256,
        digests={name: sha(name) for name in ("data", "base", "recipe", "code")},
        facts={"git_commit": "0" * 40},
        approval=rule or ApprovalRule(),
    )
    return plan, verdict


class FolderRegistry:
    """A registry as a folder: what a kill leaves behind in it is what it would leave in a real one. ``moves`` remembers every move of an alias."""

    def __init__(self, root: Path, *, crash_point: Callable[[str], None] = lambda name: None) -> None:
        self.root = root
        self.crash_point = crash_point
        root.mkdir(parents=True, exist_ok=True)

    shared = False

    def heads(self) -> dict[tuple[str, str], str]:
        models = [folder.name for folder in self.root.iterdir()]
        heads = {(model, version): (self.tags(model, version) or {}).get(HEAD_TAG) for model in models for version in self.versions(model)}
        return {place: head for place, head in heads.items() if head is not None}

    def champion(self, model: str) -> str | None:
        alias = self.root / model / "champion"
        return (alias.read_text() or None) if alias.exists() else None

    def create_version(self, model: str, directory: Path, tags: Mapping[str, str], announce: Callable[[str], None] = unannounced) -> str:
        uploads = self.root / model / "uploads"
        uploads.mkdir(parents=True, exist_ok=True)
        upload = uploads / str(len(list(uploads.iterdir())))
        announce(self.manifest_of(directory, uploads / "rehearsal"))
        for file in sorted(directory.rglob("*")):
            target = upload / MODEL_FOLDER / file.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            self.crash_point("registry:half-uploaded")
        (upload / "served.py").write_text("# what serves it\n")
        manifest = write_manifest(upload)
        self.crash_point("registry:uploaded")
        version = str(1 + len(self.versions(model)))
        (self.root / model / f"tags-{version}.json").write_text(json.dumps({**tags, MANIFEST_TAG: manifest}))
        upload.rename(self.root / model / version)
        return version

    def manifest_of(self, directory: Path, place: Path) -> str:
        """The digest that a version of this directory will have."""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(directory, place / MODEL_FOLDER)
        (place / "served.py").write_text("# what serves it\n")
        manifest = write_manifest(place)
        shutil.rmtree(place)
        return manifest

    def rows(self, model: str, version: str) -> dict[str, str]:
        return {"source": f"{model}/{version}"}

    def versions(self, model: str) -> list[str]:
        return sorted(path.name for path in (self.root / model).glob("*") if path.name.isdigit())

    def find_version(self, model: str, plan: str) -> str | None:
        return next((version for version in self.versions(model) if (self.tags(model, version) or {}).get(PLAN_TAG) == plan), None)

    def tags(self, model: str, version: str) -> dict[str, str] | None:
        if version not in self.versions(model):
            return None
        tags: dict[str, str] = json.loads((self.root / model / f"tags-{version}.json").read_text())
        return tags

    def set_tag(self, model: str, version: str, name: str, value: str) -> None:
        file = self.root / model / f"tags-{version}.json"
        beside = file.with_suffix(".part")
        beside.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
        beside.replace(file)

    def fetch(self, model: str, version: str) -> Path:
        directory = self.root / model / version
        if not directory.is_dir():
            raise IntegrityError(f"version {version} of {model} has no files")
        return directory

    def move_champion(self, model: str, version: str | None) -> None:
        self.set_champion(model, version)
        with (self.root / model / "moves").open("a") as log:
            log.write(f"{version}\n")

    def set_champion(self, model: str, version: str | None) -> None:
        """What somebody does behind the ledger's back."""
        beside = self.root / model / "champion.part"
        beside.write_text(version or "")
        beside.replace(self.root / model / "champion")

    @property
    def moves(self) -> list[str]:
        file = self.root / MODEL / "moves"
        return file.read_text().splitlines() if file.exists() else []


def promote_new(promoter: Promoter, folder: Path, seed: int, *, again: bool = False) -> Promoted:
    """Propose and promote a model that nobody has seen yet."""
    directory = model_directory(folder / f"model {seed}", seed)
    plan, verdict = make_plan(directory, present_champion(promoter.registry, MODEL))
    return promoter.promote(promoter.propose(plan, verdict, again=again).digest, directory)
