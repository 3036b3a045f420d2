"""What stands under a field of a settings class: its help, for those who ask for it.

Python keeps no text that stands under a field, so that it is read from the source, and only here: to have it read when a class is made costs each command that
reads a setting a tenth of its time.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from pathlib import Path

from recompress.settings.base import Settings


def help_of(kind: type[Settings], field: str) -> str:
    """The text under a field, where it stands in the class or in the one that it is inherited from; empty where there is none."""
    for owner in kind.__mro__:
        if field in owner.__dict__.get("__annotations__", {}):
            return _texts(owner).get(field, "")
    return ""


@cache
def _texts(kind: type) -> dict[str, str]:
    """The texts under the fields that one class names itself, by field."""
    body = _tree(kind.__module__)
    for name in kind.__qualname__.split("."):
        body = next((node.body for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name), [])
    return {
        node.target.id: inspect.cleandoc(text.value.value)
        for node, text in zip(body, body[1:], strict=False)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


@cache
def _tree(module: str) -> list[ast.stmt]:
    source = getattr(sys.modules[module], "__file__", None)
    return ast.parse(Path(source).read_text(encoding="utf-8")).body if source else []
