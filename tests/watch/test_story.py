"""What a trace tells of a watch: from what was seen on, and nothing of other runs."""

from __future__ import annotations

from recompress.watch.story import story_of
from tests.watch.test_messages import ended, plan_of, records

SEEN = ("source-seen", {"recipe": "ner", "source": "base", "place": "some/encoder", "digest": "d" * 64, "revision": "c2"})


def claim(key: str, revision: str, **more: object) -> tuple[str, dict[str, object]]:
    return "watch-run", {
        "recipe": "ner",
        "key": key,
        "sources": {"base": revision},
        "after": "",
        "why": ["base moved"],
        "superseded": ["some/encoder@c1b"],
        **more,
    }


def test_a_merged_proposal_is_told_from_what_was_seen_on() -> None:
    plan = plan_of()
    other = claim("o" * 64, "c1"), ended(key="o" * 64, outcome="promoted", plan="0" * 64)
    proposal = claim("p" * 64, "c2"), ended(key="p" * 64, outcome="proposed", plan="f" * 64, branch="recompress/ner-1")
    merged = claim("m" * 64, "c2"), ended(key="m" * 64, outcome="promoted", plan=plan.digest)
    lines = story_of(records(*other, SEEN, *proposal, *merged), plan)
    assert [line.split(" ")[1] for line in lines] == ["3", "4", "5", "6", "7"]
    assert f"saw base some/encoder at c2, digest {'d' * 64}" in lines[0]
    assert "superseded: some/encoder@c1b" in lines[1]
    assert lines[2].endswith("proposed, branch recompress/ner-1")
    assert lines[4].endswith("promoted")


def test_a_run_that_a_person_made_has_no_such_story() -> None:
    assert story_of(records(SEEN, claim("p" * 64, "c2"), ended(key="p" * 64, outcome="proposed", plan="f" * 64)), plan_of()) == ()
