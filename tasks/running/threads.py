"""How many threads a step of a variant computes with: as many with workers as without, and on every machine, for sums in another order give other last bits.

Some steps are quicker on more threads; a machine with more cores does more variants at once instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from recompress.errors import InputError
from tasks.running.prefect_server import named_server

VARIABLE = "RECOMPRESS_THREADS"
USUAL = 1


def threads_of_a_step() -> int:
    """What ``RECOMPRESS_THREADS`` says, or 1. Models that are to come out the same need the same number. Raises ``InputError``."""
    text = os.environ.get(VARIABLE, str(USUAL))
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise InputError(f"{VARIABLE} is a number of threads, at least 1, got {text!r}; unset it to compute with {USUAL}")
    return int(text)


@contextmanager
def threads_held() -> Iterator[None]:
    """While the block runs, torch and the libraries behind numpy compute with that many threads; the process's own number comes back."""
    import torch
    from threadpoolctl import threadpool_limits

    threads, usual = threads_of_a_step(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(usual)


def workers_for(asked: int | Literal["auto"], variants: int, pool: str = "") -> int:
    """How many workers are started: as many as were asked for, or, for ``auto``, as many as there are cores for, and no more than there are variants. Raises
    ``InputError`` for ``auto`` with a pool, whose cores nobody here can count."""
    if asked != "auto":
        return asked
    if pool:
        raise InputError(
            f"--workers auto counts the cores of this machine, and pool {pool} may have others; say how many steps it may have at a time: --workers 4"
        )
    return max(1, min(cores() // threads_of_a_step(), variants))


def check_workers(workers: int, *, elsewhere: bool = False) -> None:
    """Raises ``InputError`` for more workers than this machine has cores for, unless they are on others."""
    threads, there = threads_of_a_step(), cores()
    if workers < 1:
        raise InputError(f"--workers is at least 1, got {workers}")
    if workers > 1 and not elsewhere and workers * threads > there:
        raise InputError(
            f"--workers {workers} with {threads} thread{'s' * (threads > 1)} each is more than the {there} cores here; give --workers {max(1, there // threads)}"
        )


def check_sharing(workers: int, pool: str) -> None:
    """Raises ``InputError`` for more workers than this machine has cores for, and for a pool that no other machine could take work from."""
    check_workers(workers, elsewhere=bool(pool))
    if pool and named_server() is None:
        raise InputError(
            f"--pool {pool} needs a Prefect server that its workers reach too: prefect server start, and name it in PREFECT_API_URL here and there"
        )


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
