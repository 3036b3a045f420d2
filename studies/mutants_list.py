"""Mutants as data: small edits, each of which makes one thing wrong that a person could get wrong, with the tests that must see it.

``studies/mutants/ROOM.yaml`` is a list of files with their mutants::

    - file: recompress/gate/choose.py
      tests: [tests/gate/test_gate.py]        # for those that name none themselves
      mutants:
        - name: speed-for-size
          find: ranked[0][1]
          in: choose                           # where the text stands more than once: the function or class (dotted) that holds it
          replace: ranked[-1][1]
          why: the worst of those that passed becomes champion

``loops: true`` says that the mutant never ends, so that running out of time counts as caught; ``fast: true`` that it belongs to the part for every change;
``methods: [wanda]`` which registered methods it makes wrong; ``survives: …`` why no test sees it, for the few that are left.
"""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PLACE = Path(__file__).parent / "mutants"


class DoesNotApply(Exception):
    """The text to replace is not there, or more than once, or what results is no Python."""


@dataclass(frozen=True)
class Mutant:
    name: str
    """ROOM/MODULE/NAME, unique."""
    file: str
    find: str
    replace: str
    why: str
    tests: list[str]
    where: str = ""
    loops: bool = False
    fast: bool = False
    survives: str = ""
    methods: list[str] = field(default_factory=list)

    @property
    def room(self) -> str:
        return self.name.split("/")[0]

    def applied_to(self, text: str) -> str:
        """The file with the edit. Raises ``DoesNotApply``."""
        start, end = _span(text, self.where) if self.where else (0, len(text))
        times = text.count(self.find, start, end)
        if times != 1:
            raise DoesNotApply(f"{self.name}: {self.find!r} stands {times} times in {self.file}{self.where and f', {self.where}'}; once is needed")
        place = text.index(self.find, start, end)
        mutated = text[:place] + self.replace + text[place + len(self.find) :]
        try:
            if ast.dump(ast.parse(mutated)) == _meaning(text):
                raise DoesNotApply(f"{self.name}: the edit of {self.file} changes nothing")
        except SyntaxError as error:
            raise DoesNotApply(f"{self.name}: {self.file} is no Python after the edit: {error}") from error
        return mutated

    def digest(self, root: Path, by: str = "") -> str:
        """Of the edit, the file and the tests: what decides whether an earlier result still counts. Of a mutant that was caught, ``by`` is the test that failed:
        it stays caught whatever else is tested beside it, as long as that test and all that is no test in its file are what they were."""
        if by:
            name = by.split("::")[-1].split("[")[0]
            tests = [_without_other_tests((root / by.split("::")[0]).read_text(encoding="utf-8"), name)]
        else:
            tests = [*self.tests, *((root / file).read_text(encoding="utf-8") for file in sorted({test.split("::")[0] for test in self.tests}))]
        content = [self.find, self.replace, self.where, (root / self.file).read_text(encoding="utf-8"), tests]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@cache
def _meaning(text: str) -> str:
    """What Python makes of a file, but for comments, spaces and brackets."""
    return ast.dump(ast.parse(text))


@cache
def _without_other_tests(text: str, name: str) -> str:
    """What a file of tests means to one of them; imports come and go with the others."""
    body = ast.parse(text).body
    kept = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom) and not (isinstance(node, ast.FunctionDef) and _is_other(node, name))]
    return ast.dump(ast.Module(kept, []))


def _is_other(node: ast.FunctionDef, name: str) -> bool:
    return node.name.startswith("test_") and node.name != name


def _span(text: str, dotted: str) -> tuple[int, int]:
    """Where a function or class lies in the text."""
    nodes: list[Any] = ast.parse(text).body
    node: Any = None
    for name in dotted.split("."):
        matching = [child for child in nodes if getattr(child, "name", None) == name]
        if len(matching) != 1:
            raise DoesNotApply(f"{dotted} is there {len(matching)} times; once is needed")
        node, nodes = matching[0], matching[0].body
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts[node.lineno - 1], starts[node.end_lineno]


def read_mutants(place: Path = PLACE) -> list[Mutant]:
    """All mutants, by room and in the order of the files. Raises ``ValueError`` for a name that is there twice."""
    mutants = []
    for path in sorted(place.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8")):
            shared = {key: group[key] for key in ("tests", "methods") if key in group}
            for entry in group["mutants"]:
                values = shared | entry
                values["name"] = f"{path.stem}/{Path(group['file']).stem}/{values['name']}"
                values["where"] = values.pop("in", "")
                mutants.append(Mutant(file=group["file"], **values))
    names = [mutant.name for mutant in mutants]
    if len(set(names)) < len(names):
        raise ValueError(f"{max(names, key=names.count)} is the name of two mutants")
    return mutants
