"""The bar that long work shows: on stderr, with what is running and how long is left."""

from __future__ import annotations

import sys
from typing import Any


def bar(label: str, total: int, unit: str, *, start: int = 0, shown: bool = True) -> Any:
    """A tqdm bar. On a terminal it moves all the time; in a log it says where it is every 15 seconds."""
    from tqdm import tqdm

    interval = 0.3 if sys.stderr.isatty() else 15.0
    return tqdm(total=total, initial=start, desc=label, unit=unit, mininterval=interval, maxinterval=max(10.0, interval), disable=not shown, file=sys.stderr)
