"""The memory of finished steps: found again when whole, done again when anything about it was altered, never believed when it was cut off."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recompress.errors import StorageError
from recompress.integrity.file_lock import locked
from tasks.running.leases import me, told
from tasks.running.lock import recipe_held
from tasks.running.recompression import Recompression
from tasks.tracking.track import Store
from tests.children import Child


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests here, because making one takes seconds; each test has keys of its own."""
    folder = tmp_path_factory.mktemp("home")
    assert Store(folder).experiment
    return folder


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return hashlib.sha256(request.node.name.encode()).hexdigest()


class Work:
    """A step that counts how often it was done."""

    def __init__(self, on_done: Callable[[], None] = lambda: None) -> None:
        self.times = 0
        self.on_done = on_done

    def __call__(self, folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
        self.times += 1
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "weights").write_bytes(b"weights")
        (folder / "predictions").write_bytes(b"predictions")
        self.on_done()
        return {"answer": 42}, {"model": folder / "model", "predictions": folder / "predictions"}


def fresh(root: Path) -> Recompression:
    """A recompression as a new process would have it, with the least of a plan."""
    run = Recompression(
        root, SimpleNamespace(recipe=SimpleNamespace(name="r", register_=SimpleNamespace(model="m")), sha256="0" * 64, policy=SimpleNamespace(sha256="1" * 64))
    )  # type: ignore[arg-type]
    run._log_dials = lambda: None  # type: ignore[method-assign]
    return run


def test_a_step_is_done_once_and_found_again_by_another_process(home: Path, key: str) -> None:
    work = Work()
    first = fresh(home).step("a", key=key, run="baseline", do=work)
    second = fresh(home)
    assert second.step("a", key=key, run="baseline", do=work) == first
    assert first["answer"] == 42
    assert (work.times, second.done, second.reused) == (1, [], ["a"])
    assert not second._runs, "where all is found again, no run is opened"
    assert fresh(home).step("a", key=key[::-1], run="baseline", do=work)["answer"] == 42
    assert work.times == 2


@pytest.mark.parametrize("what", ["model/weights", "predictions", "step.json"])
@pytest.mark.parametrize("how", ["alter", "delete"])
def test_an_altered_file_is_noticed_and_the_step_runs_again(home: Path, key: str, what: str, how: str) -> None:
    work = Work()
    fresh(home).step("a", key=key, run="baseline", do=work)
    [file] = (path for path in (home / "mlflow" / "store" / "artifacts").rglob(f"a-{key[:8]}/**/{what.rsplit('/', 1)[-1]}") if path.is_file())
    if how == "alter":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    else:
        file.unlink()
    heard: list[str] = []
    assert fresh(home).memory.recall(key, "a", heard.append) is None
    assert heard
    fresh(home).step("a", key=key, run="baseline", do=work)
    fresh(home).step("a", key=key, run="baseline", do=work)
    assert work.times == 2


def test_a_step_killed_at_any_point_leaves_nothing_that_is_half_believed(home: Path) -> None:
    """It is done again until the ledger knows its result, and from then on it is found, whether its tag was written or not."""
    calls = ("log_artifacts", "log_artifact", "append", "set_tag")
    for call in calls:
        key = hashlib.sha256(call.encode()).hexdigest()
        child = Child(target=_die_at, args=(home, call, key))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL, call
        work = Work()
        run = fresh(home)
        run.step("a", key=key, run="baseline", do=work)
        assert work.times == (0 if call == "set_tag" else 1), call
        run.run_of("")  # where all is found again none is opened, and none is closed
        run.finish("FINISHED")
        dead = Store(home).client.search_runs([Store(home).experiment], f"tags.`recompress.pid` = '{child.pid}'")
        assert {run.info.status for run in dead} == {"KILLED"}, "no killed run looks as if it still ran"


def _die_at(root: Path, call: str, key: str) -> None:
    run = fresh(root)
    run.run_of("baseline")
    setattr(run.ledger if call == "append" else run.store.client, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    run.step("a", key=key, run="baseline", do=Work())


def test_what_a_tag_names_is_on_the_disk_before_the_tag(home: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = fresh(home), list[Path]()
    run.run_of("baseline")
    usual, tag = os.fsync, run.store.client.set_tag
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(Path(f"/proc/self/fd/{number}").readlink()) or usual(number))

    def tag_what_is_there(*arguments: Any) -> None:
        [place] = (home / "mlflow" / "store" / "artifacts").rglob(f"a-{key[:8]}")
        assert {place, *place.rglob("*"), place.parent, home / "mlflow" / "store" / "artifacts", home / "mlflow" / "store"} <= set(seen)
        tag(*arguments)

    monkeypatch.setattr(run.store.client, "set_tag", tag_what_is_there)
    run.step("a", key=key, run="baseline", do=Work())
    assert fresh(home).memory.recall(key, "a", lambda _: None) is not None


def test_a_step_that_another_run_is_doing_is_waited_for_and_found(home: Path, key: str) -> None:
    said, work = list[str](), Work()
    second, found = fresh(home), list[Any]()
    second.say = said.append  # type: ignore[method-assign]
    waiting = threading.Thread(target=lambda: found.append(second.step("a", key=key, run="baseline", do=work)))

    def meanwhile() -> None:
        waiting.start()
        until = time.monotonic() + 30
        while not said and time.monotonic() < until:
            time.sleep(0.02)

    first = fresh(home).step("a", key=key, run="baseline", do=Work(meanwhile))
    waiting.join(30)
    assert (found, work.times, second.done, second.reused) == ([first], 0, [], ["a"])
    assert said == [f"a · waiting for {told(me())}, who is at it"]


def test_who_stood_still_for_too_long_keeps_nothing_and_finds_what_the_other_did(home: Path, key: str) -> None:
    """A machine that slept, for one: both go on when it wakes, and never in one folder at the same time."""
    first, second, said, order = fresh(home), fresh(home), list[str](), list[str]()
    first.say, second.say = said.append, order.append  # type: ignore[method-assign]
    others: list[Any] = []
    other = threading.Thread(target=lambda: others.append(second.step("a", key=key, run="baseline", do=Work(lambda: order.append("the other works")))))

    def stand_still() -> None:
        first.ledger.leases.take_away(f"step {key}", me())
        other.start()
        until = time.monotonic() + 30
        while not order and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
        order.append("the first is done")

    work = Work(stand_still)
    found = first.step("a", key=key, run="baseline", do=work)
    other.join(30)
    assert others == [found]
    assert order == ["a", "the first is done", "the other works"]
    assert (work.times, first.done, first.reused, second.done) == (1, [], ["a"], ["a"])
    assert said[1] == "a: this process stood still for so long that somebody else does it"
    assert len(first.ledger.entries("step-kept", key=key)) == 1


def test_a_run_that_lost_its_recipe_does_no_more_steps(home: Path, key: str) -> None:
    run, work = fresh(home), Work()
    with recipe_held(run.ledger, "r") as run.recipe_lease:
        run.ledger.leases.take_away("run r", me())
        assert run.ledger.leases.take("run r", "somebody host:1/there", 0.1) is not None
        assert not run.recipe_lease.is_mine()
        with pytest.raises(StorageError, match="the lease 'run r' was lost"):
            run.step("a", key=key, run="baseline", do=work)
    assert work.times == 0


def test_a_step_whose_files_were_cut_when_the_power_went_is_done_again_each_time(home: Path, key: str) -> None:
    """Killed right after its tag was written; then what was written last is cut at ten random lengths."""
    child = Child(target=_die_after, args=(home, key))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert fresh(home).memory.recall(key, "a", lambda _: None) is not None, "what was tagged was whole"
    draw = random.Random(10)
    for _ in range(10):
        files = [path for path in (home / "mlflow" / "store" / "artifacts").rglob(f"a-{key[:8]}/**/*") if path.is_file()]
        file = draw.choice(sorted(files, key=lambda path: path.stat().st_mtime_ns)[-3:])
        file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])
        heard: list[str] = []
        run, work = fresh(home), Work()
        run.say = heard.append  # type: ignore[method-assign]
        assert run.step("a", key=key, run="baseline", do=work)["answer"] == 42
        assert (work.times, "the step runs again" in heard[0]) == (1, True)


def _die_after(root: Path, key: str) -> None:
    run = fresh(root)
    run.run_of("baseline")
    tag = run.store.client.set_tag
    run.store.client.set_tag = lambda *arguments: (tag(*arguments), os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[method-assign]
    run.step("a", key=key, run="baseline", do=Work())


@pytest.mark.long
def test_four_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_open, args=(tmp_path,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * 4


def _open(root: Path) -> None:
    assert Store(root).experiment


def test_a_store_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot be used: .*allow writing there") as caught:
        _ = Store(tmp_path).client
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("errno", "word"), [(28, "no space left"), (30, "read-only"), (13, "permission denied")])
def test_a_full_or_read_only_disk_is_one_clear_line(home: Path, key: str, errno: int, word: str) -> None:
    def full() -> None:
        raise OSError(errno, "no", "/somewhere/model.safetensors")

    run = fresh(home)
    with pytest.raises(StorageError, match=f"a: {word} at /somewhere/model.safetensors"):
        run.step("a", key=key, run="baseline", do=Work(full))
    assert fresh(home).memory.recall(key, "a", lambda _: None) is None


def test_a_second_recompression_in_one_project_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(StorageError, match="another one"), locked(tmp_path / "lock", busy="another one"):
        pass
