"""Somebody can write to the registry: what the tags of a version say is held against the ledger, all of it."""

from __future__ import annotations

import pytest

from recompress.ledger import GENESIS, Head
from recompress.promotion import HEAD_TAG, MODEL_TAG, PLAN_TAG
from tests.audit.checking import broken, check
from tests.evidence.stories import Project
from tests.promotion.stage import MODEL


@pytest.mark.parametrize("tag", [MODEL_TAG, PLAN_TAG, "recompress.data_sha256", "recompress.policy_sha256", "recompress.git_commit", "recompress.candidate"])
@pytest.mark.parametrize("value", ["0" * 64, "other"])
def test_whatever_a_tag_says_of_where_a_version_comes_from_is_held_against_the_ledger(project: Project, tag: str, value: str) -> None:
    project.registry.set_tag(MODEL, "1", tag, value)
    [line] = broken(project)
    assert line.startswith(f"ner version 1: its tag {tag} says ")


@pytest.mark.parametrize("number", [0, 1, 6])
def test_a_head_from_before_the_promotion_does_not_pass_for_the_one_that_it_left(project: Project, number: int) -> None:
    """It lies on the chain, and would let everything behind it be cut off."""
    head = project.ledger.entries()[number - 1].head if number else Head(0, GENESIS)
    project.registry.set_tag(MODEL, "1", HEAD_TAG, str(head))
    assert broken(project) == [f"ner version 1: its tag {HEAD_TAG} names record {number}, its promotion is record 8; it was altered"]


def test_a_head_that_a_crash_kept_from_being_left_is_a_notice(project: Project) -> None:
    last = project.ledger.head().sequence
    project.registry.set_tag(MODEL, "2", HEAD_TAG, str(project.ledger.entries()[last - 2].head))
    report = check(project)
    assert report.broken == []
    assert [t.detail for t in report.troubles] == [
        f"its tag {HEAD_TAG} names record {last - 1}, its promotion is record {last}; the next promotion sets it right"
    ]
    project.promoter.recover()
    assert check(project).troubles == ()
