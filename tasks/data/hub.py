"""Raw data from a hub: fetched at the commit that ``params.yaml`` names, pinned by DVC the first time, and taken afterwards only if it hashes to that pin."""

from __future__ import annotations

import shutil
from pathlib import Path

from recompress.data.hub import fetch_from_hub
from recompress.data.sources import read_settings_of
from recompress.errors import DataRefused, InputError, StorageError
from tasks.data.pins import Pin, difference, is_here, measure, tracked
from tasks.data.placing import put_in_place
from tasks.data.workbench import Bench, Say, bench, run_dvc, said_last


def from_hub(work: Bench, pin: Pin, name: str) -> Path | str | None:
    """The pinned folder from the hub that the entry of ``params.yaml`` names, or the reason why not; ``None`` where it names none."""
    settings = read_settings_of(work.root, name)
    if settings.hub is None:
        return None
    folder = work.folder / "from_hub"
    work.say(f"{name}: fetching {settings.hub.dataset} at {settings.hub.revision[:12]} from the hub")
    try:
        fetch_from_hub(name, settings, folder)
    except (InputError, DataRefused, StorageError) as error:
        return str(error)
    if (measured := measure(folder)).md5 != pin.md5:
        return f"the hub gives other files: {difference(measured, pin)}"
    return work.add(folder)


def fetch(root: Path, name: str, say: Say) -> dict[str, str]:
    """Bring the raw files of a data set from its hub and pin them. Gives the folder and its md5.

    Raises ``InputError`` when the entry names no hub or the hub does not give the files, and ``DataRefused`` when other files are there already, or DVC cannot
    pin them; nothing is left then.
    """
    settings = read_settings_of(root, name)
    pin, place = tracked(root).get(settings.source), root / settings.source
    if pin is not None and is_here(root, pin):
        return {"folder": settings.source, "md5": pin.md5}
    if place.exists():
        raise DataRefused(f"{settings.source} is there already and nothing pins it; move it away, or pin it as it is: dvc add {settings.source}")
    with bench(root, say) as work:
        folder = work.folder / "from_hub"
        fetch_from_hub(name, settings, folder)
        measured = measure(folder)
        if pin is not None and measured.md5 != pin.md5:
            raise DataRefused(f"the hub gives other files than {pin.pointer} pins: {difference(measured, pin)}; remove {pin.pointer} if the new ones are meant")
        put_in_place(folder, place)
    completed = run_dvc(root, root, "add", "--quiet", settings.source)
    if completed.returncode != 0:
        shutil.rmtree(place, ignore_errors=True)
        raise DataRefused(f"dvc add {settings.source}: {said_last(completed)}")
    return {"folder": settings.source, "md5": measured.md5}
