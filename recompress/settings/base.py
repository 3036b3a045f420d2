"""The base of everything that a person writes: typed, frozen, and with no room for a key that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
"""A share in [0, 1): 0 leaves everything as it is."""

SLUG = r"^[a-z0-9][a-z0-9_.-]*$"
Slug = Annotated[str, Field(pattern=SLUG, max_length=80, json_schema_extra={"in_words": "a name of at most 80 small letters, digits, and _ . -"})]
"""A short name that is safe in a path, a tag and a URL."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", json_schema_extra={"in_words": "64 hex digits in small letters"})]


class Settings(BaseModel):
    """A settings class. The docstring under a field is its help text, in the command and in the docs."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def as_before(model: BaseModel, values: dict[str, Any], later: Iterable[str]) -> dict[str, Any]:
    """What a model is written as, without those of the fields in ``later`` that hold their default: fields that a later version added, so that what an earlier one
    wrote keeps its digest."""
    fields = type(model).model_fields
    unset = {name for name in later if getattr(model, name) == fields[name].default}
    return {name: value for name, value in values.items() if name not in unset}
