"""What is pinned, and what of it is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recompress.data.sources import names, read_settings_of
from recompress.data.splits import preparation
from recompress.data.version import version_of
from recompress.errors import DataRefused
from recompress.settings.file import SettingsFile
from tasks.data.pins import LOCK, Pin, is_here, locked_version, pins_of


def status(root: Path) -> list[dict[str, Any]]:
    """One row for each data set: ``name``, ``state`` (ready, present, missing, changed, not pinned), ``detail`` and what is pinned."""
    return [_status(root, name) for name in names(SettingsFile(root / "params.yaml"))]


def how_to_get(pin: Pin) -> str:
    """What a person can do about raw data that is not here."""
    from tasks.data.fetch import MIRROR

    network = "; where there is a network it comes by itself" if pin.url else ""
    return f"get a copy and run `recompress data adopt DIR`, or name a folder of copies in {MIRROR}{network}. It is: {pin.origin or pin.path}"


def _status(root: Path, name: str) -> dict[str, Any]:
    source = read_settings_of(root, name)
    row: dict[str, Any] = {"name": name, "benchmark": source.benchmark, "raw": source.source, "prepared": f"prepared/{name}"}
    try:
        raw, prepared = pins_of(root, name, source.source)
        row |= {"raw_md5": raw.md5, "prepared_md5": prepared.md5, "origin": raw.origin}
        has_raw, has_prepared = is_here(root, raw), is_here(root, prepared)
    except DataRefused as error:
        return row | {"state": "refused", "detail": str(error)}
    if has_raw and has_prepared:
        rows = preparation(root / prepared.path)["rows"]
        counts = ", ".join(f"{split} {count:,}" for split, count in rows.items())
        return row | {"state": "ready", "detail": counts + _by_other_code(root, name, prepared), "rows": rows}
    if has_raw or raw.pointer == LOCK:
        return row | {"state": "present", "detail": "prepared when it is first used"}
    return row | {"state": "missing", "detail": how_to_get(raw)}


def _by_other_code(root: Path, name: str, prepared: Pin) -> str:
    """What to know where the pinned bytes were prepared by another version than the one that is installed: they are used as they are."""
    version = locked_version(root / LOCK, prepared.target, "prepare")
    if version in ("", version_of("prepare")):
        return ""
    return f"; prepared by other code ({version[:12]}…, here is {version_of('prepare')[:12]}…): `recompress data accept {name}` prepares it anew"
