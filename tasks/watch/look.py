"""A look at everything that a recipe depends on, as it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from recompress.data.formats.tables import SIDE_FILES
from recompress.data.sources import SourceSettings, read_settings_of
from recompress.errors import DataRefused, RecompressError, without_passwords
from recompress.integrity.digest import sha256_directory, sha256_file, sha256_json
from recompress.integrity.fingerprint import code_fingerprint, versions
from recompress.models.base import HUB_FILES, WEIGHTS, find_base, pinned_file
from recompress.recipe import BaseChoice, Plan
from recompress.watch.settings import WatchSettings
from recompress.watch.sources import Kind, Sight, Source
from tasks.data.pins import LOCK, is_here, pins_of
from tasks.running.code import CODE
from tasks.tracking.track import Store
from tasks.watch.git import look_at_import
from tasks.watch.hub import RepoKind, look_at_hub

PINS = ("revision", "sha256")
LEFT_ALONE = -1.0
"""In place of a time to wait: nobody was asked."""


def look_at_sources(root: Path, plan: Plan, settings: WatchSettings, left_alone: Mapping[str, str] | None = None) -> list[Sight]:
    """Every source of a recipe. What cannot be seen says so in its sight; nothing is raised for it, and nothing is written.

    Places in ``left_alone`` are not asked, for the reason that stands there.
    """
    chosen, look = plan.recipe.dataset, Looking(root, settings, left_alone or {})
    given = plan.recipe.baseline.given
    models = {"base": plan.recipe.base} if given != plan.recipe.base else {}  # a model that is fine-tuned already is its own base
    sights = [look.model(name, choice) for name, choice in (models | ({"baseline": given} if given is not None else {})).items()]
    for name in filter(None, (chosen.name, chosen.unlabelled)):
        sights += look.data(name)
    return [*sights, *_of_the_project(plan)]


def dials_digest(plan: Plan) -> str:
    """The digest of a recipe without its pins: those are sources of their own."""
    document = plan.as_json
    return sha256_json({key: _without_pins(value) if key in ("base", "baseline") else value for key, value in document.items()})


def _without_pins(settings: object) -> object:
    return {key: value for key, value in settings.items() if key not in PINS} if isinstance(settings, dict) else settings


def _of_the_project(plan: Plan) -> Iterator[Sight]:
    """Recipe, policy, code and packages: what a person changes here."""
    methods = {step.module for steps in plan.steps.values() for step in steps}
    installed = versions()
    yield Sight(Source("recipe", "recipe", str(plan.path)), digest=dials_digest(plan))
    yield Sight(Source("policy", "policy", plan.recipe.policy), digest=plan.policy.sha256)
    yield Sight(Source("code", "code", "recompress"), digest=code_fingerprint(*CODE, *sorted(methods)))
    yield Sight(Source("packages", "packages", ", ".join(f"{name} {version}" for name, version in installed.items())), digest=sha256_json(installed))


@dataclass(frozen=True)
class Looking:
    """One look, from a project."""

    root: Path
    settings: WatchSettings
    left_alone: Mapping[str, str]

    def model(self, name: str, choice: BaseChoice) -> Sight:
        """A base or a baseline, wherever the recipe has it from."""
        if choice.model.startswith("models:/"):
            return _registered(self.root, Source(name, "registry", choice.model, choice.sha256 or ""))
        if choice.revision is not None and not choice.model.startswith("package://") and not (self.root / choice.model).is_dir():
            return self._on_hub(Source(name, "hub model", choice.model, choice.revision), "model", HUB_FILES)
        kind: Kind = "package" if choice.model.startswith("package://") else "folder"
        source = Source(name, kind, choice.model, choice.sha256 or "")
        try:
            folder = find_base(choice.model, root=self.root)
            return _folder(source, folder, pinned_file(choice.model, folder, root=self.root))
        except (RecompressError, OSError) as error:
            return Sight(source, away=str(error))

    def data(self, name: str) -> Iterator[Sight]:
        """The data set as git pins it, and the place that it came from. A watch never accepts data: what moved there waits for a person."""
        described = read_settings_of(self.root, name)
        try:
            raw, prepared = pins_of(self.root, name, described.source)
            digest = sha256_json([raw.md5, prepared.md5])
            if raw.pointer != LOCK:
                is_here(self.root, raw)
            yield Sight(Source(f"data {name}", "data", described.source, digest), digest=digest, pinned_digest=digest, revision=prepared.md5)
        except DataRefused as error:
            yield Sight(Source(f"data {name}", "data", described.source), waits=str(error))
            return
        if described.hub is not None:
            yield self._data_on_hub(name, described)
        if raw.url:
            imported = yaml.safe_load((self.root / raw.pointer).read_text(encoding="utf-8"))["deps"][0]
            repository = imported["repo"]
            source = Source(f"origin of {name}", "DVC import", without_passwords(repository["url"]), repository["rev_lock"])
            branch, rev = self.settings.follow.get(source.place, ""), str(repository.get("rev") or "")
            yield self._unless_left_alone(source, lambda: look_at_import(source, repository["url"], imported["path"], branch, rev))

    def _data_on_hub(self, name: str, described: SourceSettings) -> Sight:
        hub = described.hub
        assert hub is not None

        def is_read(path: str) -> bool:
            return bool(described.pattern.fullmatch(path)) or (described.format == "datasets" and Path(path).name in SIDE_FILES)

        sight = self._on_hub(Source(f"origin of {name}", "hub data set", hub.dataset, hub.revision), "dataset", is_read)
        if not sight.moved or sight.waits:
            return sight
        way_out = f"look at it, write the commit into params.yaml, then: recompress data fetch {name}, and recompress data accept {name}"
        return replace(sight, waits=f"the hub holds other files than are pinned ({sight.revision[:12]}); {way_out}")

    def _on_hub(self, source: Source, kind: RepoKind, files: Sequence[str] | Callable[[str], bool]) -> Sight:
        branch = self.settings.follow.get(source.place, "main")
        return self._unless_left_alone(source, lambda: look_at_hub(source, kind, files, branch))

    def _unless_left_alone(self, source: Source, look: Callable[[], Sight]) -> Sight:
        why = self.left_alone.get(source.place)
        return look() if why is None else Sight(source, away=why, retry_after_s=LEFT_ALONE)


def _folder(source: Source, folder: Path, pinned: Path, revision: str = "") -> Sight:
    """A folder that is pinned by its weights, or is taken as it is."""
    if not source.pinned:
        return Sight(source, digest=sha256_directory(folder), revision=revision)
    weights = sha256_file(pinned)
    return Sight(source, digest=weights, pinned_digest=source.pinned, revision=revision, pins={"sha256": weights})


def _registered(root: Path, source: Source) -> Sight:
    """A registered model behind an alias. One of this project's own is held against the ledger when it is used."""
    from recompress.integrity.model_files import MODEL_FOLDER
    from recompress.promotion.registry import MANIFEST_TAG
    from tasks.tracking.registry import open_registry, version_of

    store = Store(root, reads_only=True)
    if not store.exists:
        return Sight(source, away=f"there is no store of models at {store.uri}")
    try:
        registry = open_registry(store)
        model, version = version_of(registry, source.place)
        if source.pinned:
            folder = registry.fetch(model, version) / MODEL_FOLDER
            return _folder(source, folder, folder / WEIGHTS, version)
        tags = registry.tags(model, version) or {}
        return Sight(source, digest=sha256_json({"version": version, "manifest": tags.get(MANIFEST_TAG, "")}), revision=version)
    except (RecompressError, OSError) as error:
        return Sight(source, away=str(error))
