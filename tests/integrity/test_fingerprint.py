"""A step's key changes with everything that could change its result, and with nothing else."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recompress.integrity import fingerprint
from recompress.integrity.fingerprint import step_key
from recompress.integrity.imported import is_for_typing

SAME = {"modules": ["recompress.integrity.digest"], "config": {"a": 1}, "inputs": ["x"], "seed": 0}


@pytest.mark.parametrize("change", [{"config": {"a": 2}}, {"inputs": ["y"]}, {"seed": 1}, {"modules": ["recompress.errors"]}, {"inputs": ["x", "y"]}])
def test_every_part_counts(change: dict[str, object]) -> None:
    assert step_key("s", **SAME) == step_key("s", **SAME)
    assert step_key("s", **{**SAME, **change}) != step_key("s", **SAME)  # type: ignore[arg-type]
    assert step_key("t", **SAME) != step_key("s", **SAME)


def test_inputs_that_are_swapped_are_other_inputs() -> None:
    """A student of a teacher is not a teacher of a student."""
    assert step_key("s", **{**SAME, "inputs": ["x", "y"]}) != step_key("s", **{**SAME, "inputs": ["y", "x"]})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _versions_as_installed() -> Iterator[None]:
    """What a test says of versions is forgotten after it."""
    yield
    fingerprint._versions.cache_clear()


def test_versions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = step_key("s", **SAME)
    monkeypatch.setattr(fingerprint.importlib.metadata, "version", lambda name: "9")
    fingerprint._versions.cache_clear()
    assert step_key("s", **SAME) != before


def test_what_need_not_be_installed_counts_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another llama.cpp answers otherwise; and nobody has to have one."""
    real = fingerprint.importlib.metadata.version
    absent = fingerprint.importlib.metadata.PackageNotFoundError

    def version_with(llama: str | None) -> Any:
        def version(name: str) -> str:
            if name not in fingerprint.WHERE_INSTALLED:
                return real(name)
            if llama is None:
                raise absent(name)
            return llama

        return version

    keys = set()
    for llama in (None, "1", "2"):
        monkeypatch.setattr(fingerprint.importlib.metadata, "version", version_with(llama))
        fingerprint._versions.cache_clear()
        assert ("xllamacpp" in fingerprint.versions()) == (llama is not None)
        keys.add(step_key("s", **SAME))
    assert len(keys) == 3


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in the place of ours: a uses b (inside a function), b uses c (for types only), d stands alone."""
    folder = tmp_path / "made_up"
    folder.mkdir()
    sources = {
        "__init__": "",
        "a": "def f():\n    from made_up import b\n",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made_up import c\n",
        "c": "",
        "d": "",
    }
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fingerprint, "PACKAGE", "made_up")
    return folder


def fresh(*modules: str, **within: str) -> str:
    for cached in (fingerprint.code_fingerprint, fingerprint._digest, fingerprint._source, fingerprint._imports):
        cached.cache_clear()
    importlib.invalidate_caches()
    return fingerprint.code_fingerprint(*modules, **within)


def test_code_counts_as_far_as_it_is_imported(package: Path) -> None:
    before = fresh("made_up.a")
    for name, counts in (("d", False), ("c", False), ("b", True), ("a", True)):
        (package / f"{name}.py").write_text((package / f"{name}.py").read_text() + "# changed\n")
        assert (fresh("made_up.a") != before) is counts, name
        before = fresh("made_up.a")


def test_a_module_without_source_is_refused(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"made_up.nothing"):
        fresh("made_up.nothing")


def test_code_of_one_room_counts_as_far_as_the_room_goes(package: Path) -> None:
    for name, text in (("__init__", ""), ("x", "from made_up.room import y\nfrom made_up import a\n"), ("y", "")):
        (package / "room").mkdir(exist_ok=True)
        (package / "room" / f"{name}.py").write_text(text)
    before, whole = fresh("made_up.room.x", within="made_up.room"), fresh("made_up.room.x")
    for name, counts in (("a", False), ("room/y", True)):
        (package / f"{name}.py").write_text((package / f"{name}.py").read_text() + "# changed\n")
        assert (fresh("made_up.room.x", within="made_up.room") != before) is counts, name
        assert fresh("made_up.room.x") != whole
        before = fresh("made_up.room.x", within="made_up.room")


def test_imports_are_found_wherever_a_whole_walk_finds_them(root: Path) -> None:
    """Against all nodes of all trees of the package, expressions included."""
    for source in sorted((root / "recompress").rglob("*.py")):
        tree = ast.parse(source.read_text(encoding="utf-8"))
        unread = {id(node) for block in ast.walk(tree) if is_for_typing(block) for node in ast.walk(block)}
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and id(node) not in unread:
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level and id(node) not in unread:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        wanted = {name for name in names if name.split(".")[0] == "recompress" and fingerprint._source(name) is not None}
        assert fingerprint._imports(source) == wanted, source


@pytest.mark.parametrize(
    "block",
    [
        "try:\n    pass\nexcept OSError:\n    {}",
        "try:\n    pass\nfinally:\n    {}",
        "try:\n    pass\nexcept OSError:\n    pass\nelse:\n    {}",
        "match 1:\n    case 1:\n        {}",
        "if 1:\n    pass\nelif 2:\n    {}",
        "for _ in ():\n    pass\nelse:\n    {}",
        "with open('x'):\n    {}",
        "class A:\n    async def f(self):\n        {}",
    ],
)
def test_an_import_counts_in_every_kind_of_block(block: str, tmp_path: Path) -> None:
    source = tmp_path / "odd.py"
    source.write_text(block.format("from recompress.integrity import digest"))
    assert fingerprint._imports(source) == {"recompress.integrity", "recompress.integrity.digest"}
