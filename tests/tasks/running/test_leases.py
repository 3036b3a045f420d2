"""Who holds what while several work in one project: one at a time, the next one told for whom it waits, and a dead holder followed within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recompress.errors import StorageError
from recompress.ledger import Ledger
from tasks.running import leases
from tasks.running.leases import LEASE_S, is_gone, leased, me, take, told
from tasks.running.lock import recipe_held

HOLD = """
import sys, time
from pathlib import Path
from recompress.ledger import Ledger
from tasks.running.leases import leased
with leased(Ledger(Path(sys.argv[1])), "step a", print):
    print("held", flush=True)
    time.sleep(120)
"""


def test_the_second_waits_is_told_for_whom_and_gets_it(tmp_path: Path) -> None:
    ledger, lines, order = Ledger(tmp_path / "ledger.db"), list[str](), list[str]()

    def second() -> None:
        with leased(ledger, "step a", lines.append, "small/1 wanda") as lease:
            order.append(f"second, waited: {lease.waited}")

    with leased(ledger, "step a", lines.append) as first:
        waiting = threading.Thread(target=second)
        waiting.start()
        until = time.monotonic() + 20
        while not lines and time.monotonic() < until:
            time.sleep(0.02)
        order.append(f"first, waited: {first.waited}")
    waiting.join(20)
    assert order == ["first, waited: False", "second, waited: True"]
    assert lines == [f"small/1 wanda · waiting for {told(me())}, who is at it"]
    assert str(os.getpid()) in lines[0]


def test_a_holder_that_was_killed_on_this_machine_is_followed_long_before_its_lease_runs_out(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        ledger = Ledger(place)
        assert take(ledger, "step a") is None
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(30)
        assert ledger.leases.holder("step a") is not None, "by the database it is still held"
        lease = take(ledger, "step a")
        assert lease is not None
        assert (lease.number, ledger.leases.holder("step a")) == (2, me())
    finally:
        holder.kill()
        assert holder.stdout is not None
        holder.stdout.close()


def test_whoever_works_elsewhere_is_believed_until_the_lease_runs_out(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = me().rpartition("/")[2]
    assert is_gone(f"ada@host host:{ended.pid}/{here}")
    assert not is_gone(f"ada@host host:{ended.pid}/another-place")
    assert not is_gone(f"ada@host host:{os.getpid()}/{here}")
    assert not is_gone("ada@host host:12"), "the holder of a watch says no place"
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.leases.take("step a", f"ada@host host:{ended.pid}/another-place", 2.0) is not None
    assert take(ledger, "step a") is None
    time.sleep(2.1)
    assert take(ledger, "step a") is not None


def test_a_lease_is_kept_while_the_work_lasts_and_one_that_was_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 2.5)
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    ledger = Ledger(tmp_path / "ledger.db")
    with recipe_held(ledger, "toy") as mine:
        time.sleep(3.0)
        assert ledger.leases.take("run toy", "somebody host:1/there", 60) is None, "it beats"
        mine.check()
        ledger.leases.take_away("run toy", me())
        assert ledger.leases.take("run toy", "somebody host:1/there", 60) is not None
        assert not mine.is_mine()
        with pytest.raises(StorageError, match="the lease 'run toy' was lost to somebody"):
            mine.check()
    assert ledger.leases.holder("run toy") == "somebody host:1/there", "what was lost is not given back"
    assert LEASE_S == 60.0
