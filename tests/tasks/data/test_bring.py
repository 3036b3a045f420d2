"""Data brought as pinned or refused: with a real DVC, on a project of a few made-up sentences."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from recompress.data.splits import read_split
from recompress.data.version import version_of
from recompress.errors import DataRefused, InputError, IntegrityError
from tasks.data.bring import _with_fewer, accept, bring, examples_of, status, unlabelled_of
from tasks.data.pins import is_here, locked_outputs, locked_version, measure, pins_of, tracked
from tasks.data.workbench import run_dvc
from tests.tasks.data.projects import dvc, lock_of, lose, no_dvc


def test_the_md5_is_the_one_that_dvc_gives(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    folder = tmp_path / "data"
    for name, text in (("b/x.txt", "leo"), ("b.txt", ""), ("a/é ü.txt", "ọjọ́"), ("b-c/z", "\r\n\x00"), ("Z", "z")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    dvc(tmp_path, "add", "-q", "data")
    pin = tracked(tmp_path)["data"]
    measured = measure(folder)
    assert (pin.md5, pin.size, pin.files) == (measured.md5, measured.size, measured.files)


def test_of_the_training_text_a_part_can_be_drawn_and_nothing_else_of_the_data(project: Path) -> None:
    whole = bring(project, "toy").dataset
    fewer, fewest, otherwise = (_with_fewer(whole, count, seed) for count, seed in ((7, 3), (2, 3), (7, 4)))
    rows, some, others = (examples_of(dataset, "train") for dataset in (fewer, fewest, otherwise))
    assert (fewer.rows["train"], fewest.rows["train"], Counter(row.slice for row in rows)) == (14, 4, {"west": 7, "east": 7})
    every = examples_of(whole, "train")
    assert [row for row in every if row in rows] == rows, "in their order"
    assert set(some) < set(rows) != set(others)
    assert examples_of(_with_fewer(whole, 1000, 3), "train") == every
    assert all(examples_of(fewer, split) == examples_of(whole, split) for split in ("dev", "test"))
    assert len({tuple(dataset.training_digests) for dataset in (whole, fewer, fewest, otherwise)}) == 4


def test_what_is_here_and_pinned_is_used_without_asking_dvc(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.workbench.subprocess.run", no_dvc)
    brought = bring(project, "toy", ("west",))
    dataset = brought.dataset
    assert (dataset.rows, dataset.slices, dataset.labels) == ({"train": 12, "dev": 4, "test": 4}, ("west",), ("a", "b"))
    assert dataset.md5 == locked_outputs(project / "dvc.lock")["prepared/toy"].md5
    assert brought.raw == project / "raw" / "toy"
    assert len(examples_of(dataset, "train")) == 12
    assert bring(project, "toy").dataset.rows["train"] == 24
    with pytest.raises(InputError, match="unknown slice 'wset'.*did you mean 'west'"):
        bring(project, "toy", ("wset",))
    with pytest.raises(InputError, match="unknown data set 'tyo'"):
        bring(project, "tyo")


def test_what_is_lost_comes_back_from_the_cache_without_running_anything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, lock = measure(project / "prepared/toy"), lock_of(project)
    lose(project, "raw/toy", "prepared/toy", "collected/made", "prepared/made")
    monkeypatch.setenv("COLLECT", "/nowhere")
    bring(project, "toy")
    bring(project, "made")
    assert measure(project / "prepared/toy") == before
    assert lock_of(project) == lock
    assert not list((project / ".recompress" / "data").glob("bench-*"))


def test_without_a_cache_the_stage_makes_the_same_bytes_again(project: Path) -> None:
    lock = lock_of(project)
    lose(project, "collected/made", "prepared/made", "prepared/toy", ".dvc/cache")
    bring(project, "made")
    bring(project, "toy")
    assert lock_of(project) == lock
    assert {row["name"]: row["state"] for row in status(project)} == {"toy": "ready", "words": "ready", "made": "ready"}


def test_a_stage_that_gives_other_bytes_is_changed_data_until_a_person_accepts_it(project: Path) -> None:
    lock, old = lock_of(project), locked_outputs(project / "dvc.lock")
    lose(project, "collected/made", "prepared/made", ".dvc/cache")
    (project / "word").write_text("second")
    with pytest.raises(DataRefused, match=r"data set 'made' changed: its stage gives collected/made as [0-9a-f]{12}….*pins.*recompress data accept made"):
        bring(project, "made")
    assert lock_of(project) == lock
    assert not (project / "prepared" / "made").exists()
    changed = accept(project, "made")
    assert changed.keys() == {"collected/made", "prepared/made"}
    assert changed["prepared/made"]["old"] == old["prepared/made"].md5
    assert changed["prepared/made"]["new"] == measure(project / "prepared/made").md5
    assert lock_of(project) != lock
    assert read_split(bring(project, "made").prepared, "train")[0].words[0].startswith("second")
    assert {path: pin for path, pin in locked_outputs(project / "dvc.lock").items() if "made" not in path} == {
        path: pin for path, pin in old.items() if "made" not in path
    }


def test_a_stage_that_fails_says_why_in_one_line(project: Path) -> None:
    lock = lock_of(project)
    lose(project, "collected/made", "prepared/made", ".dvc/cache")
    (project / "word").write_text("fail")
    with pytest.raises(DataRefused, match="the collector found nothing") as refused:
        accept(project, "made")
    assert "\n" not in str(refused.value)
    assert lock_of(project) == lock


def test_data_that_was_changed_in_place_is_not_used_and_not_thrown_away(project: Path) -> None:
    for path in ("prepared/toy/train.parquet", "raw/toy/east/train.jsonl"):
        before = (project / path).read_bytes()
        (project / path).write_bytes(before + b"{}")
        with pytest.raises(DataRefused, match=r"was changed: it hashes to .* instead of .* bytes; move it away"):
            bring(project, "toy")
        assert (project / path).read_bytes() == before + b"{}"
        assert next(row for row in status(project) if row["name"] == "toy")["state"] == "refused"
        (project / path).write_bytes(before)
    bring(project, "toy")


def test_examples_are_checked_against_the_digest_each_time(project: Path) -> None:
    dataset = bring(project, "toy").dataset
    (project / "prepared/toy/preparation.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"has digest"):
        examples_of(dataset, "train")


def test_raw_data_that_is_pinned_anew_needs_its_prepared_form_accepted(project: Path) -> None:
    path = project / "raw/toy/east/train.jsonl"
    path.write_text(path.read_text() + '{"text": "one more", "label": "a"}\n')
    dvc(project, "add", "-q", "raw/toy")
    with pytest.raises(DataRefused, match=r"raw/toy\.dvc pins raw/toy as .*was prepared from .*recompress data accept toy"):
        bring(project, "toy")
    assert accept(project, "toy").keys() == {"prepared/toy"}
    assert bring(project, "toy").dataset.rows["train"] == 25


def test_raw_data_that_nobody_pinned_is_not_prepared(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text() + "  mine: {benchmark: text-classification, format: jsonl, source: raw/mine, files: '{slice}.jsonl'}\n")
    with pytest.raises(DataRefused, match=r"'mine' are not pinned: put the files into raw/mine, then `dvc add raw/mine`"):
        accept(project, "mine")
    (project / "raw/mine").mkdir()
    with pytest.raises(DataRefused, match=r"'mine' are not pinned: `dvc add raw/mine`, and `recompress data accept mine` again"):
        accept(project, "mine")


def test_a_corrupt_cache_is_not_believed(project: Path) -> None:
    lose(project, "prepared/toy")
    for path in (project / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"PAR1":
            path.chmod(0o644)
            path.write_bytes(b"PAR1 and something else")
    bring(project, "toy")
    assert is_here(project, pins_of(project, "toy", "raw/toy")[1])


def test_text_that_goes_with_a_data_set_comes_in_words_of_its_slices(project: Path) -> None:
    text, toy = bring(project, "words").dataset, bring(project, "toy", ("east",)).dataset
    rows = unlabelled_of(toy.model_copy(update={"unlabelled": (text.uri, text.sha256)}))
    assert [row.words for row in rows] == [("neno moja na lingine",), ("maneno mawili",)]
    tagged = toy.model_copy(update={"unlabelled": (text.uri, text.sha256), "benchmark": "token-classification"})
    assert unlabelled_of(tagged)[1].words == ("maneno", "mawili"), "and nothing that stands in the test split"
    assert unlabelled_of(toy) == []
    some = toy.model_copy(update={"unlabelled": (text.uri, text.sha256), "unlabelled_draw": (1, 0)})
    assert len(unlabelled_of(some)) == 1
    assert unlabelled_of(some)[0] in rows
    assert len({tuple(dataset.text_digests) for dataset in (toy, tagged, some, some.model_copy(update={"unlabelled_draw": (1, 1)}))}) == 4


def test_code_that_changed_shows_in_dvc_status_and_is_accepted_with_the_data(project: Path) -> None:
    """A stage depends on the version of its code: a project from before it did is as it was, and one that names other code says so."""
    params, stages = project / "params.yaml", project / "dvc.yaml"
    params.write_text('code: {prepare: "00ff00ff00ff00ff00ff00ff00ff00ff"}  # mine\n' + params.read_text())
    stages.write_text(stages.read_text().replace('params: ["datasets.${key}"]', 'params: ["datasets.${key}", code.prepare]'))
    before = measure(project / "prepared/toy")
    refused = run_dvc(project, project, "repro", "prepare@toy")
    assert refused.returncode != 0
    assert "code.prepare is 00ff00ff00ff" in refused.stderr
    assert accept(project, "toy") == {}, "the bytes are the same"
    assert params.read_text().startswith(f'code: {{prepare: "{version_of("prepare")}"}}  # mine\n')
    assert measure(project / "prepared/toy") == before
    assert "up to date" in run_dvc(project, project, "status", "prepare@toy").stdout
    assert locked_version(project / "dvc.lock", "prepare@toy", "prepare") == version_of("prepare")
    (project / "dvc.lock").write_bytes(lock_of(project).replace(version_of("prepare").encode(), b"00ff00ff00ff00ff00ff00ff00ff00ff"))
    [row] = [row for row in status(project) if row["name"] == "toy"]
    assert row["state"] == "ready"
    assert "prepared by other code (00ff00ff00ff…" in row["detail"]
    bring(project, "toy")
