"""Sources: what a recipe depends on, and what one look at each of them saw.

A source is known by the digest of what is *read* of it, never by a commit alone: a commit that changes a page about a model changes no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from recompress.integrity.digest import sha256_json

Kind = Literal["hub model", "hub data set", "folder", "package", "registry", "DVC import", "data", "recipe", "policy", "code", "packages"]


ORIGINS: tuple[Kind, ...] = ("hub data set", "DVC import")
"""Where data came from. What a run reads is pinned here, so that it does not wait for an origin that cannot be seen."""


OF_THE_MACHINE = ("code", "packages")
"""Sources that are the watcher's and not the project's: two machines that watch one project may have others."""


@dataclass(frozen=True)
class Source:
    """One thing that a recipe depends on."""

    name: str
    """Of the place in the recipe: ``base``, ``baseline``, ``data NAME``, ``recipe`` …"""
    kind: Kind
    place: str
    """What a person calls it: ``owner/name``, a folder, ``models:/name@alias``, a git URL."""
    pinned: str = ""
    """The commit or the digest that the project names; empty where nothing pins it, so that it is taken as it is."""


@dataclass(frozen=True)
class Sight:
    """What one look at a source saw. Exactly one of ``digest``, ``away`` and ``waits`` says what is to be done about it."""

    source: Source
    digest: str = ""
    """Of what is read, as it is now."""
    pinned_digest: str = ""
    """The same of what is pinned; empty where nothing pins it."""
    revision: str = ""
    """The commit or version that it was seen at."""
    between: tuple[str, ...] = ()
    """Revisions that came after the pin and are superseded by ``revision``, oldest first."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """What would stand in the recipe to pin what was seen: ``revision``, ``sha256``. Empty where no line of the recipe pins it."""
    away: str = ""
    """Why it cannot be seen. That it cannot be seen does not say that it changed."""
    retry_after_s: float = 0.0
    """How long the place asks to be left alone."""
    waits: str = ""
    """Why a person has to look before anything is done about it."""

    @property
    def moved(self) -> bool:
        """Whether what is pinned is no more what is there."""
        return bool(self.digest and self.pinned_digest and self.digest != self.pinned_digest)

    @property
    def state(self) -> str:
        return (
            "not visible" if self.away else "waits for a person" if self.waits else "changed" if self.moved else "as pinned" if self.pinned_digest else "seen"
        )

    def as_json(self) -> dict[str, Any]:
        facts = {
            "name": self.source.name,
            "kind": self.source.kind,
            "place": self.source.place,
            "state": self.state,
            "pinned": self.source.pinned,
            "pinned_digest": self.pinned_digest,
            "present_digest": self.digest,
            "present_revision": self.revision,
            "detail": self.away or self.waits,
        }
        return facts | ({"superseded": list(self.between)} if self.between else {})


def files_digest(files: Mapping[str, str]) -> str:
    """The digest of files by their paths and the identities that a place gives them (an sha256, a git blob)."""
    return sha256_json({"files": dict(files)})
