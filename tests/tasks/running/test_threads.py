"""A step computes with as many threads wherever it is done, and workers with no more than there are cores."""

from __future__ import annotations

import pytest
import torch
from threadpoolctl import threadpool_info

from recompress.errors import InputError
from tasks.running import threads
from tasks.running.threads import check_workers, threads_held, threads_of_a_step, workers_for


def blas() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_has_its_own_number_of_threads_whatever_the_process_had(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, before = torch.get_num_threads(), blas()
    monkeypatch.setenv("RECOMPRESS_THREADS", str(count))
    try:
        for others in (1, 3):
            torch.set_num_threads(others)
            with threads_held():
                assert (torch.get_num_threads(), blas() or {count}) == (count, {count})
            assert (torch.get_num_threads(), blas()) == (others, before)
    finally:
        torch.set_num_threads(usual)


def test_what_is_no_number_of_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads_of_a_step() == 1
    for text in ("0", "two", "-1", ""):
        monkeypatch.setenv("RECOMPRESS_THREADS", text)
        with pytest.raises(InputError, match="^RECOMPRESS_THREADS is a number of threads, at least 1, got"):
            threads_of_a_step()


def test_auto_is_as_many_as_there_are_cores_and_variants_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert [workers_for("auto", variants) for variants in (1, 3, 8, 20)] == [1, 3, 8, 8]
    monkeypatch.setenv("RECOMPRESS_THREADS", "3")
    assert [workers_for("auto", variants) for variants in (1, 3, 20)] == [1, 2, 2]
    monkeypatch.setenv("RECOMPRESS_THREADS", "9")
    assert workers_for("auto", 4) == 1
    assert workers_for(7, 2) == workers_for(7, 2, "pool") == 7, "who says a number gets it"
    with pytest.raises(InputError, match="^--workers auto counts the cores of this machine, and pool few may have others"):
        workers_for("auto", 4, "few")


def test_workers_have_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 4)
    for workers in (1, 4):
        check_workers(workers)
    for workers, message in ((0, "^--workers is at least 1, got 0$"), (5, "^--workers 5 with 1 thread each is more than the 4 cores here; give --workers 4$")):
        with pytest.raises(InputError, match=message):
            check_workers(workers)
    monkeypatch.setenv("RECOMPRESS_THREADS", "3")
    with pytest.raises(InputError, match="^--workers 2 with 3 threads each is more than the 4 cores here; give --workers 1$"):
        check_workers(2)
    check_workers(1)
