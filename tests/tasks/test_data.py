"""Data brought as pinned or refused: with a real DVC, on a project of a few made-up sentences."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recompress.data.splits import read_split
from recompress.errors import DataRefused, InputError, IntegrityError
from tasks.data import _with_fewer, accept, adopt, bring, examples_of, status, unlabelled_of
from tasks.pins import is_here, locked_inputs, locked_outputs, measure, pins_of, tracked
from tasks.ways import other_versions
from tasks.workbench import bench, run_dvc

PARAMS = """
datasets:
  toy: {benchmark: text-classification, format: jsonl, source: raw/toy, files: "{slice}/{split}.jsonl"}
  words: {benchmark: language-modelling, format: lines, source: raw/words, files: "{slice}.txt"}
  made: {benchmark: text-classification, format: jsonl, source: collected/made, files: "{split}.jsonl", split_off: {test: {share: 0.2}, dev: {share: 0.1}}}
"""
DVC = """
stages:
  collect_made:
    cmd: python "$COLLECT"
    deps: [params.yaml]
    outs: [collected/made]
  prepare:
    foreach: ${datasets}
    do:
      cmd: python -m recompress.data.prepare ${key}
      deps: ["${item.source}"]
      params: ["datasets.${key}"]
      outs: ["prepared/${key}"]
"""
COLLECT = """
import json, os, pathlib, time
folder = pathlib.Path("collected/made")
folder.mkdir(parents=True)
word = pathlib.Path(os.environ["MADE_FROM"]).read_text().strip()
if word == "wait":
    pathlib.Path(os.environ["MADE_FROM"]).with_suffix(".waiting").touch()
    time.sleep(60)
if word == "fail":
    raise SystemExit("the collector found nothing")
rows = [{"text": f"{word} {i}", "label": "ab"[i % 2]} for i in range(40)]
(folder / "train.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
"""


def dvc(folder: Path, *arguments: str) -> None:
    done = run_dvc(folder, folder, *arguments)
    assert done.returncode == 0, done.stderr


def put_raw(folder: Path) -> None:
    for slice_ in ("east", "west"):
        for split, count in (("train", 12), ("dev", 4), ("test", 4)):
            path = folder / "toy" / slice_ / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f'{{"text": "{split} {slice_} {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(count)))
    (folder / "words").mkdir()
    (folder / "words" / "east.txt").write_text("neno moja na lingine\nTest, EAST 3!\nmaneno mawili\n")


def make(root: Path) -> Path:
    """A project whose raw data is tracked and adopted, and whose prepared data is pinned."""
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for name, text in (("params.yaml", PARAMS), ("dvc.yaml", DVC), ("collect.py", COLLECT), ("word", "first")):
        (root / name).write_text(text.lstrip())
    dvc(root, "init", "-q")
    put_raw(root / "raw")
    dvc(root, "add", "-q", "raw/toy", "raw/words")
    return root


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests work on copies."""
    root = make(tmp_path_factory.mktemp("pinned") / "project")
    with pytest.MonkeyPatch.context() as patch:
        collector(patch, root)
        for name in ("toy", "words", "made"):
            assert accept(root, name)
    return root


@pytest.fixture
def project(pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(pinned, root)
    monkeypatch.delenv("RECOMPRESS_DATA_MIRROR", raising=False)
    collector(monkeypatch, root)
    return root


def collector(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """What the collecting stage reads: it stands for packages, which change without any file of the project changing."""
    monkeypatch.setenv("COLLECT", str(root / "collect.py"))
    monkeypatch.setenv("MADE_FROM", str(root / "word"))


def no_dvc(*_: Any, **__: Any) -> Any:
    raise AssertionError("DVC was asked although everything was here")


def lose(root: Path, *paths: str) -> None:
    for path in paths:
        shutil.rmtree(root / path)


def lock_of(root: Path) -> bytes:
    return (root / "dvc.lock").read_bytes()


def test_the_md5_is_the_one_that_dvc_gives(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    folder = tmp_path / "data"
    for name, text in (("b/x.txt", "leo"), ("b.txt", ""), ("a/é ü.txt", "ọjọ́"), ("b-c/z", "\r\n\x00"), ("Z", "z")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    dvc(tmp_path, "add", "-q", "data")
    pin = tracked(tmp_path)["data"]
    found = measure(folder)
    assert (pin.md5, pin.size, pin.files) == (found.md5, found.size, found.files)


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
    monkeypatch.setattr("tasks.workbench.subprocess.run", no_dvc)
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
    assert len({tuple(one.text_digests) for one in (toy, tagged, some, some.model_copy(update={"unlabelled_draw": (1, 1)}))}) == 4


# ways to raw data ---------------------------------------------------------------------------------------------------------------------------------------


def test_a_copy_is_adopted_if_and_only_if_it_hashes_to_the_pin(project: Path, tmp_path: Path) -> None:
    lose(project, "raw/toy", "prepared/toy", ".dvc/cache")
    with pytest.raises(DataRefused, match=r"raw data of 'toy' is not here \(no DVC remote.*recompress data adopt DIR"):
        bring(project, "toy")
    put_raw(tmp_path / "copy")
    lock = lock_of(project)
    extra = tmp_path / "copy" / "toy" / "README"
    extra.write_text("not one of the files")
    with pytest.raises(DataRefused, match=r"nearest is raw/toy: it hashes to .*7 instead of 6 files"):
        adopt(project, tmp_path / "copy" / "toy")
    extra.unlink()
    victim = tmp_path / "copy" / "toy" / "east" / "dev.jsonl"
    whole = victim.read_text()
    victim.write_text(whole.replace("dev east 0", "dev east O"))
    with pytest.raises(DataRefused, match="as many files .* but not the same"):
        adopt(project, tmp_path / "copy" / "toy")
    assert not (project / "raw" / "toy").exists()
    victim.write_text(whole)
    assert adopt(project, tmp_path / "copy" / "toy") == "toy"
    assert adopt(project, tmp_path / "copy" / "toy") == "toy"
    assert (tmp_path / "copy" / "toy").is_dir()
    bring(project, "toy")
    assert lock_of(project) == lock
    lose(project, "raw/toy")
    bring(project, "toy")
    assert is_here(project, tracked(project)["raw/toy"]), "the cache took it"


def test_a_folder_that_is_missing_empty_or_full_of_links_is_not_adopted(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params.yaml is a file; data adopt takes the folder"):
        adopt(project, project / "params.yaml")
    with pytest.raises(InputError, match="is not there"):
        adopt(project, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataRefused, match="is empty"):
        adopt(project, tmp_path / "empty")
    (tmp_path / "empty" / "link").symlink_to("/etc/hostname")
    with pytest.raises(DataRefused, match="is a link"):
        adopt(project, tmp_path / "empty")


def test_the_local_mirror_is_used_when_it_hashes_to_the_pin(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(project, "raw/toy", "prepared/toy", ".dvc/cache")
    put_raw(tmp_path / "mirror")
    monkeypatch.setenv("RECOMPRESS_DATA_MIRROR", str(tmp_path / "mirror"))
    victim = tmp_path / "mirror" / "toy" / "west" / "test.jsonl"
    whole = victim.read_text()
    victim.write_text(whole + "\n")
    with pytest.raises(DataRefused, match=r"mirror/toy \(RECOMPRESS_DATA_MIRROR\) is not the pinned 'toy'"):
        bring(project, "toy")
    assert not (project / "raw" / "toy").exists()
    victim.write_text(whole)
    bring(project, "toy")


def test_data_is_fetched_from_the_repository_that_it_is_imported_from(project: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    put_raw(origin / "published")
    for command in (("init", "-q"), ("add", "."), ("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "data")):
        subprocess.run(["git", *command], cwd=origin, check=True)
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=origin, check=True, capture_output=True, text=True).stdout.strip()
    pin = tracked(project)["raw/toy"]
    (project / "raw" / "toy.dvc").write_text(
        "frozen: true\ndeps:\n- path: published/toy\n  repo:\n"
        f"    url: {origin}\n    rev: {revision}\n    rev_lock: {revision}\n"
        f"outs:\n- md5: {pin.md5}\n  size: {pin.size}\n  nfiles: {pin.files}\n  hash: md5\n  path: toy\n"
    )
    lose(project, "raw/toy", ".dvc/cache")
    bring(project, "toy")
    assert is_here(project, tracked(project)["raw/toy"])


def test_without_a_network_one_line_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer = project / "raw" / "toy.dvc"
    deps = "frozen: true\ndeps:\n- path: toy\n  repo:\n    url: https://git.example.org/toy\n    rev_lock: 0123456789abcdef0123456789abcdef01234567\n"
    pointer.write_text(deps + pointer.read_text())
    lose(project, "raw/toy", ".dvc/cache")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("unreachable")

    monkeypatch.setattr("tasks.ways.socket.create_connection", refuse)
    with pytest.raises(
        DataRefused,
        match=r"no network: git\.example\.org does not answer\); get a copy .* by itself\. It is: https://git\.example\.org/toy at 0123456789ab, toy",
    ):
        bring(project, "toy")


def test_prepared_data_comes_from_a_remote_too(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc(project, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    dvc(project, "push", "-q")
    lose(project, "collected/made", "prepared/made", ".dvc/cache")
    monkeypatch.setenv("COLLECT", "/nowhere")
    bring(project, "made")
    assert (project / "prepared" / "made" / "test.parquet").is_file()


# kill and race -------------------------------------------------------------------------------------------------------------------------------------------


def start(root: Path, code: str) -> subprocess.Popen[str]:
    program = f"from pathlib import Path\nfrom tasks.data import accept, adopt, bring\nroot = Path({str(root)!r})\n{code}"
    return subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parent.parent.parent, text=True, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("verb", ["bring", "accept"])
def test_a_kill_in_the_middle_leaves_the_pins_as_they_were(project: Path, verb: str) -> None:
    lock = lock_of(project)
    lose(project, "collected/made", "prepared/made", ".dvc/cache")
    (project / "word").write_text("wait")
    process = start(project, f"{verb}(root, 'made')")
    deadline = time.monotonic() + 60
    while not (project / "word.waiting").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert lock_of(project) == lock
    assert not (project / "prepared" / "made").exists()
    (project / "word").write_text("first")
    bring(project, "made")
    assert lock_of(project) == lock
    assert not list((project / ".recompress" / "data").glob("bench-*"))


def test_two_at_once_bring_the_same(project: Path) -> None:
    lose(project, "prepared/toy", "prepared/words", ".dvc/cache")
    lock = lock_of(project)
    processes = [start(project, f"bring(root, '{name}')") for name in ("toy", "words", "toy")]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert lock_of(project) == lock
    bring(project, "toy")
    bring(project, "words")


def test_a_dvc_that_is_busy_is_waited_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([1, 1, 0])

    def answer(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        code = next(answers)
        return subprocess.CompletedProcess([], code, "", "ERROR: Unable to acquire lock. Most likely another DVC process is running" if code else "")

    monkeypatch.setattr("tasks.workbench.subprocess.run", answer)
    assert run_dvc(project, project, "status").returncode == 0
    monkeypatch.setattr("tasks.workbench.PATIENCE_S", 0.0)
    answers = iter([1, 0])
    assert run_dvc(project, project, "status").returncode == 1


def test_the_bench_is_cleared_whatever_happens(project: Path) -> None:
    left_over = project / ".recompress" / "data" / "bench-0123"
    left_over.mkdir(parents=True)
    made: list[Path] = []

    def work_and_stop() -> None:
        with bench(project) as work:
            made.append(work.folder)
            assert work.folder.is_dir()
            assert not left_over.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_and_stop()
    assert not made[0].exists()


# what git pins in this project ------------------------------------------------------------------------------------------------------------------------------


def test_the_pins_of_this_project(root: Path) -> None:
    pins = tracked(root)
    named = pins["data"]
    assert (named.md5, named.files, named.size) == ("efc5ece5a81b90d2fe482ba8c5edda33.dir", 60, 31_357_289)
    assert named.url == "https://github.com/masakhane-io/masakhane-ner"
    assert named.origin.startswith("https://github.com/masakhane-io/masakhane-ner at ba5843cd08aa")
    assert pins.keys() == {"data", "raw/afrisenti", "raw/lafand", "raw/wikitext2"}
    for row in status(root):
        assert "not pinned" not in row["detail"], row


def test_dvc_lock_was_made_with_the_code_that_is_here(root: Path) -> None:
    """Else ``recompress data accept NAME`` has to be run again for each data set."""
    for name in ("pydocs", "masakhaner2", "afrisenti", "lafand", "wikitext2"):
        for path, md5 in locked_inputs(root / "dvc.lock", f"prepare@{name}").items():
            if path.endswith(".py"):
                assert measure_file(root / path) == md5, f"{path} was changed since {name} was prepared"


def measure_file(path: Path) -> str:
    import hashlib

    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_no_stage_writes_what_a_task_writes(root: Path) -> None:
    written = set(locked_outputs(root / "dvc.lock"))
    assert all(path.startswith(("collected/", "prepared/")) for path in written)
    assert not {path for path in written for own in ("reports", "mlflow", ".recompress", "ledger") if path.startswith(own)}


def test_other_versions_than_the_pinned_are_named(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("# exact\npytest==0.0.1\nnot-installed-anywhere==1.0\n")
    assert "pytest" in other_versions(tmp_path)
    assert "not-installed" not in other_versions(tmp_path)
    assert other_versions(tmp_path / "nowhere") == ""


@pytest.mark.slow
def test_pydocs_is_what_these_packages_say(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart's data set follows from the pinned versions alone: made here again, it has the pinned bytes."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore"):
        shutil.copyfile(root / name, project / name)
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    monkeypatch.delenv("RECOMPRESS_DATA_MIRROR", raising=False)
    dataset = bring(project, "pydocs").dataset
    assert len(dataset.labels) == 9
    assert 1500 <= dataset.rows["test"] <= 2000


@pytest.mark.slow
def test_real_data_is_adopted_and_prepared_to_its_pins(root: Path, tmp_path: Path, mirror: Path) -> None:
    project = tmp_path / "project"
    (project / "raw").mkdir(parents=True)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", "data.dvc", "raw/afrisenti.dvc", "raw/lafand.dvc", "raw/wikitext2.dvc"):
        shutil.copyfile(root / name, project / name)
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    for name in ("masakhaner2", "afrisenti", "lafand", "wikitext2"):
        assert adopt(project, mirror / name) == name
        assert bring(project, name).dataset.rows["train"] > 1000
