"""What a source file names in import statements, without a tree of its syntax: trees of two hundred files take longer than everything else that a plan does.

``import`` is a keyword, so that outside of strings and comments each one is a statement. Where all of them have the plain form that formatters write, their lines are
the answer; a source with any other is read as a tree, which says the same and takes fifteen times as long.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_STRING_OR_COMMENT = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'
    r"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'"
    r"|#[^\n]*",
    re.DOTALL,
)
_PLAIN = re.compile(r"^ *(?:from ([\w.]+) import (?:\(([\w\s,]*)\)|(\w[\w ,]*))|import ([\w.]+)(?: as \w+)?) *$", re.MULTILINE)
"""``from MODULE import NAMES``, in brackets over several lines too, or ``import MODULE``, alone on its line."""
_ODD = re.compile(r"[\t\f\r]|\\\n")
"""Indentation and lines that are not what they look like."""
TYPING = "TYPE_CHECKING"


def imported(source: str) -> frozenset[str]:
    """The modules that a Python source names in import statements, wherever these stand (inside functions too), and their names as ``module.name``; not what stands
    below ``if TYPE_CHECKING``, nor what is named relative to the file. Raises ``SyntaxError`` for a source that is none, where it has to be read as a tree."""
    plain = None if _ODD.search(source) else in_plain_form(source)
    return in_tree(source) if plain is None else plain


def in_plain_form(source: str) -> frozenset[str] | None:
    """The answer where every import has the plain form, and what is for typing is told by its indentation; ``None`` for any other source."""
    shown = _without_typing(_STRING_OR_COMMENT.sub('""', source))
    if shown is None:
        return None
    statements = list(_PLAIN.finditer(shown))
    others = _PLAIN.sub("", shown)
    if re.search(rf"\b(?:import|{TYPING})\b", others):
        return None
    names: set[str] = set()
    for module, many, few, alone in (found.groups() for found in statements):
        if alone or not module.startswith("."):
            names.add(alone or module)
            names |= {f"{module}.{name.split()[0]}" for name in (many or few or "").split(",") if name.strip()}
    return frozenset(names)


def _without_typing(shown: str) -> str | None:
    """The lines that do not stand below ``if TYPE_CHECKING``; ``None`` where that has another branch."""
    if TYPING not in shown:
        return shown
    kept: list[str] = []
    typing = None
    for line in shown.splitlines():
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if typing is not None and text:
            if indent > typing:
                continue
            if indent == typing and re.match(r"(?:else|elif)\b", text):
                return None
            typing = None
        if text.rstrip(" ") == f"if {TYPING}:":
            typing = indent
        else:
            kept.append(line)
    return "\n".join(kept)


def in_tree(source: str) -> frozenset[str]:
    """The answer for any source, by its tree."""
    names: set[str] = set()
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(names)


def _statements(block: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node, but for those for typing only. Imports are no part of expressions, which are most of a tree and are left alone."""
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        for node in getattr(block, name, ()):
            if not is_for_typing(node):
                yield node
                yield from _statements(node)


def is_for_typing(node: ast.AST) -> bool:
    """Whether it is an ``if TYPE_CHECKING``, with all its branches."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == TYPING
