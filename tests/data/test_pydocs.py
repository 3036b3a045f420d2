from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from recompress.data.pydocs import Pydocs, collect, paragraphs, write
from recompress.errors import DataRefused

WORDS = ["river", "mountain", "valley", "cloud", "forest", "island", "ocean", "desert", "meadow", "canyon", "glacier", "lagoon", "prairie"]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages that must not be imported, and more docstrings in them than are wanted."""
    for package in ("rivers", "hill_tops"):
        folder = tmp_path / package / "inner"
        folder.mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('imported')\n")
        for i, word in enumerate(WORDS):
            body = f'class C:\n    """The {word} of {package[:3]} is described here in some words.\n\n    More."""\n'
            body += f'async def f():\n    """{word.title()} things are counted, sorted and\n    returned by this {package[:3]} function."""\n'
            (folder / f"m{i}.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


SETTINGS = Pydocs(packages=("rivers", "hill_tops"), per_package=10)


def test_first_paragraphs_are_collected_without_importing_anything(packages: Path) -> None:
    by_package = collect(SETTINGS)
    assert {name: len(group) for name, group in by_package.items()} == {"hill_tops": 10, "rivers": 10}
    for group in by_package.values():
        assert {paragraph.kind for paragraph in group} <= {"class", "function"}
        assert all("More" not in paragraph.text and "  " not in paragraph.text for paragraph in group)


def test_what_is_taken_does_not_depend_on_the_order_of_the_files(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = collect(SETTINGS)
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(listed(self, pattern))))
    assert collect(SETTINGS) == before


def test_files_are_read_in_the_order_of_the_digests_of_their_names(packages: Path) -> None:
    sources = list(dict.fromkeys(paragraph.source for paragraph in paragraphs(packages / "rivers")))
    assert sources == sorted(sources, key=lambda name: hashlib.sha256(name.encode()).hexdigest()) != sorted(sources)
    assert len(sources) == len(WORDS) + 1


def test_a_paragraph_that_names_a_package_is_left_out(packages: Path) -> None:
    for i, name in enumerate(("Rivers", "hill-tops", "HILL TOPS", "hilltops")):
        (packages / "rivers" / f"named{i}.py").write_text(f'"""This one speaks of {name} and would give itself away."""\n')
    texts = [paragraph.text for group in collect(SETTINGS.model_copy(update={"per_package": 20})).values() for paragraph in group]
    assert not [text for text in texts if "give itself away" in text]


def test_texts_of_one_template_signatures_and_tests_are_left_out(packages: Path) -> None:
    for name in ("RunTask", "``JobTask``", "PageTask"):
        (packages / "rivers" / f"{name.strip('`')}.py").write_text(f'"""Serializes the {name} into a shallow dictionary of values."""\n')
    (packages / "rivers" / "signature.py").write_text('def f():\n    """multiply_all_of_them(left, right, out) -> the product of both as array"""\n')
    (packages / "rivers" / "tests").mkdir()
    (packages / "rivers" / "tests" / "test_x.py").write_text('"""A test speaks of what it tests and of nothing else."""\n')
    (packages / "rivers" / "broken.py").write_text("def f(:\n")
    texts = [paragraph.text for paragraph in collect(SETTINGS.model_copy(update={"per_package": 14}))["rivers"]]
    everything = [paragraph.text for paragraph in paragraphs(packages / "rivers")]
    assert len([text for text in everything if text.startswith("Serializes")]) == 3
    assert len([text for text in texts if text.startswith("Serializes")]) <= 1
    assert not [text for text in everything if "speaks of what it tests" in text]
    assert not [text for text in texts if "multiply_all" in text]


def test_too_few_paragraphs_and_missing_packages_are_refused(packages: Path) -> None:
    with pytest.raises(DataRefused, match="package 'hill_tops' has .* paragraphs that can be used, 500 are wanted"):
        collect(SETTINGS.model_copy(update={"per_package": 500}))
    with pytest.raises(DataRefused, match="package 'nowhere_at_all' is not installed"):
        collect(SETTINGS.model_copy(update={"packages": ("nowhere_at_all", "rivers")}))


def test_files_are_the_same_each_time_and_replace_what_was_there(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "collected" / "pydocs"
    write(collect(SETTINGS), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "old.jsonl").write_text("{}")
    write(collect(SETTINGS), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    row = json.loads(before["rivers.jsonl"].splitlines()[0])
    assert row.keys() == {"text", "label", "slice", "source"}
    assert row["label"] == "rivers"
    assert row["source"].startswith("rivers/inner/")
