"""A version that is ready to answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from recompress.errors import IntegrityError, RecompressError
from recompress.predict import Predictor

TRIAL = "a"
"""A text that every model can be asked about."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version in memory, and which one it is."""

    model: str
    version: str
    manifest_sha256: str
    predictor: Predictor

    @property
    def name(self) -> str:
        return f"{self.model} version {self.version}"


def load_version(model: str, version: str, manifest_sha256: str, directory: Path) -> Loaded:
    """Open a model directory that was checked, and ask it once. Raises ``InputError`` and ``IntegrityError``: what cannot answer takes nobody's place."""
    predictor = Predictor(directory)
    loaded = Loaded(model, version, manifest_sha256, predictor)
    try:
        json.dumps(predictor([dict.fromkeys(predictor.columns, TRIAL)]), allow_nan=False)
    except RecompressError:
        raise
    except Exception as error:
        raise IntegrityError(
            f"{loaded.name} can be opened, but does not answer: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None
    return loaded
