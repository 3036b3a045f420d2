"""When a run begins, as a person writes it, and what is refused."""

from __future__ import annotations

import pytest

from recompress.errors import InputError
from tasks.schedule.timing import Timing, read_timing, timing_of


def test_what_a_person_writes_is_what_prefect_is_asked_for_and_what_it_says_back() -> None:
    for timing in (
        read_timing("15  3 * * *", None, "Europe/Berlin"),
        read_timing("@daily", None, None),
        read_timing(None, "15m", None),
        read_timing(None, "1d", None),
        read_timing("0 0 29 2 *", None, None),
    ):
        assert timing_of(timing.as_prefect()) == timing
    assert read_timing("15  3 * * *", None, "Europe/Berlin") == Timing(cron="15 3 * * *", zone="Europe/Berlin")
    assert read_timing(None, "15m", None) == Timing(every_s=900)
    assert [read_timing(None, every, None).text for every in ("1d", "90m", "90s", "36h")] == ["every 1d", "every 90m", "every 90s", "every 36h"]


@pytest.mark.parametrize(
    "cron, every, zone, line",
    [
        (None, None, None, "say when, by one of the two"),
        ("15 3 * * *", "1d", None, "say when, by one of the two"),
        ("61 3 * * *", None, None, "--cron is five fields .*, got '61 3 \\* \\* \\*'$"),
        ("15 3 * *", None, None, "--cron is five fields"),
        ("* * * * * *", None, None, "--cron is five fields"),
        ("H 3 * * *", None, None, "--cron is five fields"),
        ("", None, None, "--cron is five fields .*, got ''$"),
        ("0 0 31 2 *", None, None, "fits no day that there is"),
        ("15 3 * * *", None, "Europe/Atlantis", "--timezone is a name like Europe/Berlin, .*, got 'Europe/Atlantis'$"),
        ("15 3 * * *", None, "../../etc/passwd", "--timezone is a name like Europe/Berlin"),
        (None, "1d", "Europe/Berlin", "--timezone goes with --cron"),
        (None, "0d", None, "--every is at least 1m and at most 366d, got 0d$"),
        (None, "59s", None, "--every is at least 1m"),
        (None, "367d", None, "at most 366d, got 367d$"),
        (None, "9" * 400 + "d", None, "--every is a number with s, m, h or d behind it"),
        (None, "-1d", None, "--every is a number with s, m, h or d behind it, like 1d, got '-1d'$"),
        (None, "daily", None, "--every is a number"),
    ],
    ids=lambda value: None,
)
def test_what_would_never_begin_or_always_is_one_line(cron: str | None, every: str | None, zone: str | None, line: str) -> None:
    with pytest.raises(InputError, match=line) as refused:
        read_timing(cron, every, zone)
    assert "\n" not in str(refused.value)
