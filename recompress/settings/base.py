"""The base of everything that a person writes: typed, frozen, and with no room for a key that does not exist."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
"""A share in [0, 1): 0 leaves everything as it is."""

Slug = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=80, json_schema_extra={"in_words": "a name of at most 80 small letters, digits, and _ . -"})
]
"""A short name that is safe in a path, a tag and a URL."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", json_schema_extra={"in_words": "64 hex digits in small letters"})]


class Settings(BaseModel):
    """A settings class. The docstring under a field is its help text, in the command and in the docs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, strict=True)
