"""The name of a step's result, made of everything that could change it.

    key = sha256(step, code it runs, configuration, digests of its inputs, seed, versions of the libraries that compute)

The same key never runs twice, and a change of any part gives another key. The code's part is the sources of the step's modules and of every module of this
project that they import, however far away, so that an edit of a method reruns what uses that method and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from recompress.integrity.digest import sha256_bytes, sha256_file, sha256_json
from recompress.integrity.imported import imported

PACKAGE = "recompress"
VERSIONED = ("torch", "transformers", "onnxruntime")
WHERE_INSTALLED = ("gguf", "xllamacpp", "onnxruntime-genai", "sacrebleu", "rouge-score")
"""Versions that count where these are installed; without them nothing that depends on them can be made."""


def step_key(step: str, *, modules: Iterable[str], config: Any, inputs: Iterable[str], seed: int) -> str:
    """The digest that names the result of one step. ``modules`` are dotted names of this package, e.g. ``recompress.methods.pruning.magnitude``."""
    return sha256_json(
        {"step": step, "code": code_fingerprint(*sorted(modules)), "config": config, "inputs": list(inputs), "seed": seed, "versions": versions()}
    )


def versions() -> dict[str, str]:
    """The versions of the libraries that compute."""
    return dict(_versions(tuple(_changed(place) for place in sys.path)))


def _changed(folder: str) -> int:
    """When something was last installed in a folder, or taken away; 0 for one that is not there."""
    try:
        return Path(folder or ".").stat().st_mtime_ns
    except OSError:
        return 0


@cache
def _versions(_changed: tuple[int, ...]) -> dict[str, str]:
    """Each is read from a description as long as a book: once, for as long as nothing is installed or taken away."""
    found = {name: importlib.metadata.version(name).split("+")[0] for name in VERSIONED}
    for name in WHERE_INSTALLED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@cache
def code_fingerprint(*modules: str, within: str = "") -> str:
    """The digest of the sources of ``modules`` and of all modules of this package, or of one room ``within`` it, that they import, directly or not."""
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        source = _source(name)
        if source is None:
            raise ModuleNotFoundError(f"{name} has no source to take a fingerprint of")
        seen[name] = _digest(source)
        waiting.extend(name for name in _imports(source) - seen.keys() if not within or f"{name}.".startswith(f"{within}."))
    return sha256_bytes(
        json.dumps(seen, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )  # as sha256_json, which is slow for hundreds of keys


@cache
def _digest(source: Path) -> str:
    return sha256_file(source)


@cache
def _source(name: str) -> Path | None:
    """Looked for by its path: to find a module's spec, importlib runs the packages above it, and with them seconds of what they import."""
    package, *rest = name.split(".")
    if rest and (above := _source(name.rpartition(".")[0])) is not None and above.name != "__init__.py":
        return None  # what is imported from a module is no module
    spec = importlib.util.find_spec(package) if package == PACKAGE else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        place = Path(folder, *rest)
        for source in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if source.is_file():
                return source
    return None


@cache
def _imports(source: Path) -> frozenset[str]:
    """Modules of this package that a source file names in import statements, wherever they stand (inside functions too), but for typing only."""
    names = imported(source.read_text(encoding="utf-8"))
    return frozenset(name for name in names if name.split(".")[0] == PACKAGE and _source(name) is not None)
