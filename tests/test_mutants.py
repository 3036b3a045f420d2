"""The mutation study stays true to the code: every mutant applies to it and names tests that exist, no room and no method is left out, and a few are tried."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from recompress.methods.registry import all_methods
from studies.mutants_list import DoesNotApply, Mutant, read_mutants

LEAST, FOR_EACH_METHOD = 250, 3
ROOMS = {"gate", "policy", "ledger", "promotion", "evidence", "audit", "integrity", "data", "benchmarks", "measure", "settings", "runner", "models", "runtimes"}
MUTANTS = read_mutants()


def test_every_mutant_applies_once_and_is_still_python(root: Path) -> None:
    texts = {mutant.file: (root / mutant.file).read_text(encoding="utf-8") for mutant in MUTANTS}
    for mutant in MUTANTS:
        assert mutant.applied_to(texts[mutant.file]) != texts[mutant.file]


def test_every_mutant_says_what_is_wrong_and_which_tests_must_see_it(root: Path) -> None:
    sources: dict[str, str] = {}
    for mutant in MUTANTS:
        assert len(mutant.why.split()) >= 2 or "=" in mutant.why, mutant.name
        assert mutant.tests, mutant.name
        for test in mutant.tests:
            file, *names = test.split("::")
            source = sources.setdefault(file, (root / file).read_text(encoding="utf-8"))
            assert all(f"def {name.partition('[')[0]}(" in source or f"class {name}" in source for name in names), f"{mutant.name}: {test}"


def test_there_are_enough_of_them_for_each_room_and_each_method() -> None:
    assert len(MUTANTS) >= LEAST
    rooms = Counter(mutant.room for mutant in MUTANTS)
    assert rooms.keys() >= ROOMS
    assert min(rooms.values()) >= 3
    methods = Counter(method for mutant in MUTANTS for method in mutant.methods)
    known = all_methods().keys()
    assert methods.keys() <= known
    assert {name for name in known if methods[name] < FOR_EACH_METHOD} == set()


def mutant(find: str, replace: str, where: str = "") -> Mutant:
    return Mutant(name="room/module/name", file="module.py", find=find, replace=replace, why="it is wrong", tests=["tests/test_it.py"], where=where)


def test_an_edit_that_does_not_apply_exactly_once_is_refused() -> None:
    text = "def first(x):\n    return x + 1\n\n\nclass Second:\n    def third(self, x):\n        return x + 1\n"
    with pytest.raises(DoesNotApply, match="stands 2 times"):
        mutant("x + 1", "x - 1").applied_to(text)
    with pytest.raises(DoesNotApply, match="stands 0 times"):
        mutant("x * 1", "x - 1").applied_to(text)
    with pytest.raises(DoesNotApply, match="is there 0 times"):
        mutant("x + 1", "x - 1", "Second.fourth").applied_to(text)
    with pytest.raises(DoesNotApply, match="no Python"):
        mutant("x + 1", "x -", "first").applied_to(text)
    with pytest.raises(DoesNotApply, match="changes nothing"):
        mutant("x + 1", "(x + 1)", "first").applied_to(text)
    assert mutant("x + 1", "x - 1", "Second.third").applied_to(text) == text[: text.rindex("x + 1")] + "x - 1\n"


@pytest.mark.long
def test_a_few_are_tried_and_caught(root: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"} | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "studies.mutants", "--fast", "--dry", "--workers", "1"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    chosen = sum(mutant.fast for mutant in MUTANTS)
    assert chosen >= 6
    assert f"{chosen} of {chosen} caught" in done.stdout
