"""Leases: one holder at a time, passed on when it stops beating, and fenced by numbers; in both databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from recompress.ledger import Ledger

Where = Path | str

HOLD = """
import sys, time
from pathlib import Path
from recompress.ledger import Ledger
where = sys.argv[1]
leases = Ledger(where if "://" in where else Path(where)).leases
lease = leases.take("watch toy", "the first", 1.5)
print("held", flush=True)
while leases.beat(lease, 1.5):
    time.sleep(0.3)
"""


def test_a_lease_has_one_holder_and_passes_on_when_it_runs_out(where: Where) -> None:
    leases = Ledger(where).leases
    first = leases.take("watch toy", "ada", 2.0)
    assert first is not None
    assert (leases.take("watch toy", "ben", 5), leases.holder("watch toy")) == (None, "ada")
    assert leases.take("watch other", "ben", 5) is not None
    time.sleep(2.1)
    assert leases.holder("watch toy") is None
    second = leases.take("watch toy", "ben", 5)
    assert second is not None
    assert second.number > first.number
    assert not leases.beat(first, 5), "who comes back late holds nothing"
    leases.give_back(first)
    assert leases.holder("watch toy") == "ben"
    leases.give_back(second)
    third = leases.take("watch toy", "cy", 5)
    assert third is not None
    assert third.number > second.number


def test_one_of_many_gets_it(where: Where) -> None:
    Ledger(where)
    got, together = list[str](), threading.Barrier(12)

    def one(name: str) -> None:
        leases = Ledger(where, timeout=30).leases
        together.wait()
        if leases.take("watch toy", name, 60) is not None:
            got.append(name)

    threads = [threading.Thread(target=one, args=(str(i),)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_a_killed_holder_passes_it_on_and_a_living_one_does_not(where: Where) -> None:
    leases = Ledger(where).leases
    with subprocess.Popen([sys.executable, "-c", HOLD, str(where)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        time.sleep(2.0)
        assert leases.take("watch toy", "the second", 5) is None, "it beats"
        os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 20
    while (taken := leases.take("watch toy", "the second", 5)) is None and time.monotonic() < until:
        time.sleep(0.1)
    assert taken is not None


def test_pauses_double_up_to_a_limit_are_never_shorter_than_asked_for_and_end(where: Where) -> None:
    leases = Ledger(where).leases
    assert leases.paused("look at x") == 0
    assert [leases.pause("look at x", 10, 60) for _ in range(5)] == [10, 20, 40, 60, 60]
    assert 50 < leases.paused("look at x") <= 60
    assert leases.pause("look at x", 10, 60, at_least=500) == 500
    leases.resume("look at x")
    assert (leases.paused("look at x"), leases.pause("look at x", 10, 60)) == (0, 10)


def test_leases_are_no_records(where: Where) -> None:
    ledger = Ledger(where)
    ledger.leases.take("watch toy", "ada", 5)
    assert (ledger.head().sequence, ledger.missing_guards()) == (0, [])
