"""Recompress: keep the small versions of language models current, proven and reproducible.

This package holds all the thinking and none of the plumbing: it knows torch and transformers, and has never heard of Prefect, MLflow, DVC or Great Expectations.

As a library it offers five functions over models and folders (``recompress.library`` documents them)::

    import recompress

    model = recompress.load("my-finetuned-model")
    small = recompress.compress(model, None, "wanda", sparsity=0.5, calibration=texts)
    before, after = recompress.measure(model, rows), recompress.measure(small, rows, baseline=model)
    verdict = recompress.judge("policy.yaml", after, before)
    recompress.export(small, "out", to="onnx")

Nothing heavy is imported before one of them is asked for.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recompress.library import compress, export, judge, load, measure

__all__ = ["__version__", "compress", "export", "judge", "load", "measure"]
__version__ = "0.1.0"
# ONNX Runtime and its GenAI keep an id of this machine and what they were asked below the person's home, to be sent to their maker; it is this, before they are imported,
# that stops all of it. What a person has set beforehand stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
FUNCTIONS = ("compress", "judge", "load")
ROOMS = ("measure", "export")
"""Functions of the library that have the name of the package in which their work is done."""


class CallableRoom(ModuleType):
    """A package that can be called: ``recompress.measure(model, rows)``, whoever has imported ``recompress.measure`` as a package before."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return getattr(import_module("recompress.library"), self.__name__.rpartition(".")[2])(*arguments, **named)


def __getattr__(name: str) -> Any:
    if name in FUNCTIONS:
        return getattr(import_module("recompress.library"), name)
    if name in ROOMS:
        return import_module(f"recompress.{name}")
    raise AttributeError(f"module 'recompress' has no attribute {name!r}")
