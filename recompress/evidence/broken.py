"""The error of a bundle that does not hold."""

from __future__ import annotations

from recompress.errors import IntegrityError


class BundleBroken(IntegrityError):
    """A bundle does not hold. ``file`` is the first bad file."""

    def __init__(self, file: str, message: str) -> None:
        super().__init__(f"{file}: {message}")
        self.file = file
