"""What torch's exporter writes, made lean: the same answers from fewer and smaller nodes. Each rewrite finds its pattern in the graph, or leaves the graph as it is.

What each of them saves is measured in ``studies/lean.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from recompress.runtimes.lean.first import first_token_alone
from recompress.runtimes.lean.mask import lean_mask

if TYPE_CHECKING:
    import onnx

REWRITES: tuple[Callable[[onnx.ModelProto], int], ...] = (lean_mask, first_token_alone)
"""In the order in which they are done: a small mask need not be cut."""


def make_lean(model: onnx.ModelProto) -> None:
    """All rewrites, in place. Shapes have to be noted in the graph, as the exporter does."""
    for rewrite in REWRITES:
        rewrite(model)
