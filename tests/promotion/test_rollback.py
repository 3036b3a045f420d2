"""Rollbacks: promotions like any other, of a model that was champion before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recompress.errors import GateRefused, InputError, IntegrityError
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.ledger import Ledger
from recompress.promotion import (
    HEAD_TAG,
    MODEL_TAG,
    Promoter,
    PromotionRefused,
)
from tests.promotion.stage import MODEL, FolderRegistry, promote_new, sha


def test_a_candidate_that_was_replaced_does_not_come_back_by_itself(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    """A person rolled it back; the next run of the same recipe finds the same evidence, and must not undo the person's decision."""
    promote_new(promoter, tmp_path, 1)
    promote_new(promoter, tmp_path, 2)
    promoter.rollback(MODEL, reason="it answers in the wrong language")
    with pytest.raises(GateRefused, match="was promoted as version 2 .* and version 1 took its place since"):
        promote_new(promoter, tmp_path, 2)
    assert registry.champion(MODEL) == "1"
    assert promote_new(promoter, tmp_path, 2, again=True).version == "3"


def test_rollback_is_a_promotion_like_any_other(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        promote_new(promoter, tmp_path, seed)
    back = promoter.rollback(MODEL, reason="too slow on the old servers")
    assert back.version == registry.champion(MODEL) == "2"
    assert registry.versions(MODEL) == ["1", "2", "3"]
    opened = ledger.last("rollback")
    assert opened is not None
    assert opened.body["content"]["reason"] == "too slow on the old servers"
    assert (registry.tags(MODEL, "2") or {})[HEAD_TAG] == str(back.head)
    assert promoter.rollback(MODEL, reason="further").version == "1"
    with pytest.raises(InputError, match="no earlier champion"):
        promoter.rollback(MODEL, reason="further")
    assert promoter.rollback(MODEL, to="3", reason="it was not that").version == "3"
    assert promoter.rollback(MODEL, to="1", reason="further").version == "1"
    ledger.verify(anchors=[back.head])


def test_rollback_puts_an_alias_right_that_somebody_moved(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    for seed in (1, 2):
        promote_new(promoter, tmp_path, seed)
    registry.set_champion(MODEL, "1")
    assert promoter.rollback(MODEL, to="2", reason="somebody moved it by hand").version == "2"
    registry.set_champion(MODEL, None)
    assert promoter.rollback(MODEL, reason="somebody removed it by hand").version == "2"
    assert ledger.entries("alias-moved-outside", model=MODEL) != []


def test_rollbacks_that_are_refused(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no earlier champion"):
        promoter.rollback(MODEL, reason="x")
    promote_new(promoter, tmp_path, 1)
    before = ledger.head()
    for to, reason, message in [
        (None, "x", "no earlier champion"),
        ("1", "x", "is champion of ner already"),
        ("7", "x", "version 7 of ner never was champion; these were: 1"),
        (None, "  ", "needs a reason"),
    ]:
        with pytest.raises(InputError, match=message):
            promoter.rollback(MODEL, to=to, reason=reason)
    assert ledger.head() == before
    promote_new(promoter, tmp_path, 2)
    (registry.fetch(MODEL, "1") / MODEL_FOLDER / "vocab.txt").write_text("changed")
    with pytest.raises(IntegrityError, match=r"vocab\.txt"):
        promoter.rollback(MODEL, reason="x")
    shutil.rmtree(registry.fetch(MODEL, "1"))
    with pytest.raises(PromotionRefused, match="version-missing"):
        promoter.rollback(MODEL, reason="x")
    assert registry.champion(MODEL) == "2"


def test_a_rollback_names_the_model_that_the_ledger_promoted_whatever_its_tag_says(
    promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path
) -> None:
    """A schedule that looks whether its candidate was rolled back must find it there."""
    promote_new(promoter, tmp_path, 1)
    promote_new(promoter, tmp_path, 2)
    digest = (registry.tags(MODEL, "2") or {})[MODEL_TAG]
    registry.set_tag(MODEL, "2", MODEL_TAG, sha("another model"))
    with pytest.raises(PromotionRefused, match=f"champion-changed.*version 2 is not the model that it was, by its tag {MODEL_TAG}"):
        promoter.rollback(MODEL, reason="slow")
    opened = ledger.last("rollback")
    assert opened is not None
    assert opened.body["content"]["expected"] == {"version": "2", "model_sha256": digest}
    registry.set_tag(MODEL, "2", MODEL_TAG, digest)
    assert promoter.rollback(MODEL, reason="slow").version == "1"
