"""What somebody does to files, alias, registry or ledger while a promotion is on its way, or between two of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recompress.errors import IntegrityError, StorageError
from recompress.integrity.model_files import MODEL_FOLDER, write_manifest
from recompress.ledger import Ledger
from recompress.promotion import (
    MANIFEST_TAG,
    Promoter,
    PromotionRefused,
    champion_by_ledger,
    present_champion,
    progress_of,
)
from recompress.promotion.registry import tags_of
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory, promote_new, safetensors


def break_pickle(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\x80\x04\x95junk")


def break_name(directory: Path) -> None:
    (directory / "weights.bin").write_bytes(b"\x80\x04\x95junk")


def break_length(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(safetensors(1)[:-3])


@pytest.mark.parametrize(("harm", "message"), [(break_pickle, "is a pickle"), (break_name, "weights.bin is of a kind"), (break_length, "cut short")])
def test_a_directory_that_no_version_may_hold_is_refused_before_it_is_uploaded(promoter, ledger, registry, tmp_path, harm, message) -> None:  # type: ignore[no-untyped-def]
    directory = model_directory(tmp_path / "model", 1)
    harm(directory)
    progress = promoter.propose(*make_plan(directory, None))
    with pytest.raises(IntegrityError, match=message):
        promoter.promote(progress.digest, directory)
    assert progress_of(ledger, progress.digest).said("promotion-refused")["reason"] == "files-refused"
    assert registry.champion(MODEL) is None
    assert not (registry.root / MODEL).exists()


def test_a_directory_that_changed_since_it_was_judged_is_refused(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", 1)
    progress = promoter.propose(*make_plan(directory, None))
    (directory / "config.json").write_text('{"seed": 2}')
    with pytest.raises(IntegrityError, match="has digest"):
        promoter.promote(progress.digest, directory)
    assert registry.champion(MODEL) is None


def test_files_that_change_between_the_check_and_the_move_bring_the_alias_back(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_new(Promoter(ledger, registry, "ada"), tmp_path, 1)

    def tamper(name: str) -> None:
        if name == "promotion:alias-moved":
            (registry.fetch(MODEL, "2") / MODEL_FOLDER / "config.json").write_text("{}")

    with pytest.raises(IntegrityError, match=r"the alias was moved back .*config\.json"):
        promote_new(Promoter(ledger, registry, "ada", crash_point=tamper), tmp_path, 2)
    assert registry.champion(MODEL) == champion_by_ledger(ledger, MODEL) == "1"
    assert registry.moves == ["1", "2", "1"]
    assert [e.kind for e in ledger.entries()][-3:] == ["promotion-alias-moved", "promotion-undo", "promotion-rolled-back"]
    ledger.verify()


@pytest.mark.parametrize("to", ["2", None])
def test_an_alias_moved_behind_our_back_is_found_recorded_and_refused_once(promoter, ledger, registry, tmp_path, to) -> None:  # type: ignore[no-untyped-def]
    for seed in (1, 2, 3):
        promote_new(promoter, tmp_path, seed)
    assert promoter.watch(MODEL) is None
    registry.set_champion(MODEL, to)
    with pytest.raises(PromotionRefused, match=f"alias-moved-outside.*was version 3, somebody made it {to}"):
        promote_new(promoter, tmp_path, 4)
    assert ledger.last("alias-moved-outside").body == {"model": MODEL, "ledger": "3", "registry": to}
    assert promoter.watch(MODEL) is None
    assert promote_new(promoter, tmp_path, 5).version == "4"
    registry.set_champion(MODEL, "1")
    assert promoter.watch(MODEL).body["registry"] == "1"


def test_a_champion_that_was_deleted_stops_nothing_but_what_was_judged_against_it(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_new(promoter, tmp_path, 1)
    shutil.rmtree(registry.fetch(MODEL, "1"))
    registry.set_champion(MODEL, None)
    with pytest.raises(PromotionRefused, match="alias-moved-outside"):
        promote_new(promoter, tmp_path, 2)
    assert promote_new(promoter, tmp_path, 3).version == registry.champion(MODEL)


def test_a_ledger_with_a_cut_tail_stops_the_next_promotion(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    """Somebody restores yesterday's ledger: the champion's version remembers today's head."""
    promoter = Promoter(ledger, registry, "ada")
    promote_new(promoter, tmp_path, 1)
    promote_new(promoter, tmp_path, 2)
    yesterday = Ledger(tmp_path / "yesterday.db")
    yesterday.import_entries(ledger.entries()[:-1])
    with pytest.raises(IntegrityError, match=r"record 16: it is missing; .* anchored elsewhere"):
        promote_new(Promoter(yesterday, registry, "ada"), tmp_path, 3)
    assert registry.champion(MODEL) == "2"


class Silent(FolderRegistry):
    """A registry that stops answering at one of its methods."""

    fails = ""

    def __getattribute__(self, name: str) -> object:
        if name == object.__getattribute__(self, "fails"):
            raise StorageError("the registry does not answer")
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("method", ["champion", "tags", "find_version", "create_version", "fetch", "move_champion", "set_tag"])
def test_a_registry_that_does_not_answer_leaves_nothing_half_done(ledger: Ledger, tmp_path: Path, method: str) -> None:
    registry = Silent(tmp_path / "registry")
    promoter = Promoter(ledger, registry, "ada")
    promote_new(promoter, tmp_path, 1)
    directory = model_directory(tmp_path / "next", 2)
    progress = promoter.propose(*make_plan(directory, present_champion(registry, MODEL)))
    registry.fails = method
    with pytest.raises(StorageError, match="does not answer") as refusal:
        promoter.promote(progress.digest, directory)
    assert "\n" not in str(refusal.value)
    registry.fails = ""
    assert promoter.promote(progress.digest, directory).version == registry.champion(MODEL) == "2"
    assert registry.moves == ["1", "2"]
    ledger.verify()


@pytest.mark.parametrize("tag", ["its own", "the one announced"])
def test_an_upload_that_was_cut_off_lets_nobody_lay_another_version_in_its_place(ledger: Ledger, registry: FolderRegistry, tmp_path: Path, tag: str) -> None:
    """The ledger knows the manifest that was about to be uploaded, so a version with the same model and other code to serve it is not the one."""

    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "registry:uploaded":
            raise Killed

    directory = model_directory(tmp_path / "model", 1)
    promoter = Promoter(ledger, registry, "ada")
    progress = promoter.propose(*make_plan(directory, None))
    registry.crash_point = kill
    with pytest.raises(Killed):
        promoter.promote(progress.digest, directory)
    registry.crash_point = lambda name: None
    [announced] = ledger.entries("version-uploading", plan=progress.digest)
    version = registry.create_version(MODEL, directory, tags_of(progress.plan))
    place = registry.fetch(MODEL, version)
    (place / "served.py").write_text("# whatever else I like\n")
    laid = write_manifest(place)
    registry.set_tag(MODEL, version, MANIFEST_TAG, laid if tag == "its own" else announced.body["manifest_sha256"])
    with pytest.raises(IntegrityError, match=f"version {version} of {MODEL}: .*expected {announced.body['manifest_sha256'][:12]}"):
        promoter.promote(progress.digest, directory)
    assert registry.champion(MODEL) is None
    assert progress_of(ledger, progress.digest).said("promotion-refused")["reason"] == "files-refused"
    again = promoter.propose(*make_plan(directory, None))
    assert promoter.promote(again.digest, directory).version == "2", "the next attempt is another plan, under which nothing was laid"
