"""Where the page of a recipe lies, for whoever asks without running anything."""

from __future__ import annotations

import json
import re
from pathlib import Path

from recompress.errors import InputError, IntegrityError
from recompress.settings.base import SLUG
from recompress.settings.file import SettingsFile


def last_page(root: Path, recipe: Path) -> dict[str, str]:
    """Where the last page of a recipe is and what it says. Of the recipe its name is read alone. Raises ``InputError`` when there is no page."""
    file = SettingsFile(recipe if recipe.is_file() else root / recipe)
    name = file.values.get("name") if isinstance(file.values, dict) else None
    if not isinstance(name, str) or not re.fullmatch(SLUG, name):
        raise InputError(f"name is a name of at most 80 small letters, digits, and _ . -, got {name!r} ({file.where(('name',))})")
    page = root / "reports" / f"{name}.html"
    if not page.is_file():
        raise InputError(f"{recipe} has no page yet; run: recompress run {recipe}")
    try:
        written = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        return {"page": str(page), "summary": "\n".join([written["summary"], *([written["looks"]["told"]] if written.get("looks") else [])])}
    except (OSError, ValueError, KeyError):
        raise IntegrityError(
            f"{page.with_suffix('.json')} was cut short; run again, which finds all steps and writes the page anew: recompress run {recipe}"
        ) from None
