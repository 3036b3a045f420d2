"""A run that a watch makes: with the workers that watch.yaml names, through a database that is away for a while, until a signal comes; and the pin that moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from recompress.errors import StorageError
from recompress.ledger import Ledger
from recompress.recipe import read_recipe
from recompress.watch.decide import Due
from recompress.watch.settings import WatchSettings, read_watch_settings
from recompress.watch.sources import Sight, Source
from tasks.watch import carry_out
from tasks.watch.loop import watch_on
from tests.tasks.watch.hubs import NAME, a_hub, client_asks, first_commit
from tests.tasks.watch.small_project import make_small_project
from tests.tasks.watch.test_proposal import git


@pytest.mark.parametrize(
    ("written", "hold", "options"),
    [
        ("", False, []),
        ("", True, ["--propose"]),
        ("workers: 2\n", False, ["--workers", "2"]),
        ("workers: auto\n", False, ["--workers", "auto"]),
        ("workers: 2\npool: recompress\n", True, ["--workers", "2", "--pool", "recompress", "--propose"]),
        ("pool: recompress\n", False, ["--workers", "1", "--pool", "recompress"]),
    ],
    ids=["alone", "proposed", "workers", "auto", "pool", "one of a pool"],
)
def test_what_watch_yaml_says_of_workers_is_said_to_the_run(tmp_path: Path, written: str, hold: bool, options: list[str]) -> None:
    (tmp_path / "watch.yaml").write_text(written)
    assert carry_out._options(read_watch_settings(tmp_path) if written else WatchSettings(), hold) == options


def beaten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beat: Any, lines: list[str]) -> tuple[int, dict[str, Any]]:
    """A run of two seconds whose lease is renewed ten times a second."""
    monkeypatch.setattr(carry_out, "PAUSE_S", 0.05)
    usual = carry_out.subprocess.Popen
    short = [sys.executable, "-c", 'import time; time.sleep(1.5); print(\'{"summary": "done"}\')']
    monkeypatch.setattr(carry_out.subprocess, "Popen", lambda _, **named: usual(short, **named))
    return carry_out._run(tmp_path, tmp_path / "r.yaml", [], "k" * 64, beat, 0.1, lines.append)


def test_a_run_goes_on_while_the_database_of_its_lease_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[int] = []

    def beat() -> bool:
        beats.append(1)
        if len(beats) in (2, 3):
            raise StorageError("the ledger does not answer")
        return True

    lines: list[str] = []
    assert beaten(monkeypatch, tmp_path, beat, lines) == (0, {"summary": "done"})
    assert len(beats) > 3
    assert lines[1:] == ["the lease could not be renewed, and is tried again: the ledger does not answer"]


def test_that_a_run_begins_is_said_with_the_place_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    beaten(monkeypatch, tmp_path, lambda: bool(lines), lines)  # the lease is lost where nothing was said before
    log = tmp_path / ".recompress" / "watch" / f"{'k' * 16}.log"
    assert lines == [f"r: the run begins; what it says stands in {log}"]
    assert log.is_file()


def test_a_run_whose_lease_another_watcher_has_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = beaten(monkeypatch, tmp_path, lambda: False, [])
    assert (code, said) == (1, {"error": "the lease was lost to another watcher"})


STUBBORN = "import signal, time\nfor number in (2, 15): signal.signal(number, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(300)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_that_a_watch_makes_and_the_next_look_takes_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.delenv("RECOMPRESS_LEDGER", raising=False)
    monkeypatch.setattr(carry_out, "PAUSE_S", 0.05)
    monkeypatch.setattr(carry_out, "STOP_S", 0.1)
    usual, runs = carry_out.subprocess.Popen, list[Any]()

    def begin(command: list[str], **named: Any) -> Any:
        if command[0] != sys.executable:  # git
            return usual(command, **named)
        runs.append(usual([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, **{key: value for key, value in named.items() if key != "stdout"}))
        with runs[-1].stdout as lines:
            assert lines.readline()
        os.kill(os.getpid(), number)
        return runs[-1]

    hub, said = first_commit(), list[str]()
    root = make_small_project(tmp_path / "project", model=NAME, revision=hub.head.id, sha256="a" * 64)
    with a_hub(hub) as address, client_asks(address, monkeypatch.setattr):
        monkeypatch.setattr(carry_out.subprocess, "Popen", begin)
        for _ in range(2):
            assert watch_on(root, [], said.append, lambda _: None, pause=lambda _: 0.01) == 128 + number
    assert len(runs) == 2, "nobody waited for a lease"
    assert not any(psutil.pid_exists(run.pid) for run in runs)
    ledger = Ledger(root / "ledger" / "ledger.db")
    assert [len(ledger.entries(kind)) for kind in ("watch-run", "watch-run-ended")] == [1, 0]
    assert any("taking up a run that was cut off" in line for line in said)


BASE = "base: {{model: some/encoder, revision: {revision}, sha256: {sha256}}}   # the pin"
OLD, NEW = {"revision": "a" * 40, "sha256": "b" * 64}, {"revision": "c" * 40, "sha256": "d" * 64}


def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, edit: Callable[[Path], None]) -> tuple[Path, carry_out.Carried, list[str]]:
    """A run that goes well, while somebody edits the recipe and commits that."""
    root = make_small_project(tmp_path / "project", model="some/encoder", **OLD)
    (root / ".gitignore").write_text("/.recompress\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    recipe = root / "recipes" / "toy.yaml"

    def run(*_: Any) -> tuple[int, dict[str, Any]]:
        edit(recipe)
        git(root, "commit", "-q", "--allow-empty", "-a", "-m", "ada's")
        return 0, {"summary": "done", "promotion": {"model": "toy"}, "done": ["promotion"]}

    monkeypatch.setattr(carry_out, "_run", run)
    moved = Sight(Source("base", "hub model", "some/encoder", OLD["revision"]), "1", "0", NEW["revision"], pins=NEW)
    due, said = Due("toy", {"recipe": "x"}, (moved,)), list[str]()
    return root, carry_out.carry_out(root, read_recipe(recipe, root), due, mode, WatchSettings(), lambda: True, 9.0, said.append), said


def changed(text: str, *edits: tuple[str, str]) -> str:
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def rewritten(*edits: tuple[str, str]) -> Callable[[Path], None]:
    return lambda recipe: recipe.write_bytes(changed(recipe.read_text(), *edits).encode())


HERS = (("epochs: 1", "epochs: 7"), ("# head comment\n", "# ada: seven, see mail\r\n"), ("# the pin", "# the pin, hers"))


@pytest.mark.parametrize("mode", ["auto", "propose"])
def test_the_pin_moves_in_the_recipe_as_it_stands_then_and_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    root, ended, _ = carried(tmp_path, monkeypatch, mode, rewritten(*HERS))
    assert (ended.outcome, ended.moved_pins) == ("promoted" if mode == "auto" else "proposed", mode == "auto")
    where = "HEAD" if mode == "auto" else ended.branch
    hers = git(root, "show", "HEAD^:recipes/toy.yaml" if mode == "auto" else "HEAD:recipes/toy.yaml")
    assert "epochs: 7" in hers
    assert git(root, "show", f"{where}:recipes/toy.yaml") == changed(hers, (BASE.format(**OLD), BASE.format(**NEW)))
    assert git(root, "diff", "--numstat", f"{where}^", where, "--", "recipes/toy.yaml").split()[:2] == ["1", "1"]
    if mode == "auto":
        assert b"see mail\r\n" in (root / "recipes" / "toy.yaml").read_bytes()


@pytest.mark.parametrize("mode", ["auto", "propose"])
@pytest.mark.parametrize(
    "edits", [[("a" * 40, "e" * 40)], [("b" * 64, "e" * 64)], [("model: some/encoder", "model: some/other")], [("base: {", "base: ]{")]], ids=str
)
def test_a_pin_that_somebody_wrote_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, edits: list[tuple[str, str]]) -> None:
    root, ended, said = carried(tmp_path, monkeypatch, mode, rewritten(*edits))
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "log", "-1", "--format=%s") == "ada's"
    assert git(root, "branch", "--list", "recompress/*") == ""
    assert (ended.outcome, ended.exit_code, ended.moved_pins) == (("promoted", 6, False) if mode == "auto" else ("failed", 1, False))
    assert [line for line in said if "pin" in line and "\n" not in line]


def test_the_same_pin_by_hand_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, ended, _ = carried(tmp_path, monkeypatch, "auto", rewritten(("a" * 40, "c" * 40), ("b" * 64, "d" * 64)))
    assert (ended.exit_code, ended.moved_pins, git(root, "log", "-1", "--format=%s")) == (0, True, "ada's")
