"""Which code makes a data set: the sources of a stage's module and of what it imports from this room, as one digest.

``params.yaml`` holds it (``code: {prepare: "5f0c…"}``), the stages of ``dvc.yaml`` depend on it as on any other dial, and ``dvc.lock`` keeps it. So a stage depends on
no file of the tool's own repository, a project works wherever the package is installed, and code that changed shows in ``dvc status``.
"""

from __future__ import annotations

from pathlib import Path

from recompress.errors import InputError
from recompress.integrity.fingerprint import code_fingerprint
from recompress.settings.file import SettingsFile

ROOM = "recompress.data"
KEY = "code"


def version_of(stage: str) -> str:
    """The digest of ``recompress.data.<stage>`` and of all modules of this room that it imports, directly or not: 32 hex digits."""
    return code_fingerprint(f"{ROOM}.{stage}", within=ROOM)[:32]


def check_version(file: SettingsFile, stage: str) -> None:
    """Raises ``InputError`` where ``params.yaml`` names other code for a stage than that which is running: ``dvc.lock`` would say what is not so."""
    named = versions_in(file).get(stage)
    if named is not None and named != version_of(stage):
        raise InputError(
            f"{KEY}.{stage} is {named[:12]}…, but the code that is installed here is {version_of(stage)[:12]}… ({file.where((KEY, stage))}); "
            f"`recompress data accept NAME` makes the data set with it and writes that down"
        )


def versions_in(file: SettingsFile) -> dict[str, str]:
    """What ``params.yaml`` names for each stage; empty for a project from before it did."""
    named = file.values.get(KEY) if isinstance(file.values, dict) else None
    return {str(stage): str(version) for stage, version in named.items()} if isinstance(named, dict) else {}


def with_present_versions(path: Path) -> str:
    """The text of ``params.yaml`` with the versions of the code that is running in place of those that it names; nothing else of it changes."""
    file = SettingsFile(path)
    lines = path.read_bytes().decode("utf-8").split("\n")
    for stage, named in versions_in(file).items():
        line = file.lines[KEY, stage] - 1
        before, key, after = lines[line].partition(f"{stage}:")
        lines[line] = before + key + after.replace(named, version_of(stage), 1)
    return "\n".join(lines)
