"""Chains of steps that were read before: what each says with every dial, so that who only looks at a recipe need not import forty methods, and torch with them.

    known = what was kept under sha256(benchmark, steps as they are written), while sha256(code, packages, processor) is what it was

A memory of reading, and no more: it is for looking ahead. What trains, measures or promotes reads the recipe wholly, and a method's runner takes nothing but the
method's own settings class, so that a step from here cannot be run. What somebody lays into the file is not believed against the recipe: each dial that the recipe
gives must stand there as it is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

import recompress
from recompress.integrity.digest import canonical_json, sha256_bytes, sha256_json
from recompress.methods.steps import Step
from recompress.settings.base import Settings

FILE = Path(".recompress", "chains.json")
MOST = 300
"""So many chains are kept; the oldest go first."""


class Dials(Settings):
    """The dials of a step that was read before. They are read as JSON writes them, and belong to no method's class."""

    model_config = ConfigDict(extra="allow")


class KnownChains:
    """What is known of chains in the project at ``root``. With ``believed=False`` nothing is recalled, and what is read is kept for others."""

    def __init__(self, root: Path, *, believed: bool) -> None:
        self.file, self.believed = root / FILE, believed
        self.read: dict[str, list[dict[str, Any]]] = {}
        """What this process has read itself, by the chain's key."""

    def recall(self, benchmark: str, steps: Sequence[Mapping[str, Any]]) -> tuple[Step, ...] | None:
        """The steps of a chain; ``None`` where they have to be read. ``steps`` are as the recipe writes them."""
        try:
            kept = self._kept.get(_key(benchmark, steps)) if self.believed else None
            known = [Step.model_validate_json(json.dumps(step | {"config": {}})).model_copy(update={"config": Dials(**step["config"])}) for step in kept or ()]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # laid there by somebody, or NaN in the recipe: who reads the chain says so
            return None
        said = [{step.method: step.config.model_dump(mode="json")} for step in known]
        return tuple(known) if said and _holds(said, list(steps)) and all(map(_is_a_method, known)) else None

    def keep(self, benchmark: str, written: Sequence[Mapping[str, Any]], steps: Sequence[Step]) -> None:
        """Remember a chain that was read, until ``write``."""
        self.read[_key(benchmark, written)] = [step.model_dump(mode="json") | step.as_json for step in steps]

    def write(self) -> None:
        """Keep what was read, where there is a place for it and something new; a folder that cannot be written is no reason to fail."""
        kept = self._kept
        if not self.file.parent.is_dir() or kept.items() >= self.read.items():
            return
        try:
            text = _as_text(dict(list({**kept, **self.read}.items())[-MOST:]))
        except ValueError:  # somebody has laid something there that has no digest
            text = _as_text(self.read)
        partial = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        try:
            partial.write_bytes(text)
            partial.replace(self.file)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    @cached_property
    def _kept(self) -> dict[str, list[dict[str, Any]]]:
        """What the file holds, where it was written by this code with these packages on such a processor; nothing for a file that is torn."""
        if not self.file.is_file():  # a pipe has no end
            return {}
        try:
            found = json.loads(self.file.read_bytes())
            return dict(found["chains"]) if found["read_by"] == reader_digest() else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}


def _as_text(chains: Mapping[str, list[dict[str, Any]]]) -> bytes:
    return canonical_json({"read_by": reader_digest(), "chains": [[key, chain] for key, chain in chains.items()]})


def _key(benchmark: str, steps: Sequence[Mapping[str, Any]]) -> str:
    return sha256_json([benchmark, list(steps)])


def _is_a_method(step: Step) -> bool:
    """Whether the module that it names lies where methods do: a digest is made of its code."""
    home, methods = Path(recompress.__file__).parent, f"{recompress.__name__}.methods."
    return step.module.startswith(methods) and home.joinpath(*step.module.split(".")[1:]).with_suffix(".py").is_file()


def _holds(known: Any, given: Any) -> bool:
    """Whether everything that is given stands in what is known, which may say more."""
    if isinstance(given, dict):
        return isinstance(known, dict) and all(name in known and _holds(known[name], value) for name, value in given.items())
    if isinstance(given, list):
        return isinstance(known, list) and len(known) == len(given) and all(map(_holds, known, given))
    return bool(known == given)


@cache
def reader_digest() -> str:
    """The digest of everything that reading a step depends on: all code of this package, every package that is installed, the interpreter, and what the processor can
    do (some settings of int8 are refused where it lacks an instruction)."""
    home = Path(recompress.__file__).parent
    code = hashlib.sha256()
    for source in sorted(home.rglob("*.py")):
        text = source.read_bytes()
        code.update(f"{source.relative_to(home).as_posix()} {len(text)}\n".encode() + text)
    packages = sorted({name for place in sys.path for name in _names_in(place) if name.endswith((".dist-info", ".egg-info"))})
    return sha256_json([code.hexdigest(), packages, sys.version, platform.machine(), sha256_bytes(_processor())])


def _names_in(place: str) -> list[str]:
    try:
        return [entry.name for entry in Path(place or ".").iterdir()]
    except OSError:  # a zip, or nothing
        return []


def _processor() -> bytes:
    """The line of the system that says what the processor can do; empty where the system has none."""
    try:
        with Path("/proc/cpuinfo").open("rb") as lines:
            return next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")
    except OSError:
        return b""
