"""What init cuts passes the data check of the run that it says is next, or nothing appears."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from recompress.data.checks import failures
from recompress.data.infer.looking import look_at
from recompress.data.sources import read_settings_of
from recompress.data.splits import read_split
from recompress.errors import DataRefused
from recompress.settings.file import SettingsFile
from tasks.data.bring import bring
from tasks.data.validate import validate
from tasks.scaffold import cutting
from tasks.scaffold.base import PinnedBase
from tasks.scaffold.begin import begin
from tasks.scaffold.cutting import Filling
from tasks.scaffold.filling import Wanted
from tests.tasks.scaffold.conftest import WORDS

DRAW = random.Random(1)


def text(i: int) -> str:
    return f"{' '.join(DRAW.choices(WORDS, k=6))} {i} {DRAW.randint(0, 10**6)}"


def table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def passes(folder: Path, name: str) -> dict[str, Any]:
    """The entry of a project whose data check, as a run makes it, finds nothing."""
    assert failures(validate(bring(folder, name), read_settings_of(folder, name))) == ""
    return dict(SettingsFile(folder / "params.yaml").values["datasets"][name])


@pytest.mark.slow
def test_languages_too_small_to_be_judged_alone_are_no_slices(tmp_path: Path, base: Path) -> None:
    languages = ["en"] * 450 + ["de"] * 120 + ["fr"] * 110
    table(tmp_path / "reviews.csv", ["text", "label", "language"], [[text(i), "ab"[i % 2], language] for i, language in enumerate(languages)])
    said: list[str] = []
    begun = begin(None, tmp_path, Wanted(Path("reviews.csv"), str(base)), said.append)
    entry = passes(tmp_path, "reviews")
    assert "slice" not in entry
    assert any("the slices (de, en, fr) are not told apart, because" in line and "rows in de/dev" in line for line in said)
    assert any("are not told apart" in line for line in begun.inferred)


@pytest.mark.long
def test_nor_are_those_of_a_key_slice(tmp_path: Path, base: Path) -> None:
    slices = ["en"] * 380 + ["sw"] * 20
    rows = [json.dumps({"text": text(i), "label": "ab"[i % 2], "slice": name}) for i, name in enumerate(slices)]
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    begin(None, tmp_path, Wanted(Path("m.jsonl"), str(base), dials=("label=label",)))
    assert passes(tmp_path, "m")["slice"] == ""


@pytest.mark.long
def test_labels_too_rare_for_three_splits_stay_in_train(tmp_path: Path, base: Path) -> None:
    rows = [[text(i), f"intent_{i % 4}"] for i in range(400)] + [[text(i), f"rare_{i % 6}"] for i in range(12)]
    table(tmp_path / "intents.csv", ["text", "label"], rows)
    begun = begin(None, tmp_path, Wanted(Path("intents.csv"), str(base)))
    assert passes(tmp_path, "intents")["split_off"]["test"]["rare"] == 10
    shown = {split: Counter(row.labels[0] for row in read_split(tmp_path / "prepared" / "intents", split)) for split in ("train", "dev", "test")}
    assert sum(count for label, count in shown["train"].items() if label.startswith("rare")) == 12
    assert not any(label.startswith("rare") for split in ("dev", "test") for label in shown[split])
    assert any("so they stay in train" in line for line in begun.inferred)


@pytest.mark.long
def test_so_do_types_of_entities(tmp_path: Path, base: Path) -> None:
    sentences = []
    for i in range(400):
        words = [f"{word} O" for word in text(i).split()]
        words.insert(DRAW.randint(0, len(words)), f"asha B-{'EVT' if i in (5, 6) else ('PER', 'LOC')[i % 2]}")
        sentences.append("\n".join(words if i % 3 else [word for word in words if "EVT" in word or word.endswith(" O")]) + "\n")
    (tmp_path / "ents.conll").write_text("\n".join(sentences))
    begin(None, tmp_path, Wanted(Path("ents.conll"), str(base)))
    entry = passes(tmp_path, "ents")
    assert entry["split_off"]["test"]["rare"] == 10
    tested = read_split(tmp_path / "prepared" / "ents", "test")
    assert 100 <= len(tested) <= 0.45 * 400, "as many as were asked for"
    assert not any("B-EVT" in row.labels for row in tested)


@pytest.mark.slow
def test_what_no_cut_mends_is_refused_with_the_check_and_a_way_out_and_leaves_nothing(tmp_path: Path, base: Path) -> None:
    for split, labels, count in (("train", "ab", 200), ("dev", "ab", 60), ("test", "aaaaaaab", 160)):
        table(
            tmp_path / "data" / f"{split}.csv" if (tmp_path / "data").mkdir(exist_ok=True) is None else tmp_path,
            ["text", "label"],
            [[text(i), labels[i % len(labels)]] for i in range(count)],
        )
    done = CliRunner().invoke(main, ["--root", str(tmp_path), "init", str(tmp_path / "new"), "--data", str(tmp_path / "data"), "--base", str(base)])
    assert done.exit_code == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "the data check of a run would refuse this: label_balance in all/all: 0.375 (limit 0.05); correct the data" in last
    assert "split_off" in last
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


@pytest.mark.long
def test_slices_that_somebody_named_are_not_joined(tmp_path: Path, base: Path) -> None:
    table(tmp_path / "r.csv", ["text", "label", "region"], [[text(i), "ab"[i % 2], "north" if i % 9 else "south"] for i in range(400)])
    with pytest.raises(DataRefused, match=r"the data check of a run would refuse this: rows in south/dev: \d+ \(limit 30\)"):
        begin(Path("new"), tmp_path, Wanted(Path("r.csv"), str(base), dials=("slice=region",)))
    assert {path.name for path in tmp_path.iterdir()} == {"r.csv"}


@pytest.mark.long
def test_shares_that_somebody_gave_are_kept_and_the_other_split_is_drawn(tmp_path: Path, base: Path) -> None:
    table(tmp_path / "t.csv", ["text", "label"], [[text(i), "ab"[i % 2]] for i in range(400)])
    begin(None, tmp_path, Wanted(Path("t.csv"), str(base), dials=("split_off={test: {share: 0.35}}",)))
    assert passes(tmp_path, "t")["split_off"] == {"test": {"share": 0.35}, "dev": {"share": 0.15}}


def filling(folder: Path, rows: int, small: int, **asked: Any) -> Filling:
    table(folder / "x.csv", ["text", "label", "language"], [[text(i), "ab"[i % 2], "en" if i >= small else "sw"] for i in range(rows)])
    base = PinnedBase(model="x", revision=None, sha256="0" * 64, directory=folder, layers=2, width=8, positions=64, causal=False)
    return Filling("x", look_at(folder / "x.csv", label="label", **asked), base, "x.csv", asked)


@pytest.mark.parametrize(("small", "dev"), [(100, 0.1), (250, 0.18), (900, 0.1)])
def test_dev_is_larger_where_that_gives_the_smallest_slice_enough_rows(small: int, dev: float, tmp_path: Path) -> None:
    assert filling(tmp_path, 2000, small).entry()["split_off"]["dev"]["share"] == pytest.approx(dev, abs=0.011)


def test_ways_to_cut_undo_nothing_that_was_asked_for(tmp_path: Path) -> None:
    inferred = filling(tmp_path, 600, 150)
    whole, bigger = cutting.without_slices(inferred), cutting.with_more_dev(inferred)
    assert whole is not None
    assert bigger is not None
    assert ("slice" in whole.data.entry, bigger.entry()["split_off"]["dev"]["share"]) == (False, 0.2)
    asked = filling(tmp_path, 600, 150, slice="language", split_off={"test": {"share": 0.3}, "dev": {"share": 0.1}})
    assert (cutting.without_slices(asked), cutting.with_more_dev(asked)) == (None, None)
    paths = replace(inferred, data=replace(inferred.data, entry=inferred.data.entry | {"files": "{slice}/{split}.csv"}))
    assert (cutting.without_slices(paths) or paths).data.entry["files"] == "*/{split}.csv"
