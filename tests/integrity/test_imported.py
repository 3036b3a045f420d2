"""The lines of imports say what a tree of the syntax says, or leave it to the tree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.integrity.imported import imported, in_plain_form, in_tree

PLAIN = "from recompress.a import b, c as d\nimport recompress.e\n"
NAMES = {"recompress.a", "recompress.a.b", "recompress.a.c", "recompress.e"}


def test_every_source_of_the_house_says_the_same_both_ways(root: Path) -> None:
    plain = 0
    for room in ("recompress", "tasks", "flows", "tests", "studies"):
        for source in sorted((root / room).rglob("*.py")):
            text = source.read_text(encoding="utf-8")
            assert imported(text) == in_tree(text), source
            plain += in_plain_form(text) is not None
    assert plain > 900, "almost none has to be read as a tree"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (PLAIN, NAMES),
        (f'"""Say:\n{PLAIN}"""\n', set()),
        ("x = '''\nimport a\n'''\n# import b\n", set()),
        ("from a import (\n    b,  # why\n    c,\n)\n", {"a", "a.b", "a.c"}),
        ("if TYPE_CHECKING:\n    import a\n\n    from b import c\nimport d\n", {"d"}),
        ("def f():\n    if TYPE_CHECKING:\n        import a\n    import d\n", {"d"}),
        ("from . import a\nfrom .b import c\n", set()),
    ],
)
def test_the_plain_form_is_read_without_a_tree(text: str, names: set[str]) -> None:
    assert in_plain_form(text) in (names, None)
    assert imported(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "x = 1; import a\n",
        "import a, b\n",
        "from a import *\n",
        "if x: import a\n",
        "if TYPE_CHECKING: import a\n",
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b\n",
        "if x:\n    pass\nelif TYPE_CHECKING:\n    import b\n",
        "if not TYPE_CHECKING:\n    import b\n",
        "if (TYPE_CHECKING):\n    import b\n",
    ],
)
def test_any_other_form_is_left_to_the_tree(text: str) -> None:
    assert in_plain_form(text) is None
    assert imported(text) == in_tree(text)


@pytest.mark.parametrize("text", ["import \\\n    a\n", "if TYPE_CHECKING:\n\timport a\nimport b\n"])
def test_lines_that_are_not_what_they_look_like_are_left_to_the_tree(text: str) -> None:
    assert imported(text) == in_tree(text)


PIECES = [
    "import a",
    "from b import c",
    "if TYPE_CHECKING:",
    "else:",
    "    import d",
    "    from e import (f,",
    "    g)",
    "'''",
    '"""',
    "x = 'import h'",
    "# import i",
    "def k():",
    "    pass",
    "",
]


@given(st.lists(st.sampled_from(PIECES), max_size=9))
def test_whatever_stands_together_says_the_same_both_ways(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    try:
        ast.parse(text)
    except SyntaxError:
        return
    assert imported(text) == in_tree(text)
