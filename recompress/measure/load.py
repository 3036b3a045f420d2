"""What else a machine did while something was timed, told by the process that timed it.

processor_share     CPU time of this process / time that passed, 1 at most: below 1 it was ready to run and had to wait
steal_share         time that the host gave to other machines / time of all cores (``steal`` in ``/proc/stat``, proc(5)); 0 where nobody counts it
switches_per_s      times in a second that another process was put in its place (``ru_nivcsw``, getrusage(2))
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

STEAL = 7
"""The place of ``steal`` among the numbers of the first line of ``/proc/stat``."""
OF_ALL = 8
"""``guest`` and what follows it are counted in the numbers before."""


class Watch:
    """Looks at the clocks when it is made, and again when it is asked."""

    def __init__(self) -> None:
        self._before = _clocks()

    def load(self) -> dict[str, float]:
        """The three figures since the watch was made."""
        wall, cpu, switches, steal, ticks = (now - before for now, before in zip(_clocks(), self._before, strict=True))
        return {
            "processor_share": min(1.0, cpu / wall) if wall > 0 else 1.0,
            "steal_share": steal / ticks if ticks > 0 else 0.0,
            "switches_per_s": switches / wall if wall > 0 else 0.0,
        }


def worst(*loads: dict[str, float]) -> dict[str, float]:
    """What the busiest of several measurements saw."""
    share = min(load["processor_share"] for load in loads)
    return {"processor_share": share} | {name: max(load[name] for load in loads) for name in loads[0] if name != "processor_share"}


def _clocks() -> tuple[float, float, float, float, float]:
    ticks = _ticks()
    return time.perf_counter(), time.process_time(), float(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw), *ticks


def _ticks() -> tuple[float, float]:
    """Ticks stolen and ticks in all, of all cores together since the machine began; zeros where there is no ``/proc/stat``."""
    try:
        numbers = [float(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return 0.0, 0.0
    return (numbers[STEAL] if len(numbers) > STEAL else 0.0), sum(numbers[:OF_ALL])
