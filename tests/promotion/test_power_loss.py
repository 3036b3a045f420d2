"""The power goes: a process ends at once, and the files that it wrote last are there with some of their bytes, or with none. No promotion ends in a dead end.

A record of the ledger and a row of the registry's database were forced to the disk; a file of a version that is not named yet may be cut anywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recompress.audit import check_all
from recompress.errors import IntegrityError
from recompress.integrity.model_files import MANIFEST_FILE, check_version, cut_file, mend_manifest, write_manifest
from recompress.promotion import MANIFEST_TAG
from tests.promotion.stage import MODEL, FolderRegistry, model_directory
from tests.promotion.test_kill import Stage, killed, memory, prepared, stages  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
BEFORE = ("version-made", "files-checked", "intent-written", "alias-moved", "move-recorded", "files-checked-again", "check-recorded")
AFTER = ("committed", "anchored")
MOMENTS = ("registry:uploaded", *(f"promotion:{name}" for name in (*BEFORE, *AFTER)))


def cut(registry: FolderRegistry, count: int, draw: random.Random) -> list[str]:
    """Truncate the files of versions that were written last; gives their paths."""
    files = sorted((path for path in (registry.root / MODEL).rglob("*") if path.is_file() and len(path.relative_to(registry.root).parts) > 2), key=_age)[
        -count:
    ]
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[: draw.randrange(len(data))])
    return [file.name for file in files]


def _age(path: Path) -> tuple[int, bool]:
    return path.stat().st_mtime_ns, path.name == MANIFEST_FILE


def again(stage: Stage) -> None:
    """What the next run does: look at what is there, then promote."""
    stage.promoter().settle(MODEL)
    stage.promote()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("number", range(len(MOMENTS)))
def test_whatever_was_cut_the_next_runs_come_to_an_end(stages: Callable[[], Stage], number: int, count: int) -> None:  # noqa: F811
    stage, point = stages(), MOMENTS[number]
    killed(stage.promote, point)
    registry = stage.promoter().registry
    assert isinstance(registry, FolderRegistry)
    names = cut(registry, count, random.Random(f"{point} {count}"))
    if point.endswith(AFTER) and names != [MANIFEST_FILE]:  # what was promoted and cannot be brought back is named, with the way out
        with pytest.raises(
            IntegrityError, match=rf"version 3, the champion of {MODEL}, is not what was promoted: .*({'|'.join(map(re.escape, names))}).*recompress rollback"
        ):
            again(stage)
        assert check_all(stage.promoter().ledger, registry).broken
        stage.promoter().rollback(MODEL, reason="the power went")
        assert registry.champion(MODEL) == "2"
        assert {trouble.where for trouble in check_all(stage.promoter().ledger, registry).broken} == {f"{MODEL} version 3"}, "named until a copy is put back"
    else:
        again(stage)
        made_again = count > 1 and point != MOMENTS[0]  # a manifest that alone was cut is mended, and what has no name yet is nobody's version
        assert registry.champion(MODEL) == ("4" if made_again else "3")
        assert check_all(stage.promoter().ledger, registry).broken == []
    stage.promoter().settle(MODEL)


def test_a_manifest_that_was_cut_is_mended_and_one_that_was_changed_is_not(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "registry")
    version = registry.create_version(MODEL, model_directory(tmp_path / "model", 1), {})
    sha256 = (registry.tags(MODEL, version) or {})[MANIFEST_TAG]
    place = registry.fetch(MODEL, version)
    whole = (place / MANIFEST_FILE).read_bytes()
    assert not mend_manifest(place, sha256), "it is whole"
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        for zeros in (b"", b"\0" * (len(whole) - length)):
            (place / MANIFEST_FILE).write_bytes(whole[:length] + zeros)
            assert cut_file(place, sha256) == MANIFEST_FILE
            assert mend_manifest(place, sha256)
            check_version(place, sha256)
    changed = whole.replace(b'"served.py"', b'"server.py"')
    (place / MANIFEST_FILE).write_bytes(changed)
    assert not mend_manifest(place, sha256)
    assert cut_file(place, sha256) is None, "that is no cut"
    (place / MANIFEST_FILE).write_bytes(whole[:9])
    (place / "served.py").write_text("# another\n")
    assert not mend_manifest(place, sha256), "the files are not those of the manifest"
    assert write_manifest(place) != sha256


def test_a_version_that_was_changed_and_not_cut_is_refused_and_not_made_again(stages: Callable[[], Stage]) -> None:  # noqa: F811
    stage = stages()
    killed(stage.promote, "promotion:version-made")
    registry = stage.promoter().registry
    served = registry.fetch(MODEL, "3") / "served.py"
    served.write_text("# what somebody else serves\n")
    with pytest.raises(IntegrityError, match=r"served\.py"):
        again(stage)
    assert registry.champion(MODEL) == "2"
    assert registry.find_version(MODEL, stage.promoter().ledger.entries("promotion-proposed")[-1].body["plan"]) == "3"


def test_what_was_made_again_is_found_again_and_what_was_cut_is_not(stages: Callable[[], Stage]) -> None:  # noqa: F811
    """A second power loss after the version was made again: the next run takes that one, and makes no third."""
    stage = stages()
    killed(stage.promote, "promotion:version-made")
    registry = stage.promoter().registry
    weights = registry.fetch(MODEL, "3") / "artifacts" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20])
    killed(stage.promote, "promotion:version-made")
    again(stage)
    assert registry.champion(MODEL) == "4"
    assert isinstance(registry, FolderRegistry)
    assert registry.versions(MODEL) == ["1", "2", "3", "4"]
