"""What a check of everything finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Trouble:
    """Something that is not as it should be. A ``notice`` is worth knowing, and no broken promise."""

    where: str
    kind: Literal["broken", "notice"]
    detail: str
