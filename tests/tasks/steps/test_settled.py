"""Which key a run looks under for what the present champion was promoted on: its plan's, or the one of today, and none where both results are lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tasks.steps.settled import JUDGED, NAMED, key_then

TAGS = {f"recompress.{JUDGED}": "then", f"recompress.{NAMED}": "another step's"}


@pytest.mark.parametrize(
    ("remembered", "tags", "key"),
    [
        ({"then", "now"}, TAGS, "then"),
        ({"then"}, TAGS, "then"),
        ({"now"}, TAGS, "now"),
        ({"now"}, {}, "now"),
        ({"another step's"}, TAGS, ""),
        (set(), TAGS, ""),
        (set(), {}, ""),
    ],
    ids=["the plan's first", "judged by older code", "lost under the plan's name", "a plan from before", "of another step", "lost", "nothing"],
)
def test_the_key_of_what_is_still_remembered(remembered: set[str], tags: dict[str, str], key: str) -> None:
    asked = list[str]()

    def known(step: str, key: str) -> dict[str, str] | None:
        asked.append(step)
        return {} if key in remembered else None

    run = SimpleNamespace(known=known)
    assert key_then(run, "verdicts", "now", tags, JUDGED) == key  # type: ignore[arg-type]
    assert set(asked) == {"verdicts"}
