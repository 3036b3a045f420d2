"""Ways to raw data: adopted, from a mirror, a repository or a remote; killed in the middle, two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recompress.errors import DataRefused, InputError
from tasks.data.bring import adopt, bring
from tasks.data.pins import is_here, tracked
from tasks.data.workbench import bench, run_dvc
from tests.tasks.data.projects import dvc, lock_of, lose, put_raw


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

    monkeypatch.setattr("tasks.data.fetch.socket.create_connection", refuse)
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
    program = f"from pathlib import Path\nfrom tasks.data.bring import accept, adopt, bring\nroot = Path({str(root)!r})\n{code}"
    return subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3], text=True, stderr=subprocess.PIPE, start_new_session=True)


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
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert lock_of(project) == lock
    bring(project, "toy")
    bring(project, "words")


def test_a_dvc_that_is_busy_is_waited_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([1, 1, 0])

    def answer(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        code = next(answers)
        return subprocess.CompletedProcess([], code, "", "ERROR: Unable to acquire lock. Most likely another DVC process is running" if code else "")

    monkeypatch.setattr("tasks.data.workbench.subprocess.run", answer)
    assert run_dvc(project, project, "status").returncode == 0
    monkeypatch.setattr("tasks.data.workbench.PATIENCE_S", 0.0)
    answers = iter([1, 0])
    assert run_dvc(project, project, "status").returncode == 1


def test_the_bench_is_cleared_whatever_happens(project: Path) -> None:
    left_over = project / ".recompress" / "data" / "bench-0123"
    left_over.mkdir(parents=True)
    folders: list[Path] = []

    def work_and_stop() -> None:
        with bench(project) as work:
            folders.append(work.folder)
            assert work.folder.is_dir()
            assert not left_over.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_and_stop()
    assert not folders[0].exists()
