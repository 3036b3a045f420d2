"""Data: brought as git pins it, or refused. The one module that asks DVC for anything (through ``tasks.data.workbench``, as a subprocess).

``bring`` takes the first way that gives the pinned bytes: they are here already; the cache has them; a local mirror (``RECOMPRESS_DATA_MIRROR``) has them; a
remote or the repository that they are imported from has them; the stage that made them makes them again. Bytes with another hash are never used.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.benchmarks import Example, reads_of
from recompress.data.clean import likeness
from recompress.data.sources import SourceSettings, names, read_settings_of
from recompress.data.splits import draw, draw_of_each, labels_of, preparation, read_split
from recompress.errors import DataRefused, InputError
from recompress.integrity.digest import check_directory, sha256_directory
from recompress.records import DatasetRef, Split
from recompress.settings.file import SettingsFile, unknown
from tasks.data.fetch import from_cache, from_mirror, from_network, mirror_gone, other_versions
from tasks.data.hub import from_hub
from tasks.data.pins import LOCK, Pin, check_stages, is_here, is_made, locked_inputs, locked_outputs, measure, nearest, pin_of_source, pins_of, tracked
from tasks.data.placing import own_files, put_in_place, replaced
from tasks.data.status import how_to_get, status
from tasks.data.workbench import Bench, Say, bench
from tasks.running.line import line

if TYPE_CHECKING:
    from tasks.running.recompression import Recompression

log = logging.getLogger(__name__)
__all__ = ["Brought", "accept", "adopt", "bring", "bring_data", "examples_of", "status", "unlabelled_of"]


@dataclass(frozen=True)
class Brought:
    """A data set on this machine, as git pins it."""

    dataset: DatasetRef
    prepared: Path
    raw: Path
    raw_md5: str


def bring(root: Path, name: str, slices: Sequence[str] | None = None, *, say: Say = log.info) -> Brought:
    """The prepared splits of a data set and the raw files that they were made of.

    Raises ``InputError`` for a name that ``params.yaml`` does not know, and ``DataRefused``: the bytes cannot be had (with the ways to get them), or what is
    here, or what the stage gives, has another hash than the pin (with the way to accept it).
    """
    source = read_settings_of(root, name)
    raw, prepared = pins_of(root, name, source.source)
    if not (is_here(root, raw) and is_here(root, prepared)):
        with bench(root, say) as work:
            if raw.pointer != LOCK and not is_here(root, raw):
                _bring_raw(work, name, raw)
            if not (is_here(root, raw) and is_here(root, prepared)):
                _bring_prepared(work, name, raw, prepared)
    return _describe(root, name, source, raw, prepared, slices)


def adopt(root: Path, directory: Path) -> str:
    """Take a local copy of raw data into the cache and the project, if and only if it hashes to a pin. Gives the name of the data set.

    Raises ``InputError`` for what is no folder, and ``DataRefused`` that says how the folder differs from the nearest pin. Adopting twice does no harm.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is {'a file' if directory.exists() else 'not there'}; data adopt takes the folder that holds the files of a data set")
    measured = measure(directory)
    pins = list(tracked(root).values())
    pin = next((pin for pin in pins if pin.md5 == (measure(directory, legacy=True) if pin.legacy else measured).md5), None)
    if pin is None:
        raise DataRefused(f"{directory} is none of the pinned data sets; nearest is {nearest(measured, pins)}")
    if is_here(root, pin):
        log.info("%s is here already", pin.path)
    else:
        with bench(root) as work:
            _place(work, work.add(directory), pin)
    return _name_of(root, pin)


def accept(root: Path, name: str) -> dict[str, dict[str, str]]:
    """Make a data set again from its raw files and write what comes out into ``dvc.lock`` as the new pin. Gives old and new md5 of what changed, by path.

    Raises ``DataRefused`` when the raw files cannot be had or the stage fails; ``dvc.lock`` is then as it was.
    """
    source = read_settings_of(root, name)
    check_stages(root)
    raw = pin_of_source(root, source.source)
    if raw is None and not is_made(root, source.source):
        first = "" if (root / source.source).exists() else f"put the files into {source.source}, then "
        raise DataRefused(f"the raw files of {name!r} are not pinned: {first}`dvc add {source.source}`, and `recompress data accept {name}` again")
    old = locked_outputs(root / LOCK)
    with bench(root) as work:
        if raw is not None and not is_here(root, raw):
            _bring_raw(work, name, raw)
        outputs = _run_stages(work, name, [source.source] if raw else [])
        for pin in outputs.values():
            _check(work.folder / pin.path, pin)
        with replaced({root / path: work.folder / path for path in outputs}):
            for file in ("params.yaml", LOCK):  # a lock that names other code than params.yaml is what `dvc status` shows, whichever comes first
                _replace(root / file, work.folder / file)
    changed = {path: pin for path, pin in outputs.items() if path not in old or old[path].md5 != pin.md5}
    return {path: {"old": old[path].md5 if path in old else "", "new": pin.md5} for path, pin in changed.items()}


@line("bring data")
def bring_data(run: Recompression) -> DatasetRef:
    """The recipe's data set: brought, and held against what the recipe asks of it. Raises ``InputError`` and ``DataRefused``."""
    recipe = run.plan.recipe
    settings = recipe.dataset
    dataset = bring(run.root, settings.name, settings.slices, say=run.say).dataset
    if dataset.benchmark not in reads_of(recipe.measured_on):
        raise InputError(f"data set {settings.name!r} is for {dataset.benchmark}, the recipe says benchmark: {recipe.benchmark} ({run.plan.path})")
    for split in ("train", "dev", "test"):
        if not dataset.rows.get(split):
            way_out = (
                "add some"
                if split == "train"
                else f"give it a file of its own, or a part of the training data: split_off: {{{split}: {{share: 0.1}}}} in params.yaml"
            )
            raise DataRefused(f"data set {settings.name!r} has no {split} examples in {', '.join(dataset.slices)}; {way_out}")
    if settings.train_examples is not None:
        dataset = _with_fewer(dataset, settings.train_examples, recipe.seed)
    if settings.unlabelled is not None:
        text = bring(run.root, settings.unlabelled, say=run.say).dataset
        dataset = dataset.model_copy(update={"unlabelled": (text.uri, text.sha256)})
    run.say(f"data: {dataset.name} ({', '.join(dataset.slices)}), {sum(dataset.rows.values()):,} examples, md5 {dataset.md5[:12]}")
    run.dataset = dataset
    return dataset


def _with_fewer(dataset: DatasetRef, at_most: int, seed: int) -> DatasetRef:
    """The data set with fewer training examples. Its number of rows is that of what is learned from."""
    fewer = dataset.model_copy(update={"train_draw": (at_most, seed)})
    return fewer.model_copy(update={"rows": dataset.rows | {"train": len(examples_of(fewer, "train"))}})


def examples_of(dataset: DatasetRef, split: Split) -> list[Example]:
    """The examples of the chosen slices. Raises ``IntegrityError`` when the folder has changed since it was brought."""
    check_directory(Path(dataset.uri), dataset.sha256)
    examples = read_split(Path(dataset.uri), split, dataset.slices)
    return examples if split != "train" or dataset.train_draw is None else draw_of_each(examples, *dataset.train_draw)


def unlabelled_of(dataset: DatasetRef) -> list[Example]:
    """The unlabelled text that goes with a data set, in words as its benchmark splits them; of the same slices where it has them, and without what stands in
    the test split; as many as the data set says. Empty where the recipe names none."""
    if dataset.unlabelled is None:
        return []
    from recompress.benchmarks import get_benchmark

    uri, sha256 = dataset.unlabelled
    check_directory(Path(uri), sha256)
    shared = [name for name in preparation(Path(uri))["slices"] if name in dataset.slices]
    split = get_benchmark(dataset.benchmark).split
    tested = {likeness(example) for example in examples_of(dataset, "test")}
    rows = read_split(Path(uri), "train", shared or None)
    text = [Example(split(" ".join(row.words)), (), row.slice) for row in rows if likeness(row) not in tested]
    return text if dataset.unlabelled_draw is None else draw(text, *dataset.unlabelled_draw)


def _bring_raw(work: Bench, name: str, pin: Pin) -> None:
    """Raises ``DataRefused`` with the ways out when no way gives the pinned bytes."""
    place = from_cache(work, pin) or from_mirror(work, pin, name) or from_hub(work, pin, name) or from_network(work, pin)
    if isinstance(place, str):
        raise DataRefused(f"the raw data of {name!r} is not here ({place}{mirror_gone()}); {how_to_get(pin)}")
    _place(work, place, pin)


def _bring_prepared(work: Bench, name: str, raw: Pin, prepared: Pin) -> None:
    """From the cache, from a remote, or by running the stage again. Raises ``DataRefused`` when the stage gives other bytes than the pinned."""
    missing = [pin for pin in (raw, prepared) if not is_here(work.root, pin)]
    sources = {pin.path: from_cache(work, pin) or from_network(work, pin) for pin in missing}
    if not all(isinstance(place, Path) for place in sources.values()):
        work.say(f"{name}: preparing; the first time takes up to a minute")
        outputs = _run_stages(work, name, [raw.path] if raw.pointer != LOCK else [])
        for pin in (raw, prepared):
            if pin.path in outputs and outputs[pin.path].md5 != pin.md5:
                raise DataRefused(
                    f"data set {name!r} changed: its stage gives {pin.path} as {outputs[pin.path].md5[:12]}…, dvc.lock pins {pin.md5[:12]}…{other_versions(work.root)}; "
                    f"`recompress data accept {name}` takes the new one, after you have looked at it"
                )
    for pin in missing:
        _place(work, work.folder / pin.path, pin)


def _run_stages(work: Bench, name: str, sources: list[str]) -> dict[str, Pin]:
    """Run the stages of a data set on the bench: what came out, by path."""
    lock = work.reproduce(f"prepare@{name}", sources)
    outputs = locked_outputs(lock)
    ran = {f"prepared/{name}", *locked_inputs(lock, f"prepare@{name}")}
    return {path: pin for path, pin in outputs.items() if path in ran}


def _place(work: Bench, folder: Path, pin: Pin) -> None:
    """Bring a folder from the bench into the project, where it appears whole."""
    _check(folder, pin)
    if not (work.root / pin.path).exists():
        put_in_place(folder, work.root / pin.path)


def _check(folder: Path, pin: Pin) -> None:
    if measure(folder, legacy=pin.legacy).md5 != pin.md5:
        raise DataRefused(f"{pin.path} does not hash to its pin {pin.md5}; nothing was taken")


def _replace(target: Path, source: Path) -> None:
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return
    fresh = target.with_name(f"{target.name}.new")
    shutil.copyfile(source, fresh)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(target)


def _describe(root: Path, name: str, source: SourceSettings, raw: Pin, prepared: Pin, slices: Sequence[str] | None) -> Brought:
    folder = (root / prepared.path).resolve()
    own_files(folder)
    record = preparation(folder)
    for chosen in slices or ():
        if chosen not in record["slices"]:
            raise InputError(unknown("slice", chosen, record["slices"], f"data set {name}"))
    selected = tuple(sorted(slices or record["slices"]))
    counts = {split: sum(tally["kept"] for part, tally in parts.items() if part in selected) for split, parts in record["counts"].items()}
    dataset = DatasetRef(
        name=name,
        benchmark=source.benchmark,
        uri=str(folder),
        sha256=sha256_directory(folder),
        md5=prepared.md5,
        labels=labels_of(folder, selected),
        slices=selected,
        rows=counts,
    )
    return Brought(dataset, folder, root / raw.path, raw.md5)


def _name_of(root: Path, pin: Pin) -> str:
    file = SettingsFile(root / "params.yaml")
    return next((name for name in names(file) if read_settings_of(root, name).source == pin.path), pin.path)
