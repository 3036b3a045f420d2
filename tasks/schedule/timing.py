"""When a scheduled run begins: a line of cron in a time zone, or an interval."""

from __future__ import annotations

import asyncio
import math
import re
import zoneinfo
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.watch.settings import has_form, seconds_of

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

SHORTEST_S, LONGEST_S = 60.0, 366 * 86_400.0
"""Prefect's scheduler looks once a minute, so that nothing begins more often."""
CRON = re.compile(r"@\w+|\S+(\s+\S+){4}")
"""Five fields, or a name like ``@daily``. With a sixth, which would be seconds, a run would begin in each of them."""


@dataclass(frozen=True)
class Timing:
    """Either ``cron`` in ``zone``, or every ``every_s`` seconds from the moment in which the schedule is made."""

    cron: str = ""
    every_s: float = 0.0
    zone: str = "UTC"

    @property
    def text(self) -> str:
        return f"cron {self.cron!r} in {self.zone}" if self.cron else f"every {_in_words(self.every_s)}"

    def as_json(self) -> dict[str, Any]:
        return {"cron": self.cron, "timezone": self.zone} if self.cron else {"every_s": self.every_s}

    def as_prefect(self) -> CronSchedule | IntervalSchedule:
        from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

        return CronSchedule(cron=self.cron, timezone=self.zone) if self.cron else IntervalSchedule(interval=timedelta(seconds=self.every_s))


def timing_of(schedule: Any) -> Timing | None:
    """What a schedule of Prefect's says in these words; ``None`` for one of another kind (RRULE), which somebody made by hand."""
    if cron := getattr(schedule, "cron", None):
        return Timing(cron=cron, zone=schedule.timezone or "UTC")
    interval = getattr(schedule, "interval", None)
    return None if interval is None else Timing(every_s=interval.total_seconds())


def read_timing(cron: str | None, every: str | None, zone: str | None) -> Timing:
    """The options of the command. Raises ``InputError``."""
    if (cron is None) == (every is None):
        raise InputError("say when, by one of the two: --cron '15 3 * * *' or --every 1d")
    if every is not None:
        if zone is not None:
            raise InputError(f"--timezone goes with --cron; an interval is the same in every zone, got --every {every} --timezone {zone}")
        return Timing(every_s=_seconds(every))
    cron, zone = " ".join((cron or "").split()), zone or "UTC"
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(f"--timezone is a name like Europe/Berlin, as the IANA has them, got {zone!r}") from None
    _check_cron(cron)
    return Timing(cron=cron, zone=zone)


def _seconds(every: str) -> float:
    seconds = seconds_of(every) if has_form(every) else math.inf
    if math.isinf(seconds):
        raise InputError(f"--every is a number with s, m, h or d behind it, like 1d, got {every!r}")
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise InputError(f"--every is at least {_in_words(SHORTEST_S)} and at most {_in_words(LONGEST_S)}, got {every}")
    return seconds


def _check_cron(cron: str) -> None:
    """Raises ``InputError`` for what is no line of cron, and for one that no day ever fits (31 February)."""
    from prefect.server.schemas.schedules import CronSchedule

    shape = f"--cron is five fields (minute hour day month weekday), like '15 3 * * *', got {cron!r}"
    if not CRON.fullmatch(cron):
        raise InputError(shape)
    try:
        schedule = CronSchedule(cron=cron, timezone="UTC")
    except ValueError:
        raise InputError(shape) from None
    try:
        dates = asyncio.run(schedule.get_dates(1))
    except ValueError:  # what the parser of cron raises where it has looked at fifty years
        dates = []
    if not dates:
        raise InputError(f"--cron {cron!r} fits no day that there is, so nothing would ever begin; write another one")


def _in_words(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"
