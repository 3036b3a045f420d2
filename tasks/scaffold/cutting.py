"""How a new data set is cut into splits and slices, so that the data check of its first run holds: asked before anything is moved, and cut otherwise where that helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recompress.data.checks import MIN_ROWS, failures
from recompress.data.infer.understood import Understood
from recompress.data.sources import read_settings_of
from recompress.data.splits import preparation
from recompress.errors import DataRefused
from recompress.models.heads import head_of
from tasks.data.bring import accept, bring
from tasks.data.validate import validate
from tasks.scaffold.base import PinnedBase
from tasks.scaffold.dials import TEST_SHARE, check_enough, shares

WAY_OUT = (
    "correct the data, bring more, give files for dev and test of your own, or say how it is cut (--set 'split_off={test: {share: 0.3}, dev: {share: 0.2}}')"
)


@dataclass(frozen=True)
class Filling:
    """A data set that was looked at, and how it is to be cut."""

    name: str
    data: Understood
    base: PinnedBase | None
    origin: str
    """The name of the file or folder that it came from."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Dials of the entry that somebody set."""
    dev: float = 0.0
    """The share of dev at least, where it is drawn."""

    def entry(self) -> dict[str, Any]:
        """The entry of ``params.yaml``, with shares for the splits that are missing that leave enough to judge by. Raises ``DataRefused`` for too few rows."""
        missing, asked = self.data.entry.get("split_off", {}), self.asked.get("split_off", ())
        if not missing or self.base is None or not head_of(self.data.benchmark).labelled:
            return self.data.entry
        chosen = {split: share for split in missing if split not in asked for share in shares(self.data.rows["train"], **{split: True}).values()}
        if "dev" in chosen:
            tested = chosen.get("test", missing.get("test", {}).get("share", 0.0))
            chosen["dev"] = max(chosen["dev"], self.dev, dev_for_slices(self.data.slices, tested))
        return self.data.entry | {"split_off": {split: how | ({"share": chosen[split]} if split in chosen else {}) for split, how in missing.items()}}


def cut(staged: Path, filling: Filling, describe: Callable[[Filling], None], say: Callable[[str], None]) -> tuple[Filling, Mapping[str, int]]:
    """Prepare and pin the data in ``staged``; gives how it was cut at last, and the rows of each split. ``describe`` writes its entry into ``params.yaml``.

    Raises ``DataRefused`` for data that the check of a run would refuse however it is cut here.
    """
    describe(filling)
    if filling.base is None:
        accept(staged, filling.name)
        return filling, preparation(staged / "prepared" / filling.name)["rows"]
    why = wrong_with(staged, filling.name)
    for other, note in _ways(filling) if why else ():
        describe(other)
        if not wrong_with(staged, filling.name):
            told = f"{note}, because otherwise the data check of a run would find {why}"
            say(f"note       {told}")
            filling, why = replace(other, data=replace(other.data, notes=(*other.data.notes, told))), ""
            break
    if why:
        raise DataRefused(f"the data check of a run would refuse this: {why}; {WAY_OUT}")
    return filling, preparation(staged / "prepared" / filling.name)["rows"]


def wrong_with(staged: Path, name: str) -> str:
    """What the check of a run finds wrong with the data as it is described; empty where it holds. Raises ``DataRefused`` for lines that cannot be read, and for
    too few rows."""
    try:
        accept(staged, name)
    except DataRefused as error:
        if "nothing is left of" in str(error):
            return str(error)
        raise
    prepared = staged / "prepared" / name
    check_enough(preparation(prepared)["rows"])
    try:
        return failures(validate(bring(staged, name), read_settings_of(staged, name)))
    except DataRefused as error:
        return str(error).replace(f" ({prepared.resolve()})", "").removesuffix("; choose other slices or correct the data")


def _ways(filling: Filling) -> Iterator[tuple[Filling, str]]:
    """Other ways to cut the data, each with what to say of it; none that undoes what somebody asked for."""
    whole, bigger = without_slices(filling), with_more_dev(filling)
    if whole is not None:
        yield whole, f"the slices ({', '.join(list(filling.data.slices)[:5])}) are not told apart"
    if bigger is not None:
        yield bigger, f"dev is {100 * TEST_SHARE:.0f} % of what test leaves"
    if whole is not None and (both := with_more_dev(whole)) is not None:
        yield both, f"the slices are not told apart and dev is {100 * TEST_SHARE:.0f} % of what test leaves"


def without_slices(filling: Filling) -> Filling | None:
    """The same with all rows in one slice; nothing where there is but one, or where somebody named them."""
    entry: dict[str, Any] = dict(filling.data.entry)
    if len(filling.data.slices) < 2 or "slice" in filling.asked or "files" in filling.asked:
        return None
    entry["files"] = entry["files"].replace("{slice}", "*")
    entry.pop("slice", None)
    entry |= {"slice": ""} if entry["format"] == "jsonl" else {}
    return replace(filling, data=replace(filling.data, entry=entry, slices={"all": sum(filling.data.slices.values())}))


def with_more_dev(filling: Filling) -> Filling | None:
    """The same with as large a dev split as is drawn at all; nothing where none is drawn, or it is as large."""
    how = filling.entry().get("split_off", {}).get("dev")
    if how is None or "split_off" in filling.asked or how["share"] >= TEST_SHARE:
        return None
    return replace(filling, dev=TEST_SHARE)


def dev_for_slices(slices: Mapping[str, int], test: float) -> float:
    """The share of dev that gives the smallest slice enough rows; 0 where no share that is drawn does."""
    left = min(slices.values()) * (1 - test)
    needed = (MIN_ROWS + 3) / left if left else 1.0
    return round(needed + 0.005, 2) if len(slices) > 1 and needed + 0.005 <= TEST_SHARE else 0.0
