"""A bundle that lost its end with the power is written anew; one that somebody altered is named, and stays as it is."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

import recompress.evidence.bundle
from recompress.evidence.cut import cut_file
from tasks.people.bundle import heal
from tasks.running.project import Project
from tests.children import Child
from tests.evidence.people import People

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def troubles(people: People, code: int) -> list[str]:
    return [trouble["detail"] for trouble in people.ask("audit", "verify", code=code)["troubles"] if trouble["kind"] == "broken"]


def die_when_written(project: Project, point: str) -> None:
    """Write the bundle and be killed: before it is sealed, or before it was looked at."""
    setattr(recompress.evidence.bundle, point, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    heal(project)


def test_a_bundle_that_was_cut_at_ten_moments_is_written_anew_each_time(people: People) -> None:
    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    bundle, draw = people.root / "evidence" / "ner-v1", random.Random(10)
    whole = {path.name: path.read_bytes() for path in bundle.iterdir()}
    for moment in range(10):
        files = sorted(bundle.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))[-1 - moment :]
        for file in draw.sample(files, min(len(files), 3)):
            size = file.stat().st_size
            length = draw.randrange(size)
            file.write_bytes(file.read_bytes()[:length] + b"\0" * (size - length) * (moment % 2))
        [detail] = troubles(people, 5)
        assert "was cut short, and `recompress audit bundle ner@1` writes it anew" in detail
        if moment % 3:
            said: list[str] = []
            assert heal(Project(people.root), said.append) == [bundle]
            assert said[0].startswith("evidence/ner-v1 was cut short (")
        else:
            people.ask("audit", "bundle", "ner@1")
        assert troubles(people, 0) == []
    assert {path.name for path in bundle.iterdir()} == whole.keys()
    assert (bundle / "plan.json").read_bytes() == whole["plan.json"]
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name], "nothing is left beside it"


@pytest.mark.parametrize("point", ["seal", "verify_bundle"])
def test_a_process_killed_while_it_writes_a_bundle_leaves_one_that_is_written(people: People, point: str) -> None:
    people.promote(1)
    child = Child(target=die_when_written, args=(Project(people.root), point))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert people.ask("audit", "bundle", "ner@1")
    assert troubles(people, 0) == []
    assert [path.name for path in (people.root / "evidence").iterdir()] == ["ner-v1"]


def test_a_bundle_that_was_altered_is_named_and_stays(people: People) -> None:
    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    card = people.root / "evidence" / "ner-v1" / "model-card.md"
    altered = card.read_bytes().replace(b"0.75", b"0.85")
    card.write_bytes(altered)
    assert heal(Project(people.root)) == []
    [detail] = troubles(people, 5)
    assert detail.startswith("model-card.md: it was changed")
    assert "cut short" not in detail
    assert card.read_bytes() == altered


@pytest.mark.parametrize("kept", ["altered", "gone"])
def test_where_it_cannot_be_written_anew_the_cut_bundle_stays(people: People, kept: str) -> None:
    plan = people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    bundle = people.root / "evidence" / "ner-v1"
    (bundle / "bundle.json").write_bytes(b'{"files"')
    if kept == "gone":
        people.dossiers.clear()
    else:
        people.dossiers[plan] = people.dossiers[plan].model_copy(update={"recipe": {"name": "another"}})
    said: list[str] = []
    assert heal(Project(people.root), said.append) == []
    assert "could not be written" in said[-1]
    assert (bundle / "plan.json").is_file()
    assert cut_file(bundle) == "bundle.json"
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_what_was_cut_is_told_from_what_was_changed(tmp_path: Path, people: People) -> None:
    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    bundle = people.root / "evidence" / "ner-v1"
    assert cut_file(bundle) is None
    for name in ("bundle.sig.json", "bundle.json", "ledger.jsonl", "README.md"):
        file = bundle / name
        whole = file.read_bytes()
        for data in (b"", whole[:-1], whole[: len(whole) // 2], whole[:-3] + b"\0\0\0"):
            file.write_bytes(data)
            assert cut_file(bundle) == name
        for data in (whole[:-2] + b"  ", whole + b" "):
            file.write_bytes(data)
            assert cut_file(bundle) != "README.md"
        file.unlink()
        assert cut_file(bundle) == name
        file.write_bytes(whole)
