"""A data set of a hub at one commit, as a plain folder of raw files. Scripts that a repository holds are never fetched and never run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from recompress.data.formats.tables import SIDE_FILES
from recompress.data.infer.files import DATA_ENDINGS
from recompress.data.sources import SourceSettings
from recompress.errors import DataRefused, InputError
from recompress.models.hub import snapshot


def fetch_from_hub(name: str, settings: SourceSettings, folder: Path) -> None:
    """Put the files that ``settings.files`` names into ``folder``, which is new.

    Raises ``InputError``: the entry names no hub, files that are no data, or the hub does not give them; ``DataRefused`` when the commit has no such file.
    """
    if settings.hub is None:
        raise InputError(f"data set {name!r} says no hub; add hub: {{dataset: owner/name, revision: <full commit>}} to its entry in params.yaml")
    patterns = [re.sub(r"\{slice\}|\{split\}", "*", settings.files)]
    if Path(patterns[0]).suffix.lower() not in DATA_ENDINGS:
        raise InputError(f"data set {name!r}: files: {settings.files} names no kind of data that a hub is asked for ({', '.join(sorted(DATA_ENDINGS))})")
    if settings.format == "datasets":
        patterns += [*SIDE_FILES, *(f"*/{side}" for side in SIDE_FILES)]
    called = f"data set {settings.hub.dataset!r}"
    here = snapshot("dataset", settings.hub.dataset, settings.hub.revision, patterns, called, "or copy its files here (recompress data adopt DIR)")
    files = {path.relative_to(here).as_posix(): path for path in sorted(here.rglob("*")) if path.is_file()}
    # a folder of the cache may hold files that were fetched for another reason: only what the entry names is taken
    chosen = {
        relative: path
        for relative, path in files.items()
        if settings.pattern.fullmatch(relative) or (settings.format == "datasets" and path.name in SIDE_FILES)
    }
    if not any(settings.pattern.fullmatch(relative) for relative in chosen):
        raise DataRefused(f"{called} at {settings.hub.revision[:12]} has no file like {settings.files}; its page on the hub lists what it has")
    for relative, path in chosen.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / relative)  # the cache holds links to blobs
