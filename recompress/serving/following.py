"""A newer version takes over when its files were checked and it has answered once; until then, and where that fails, the one before it goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from recompress.errors import RecompressError
from recompress.serving.app import Service
from recompress.serving.loaded import Loaded

Newer = Callable[[], Loaded | None]
"""Looks whether another version is to be served, checks it and opens it: that version, or ``None`` where the same is. Called in a thread. Raises ``RecompressError``."""
LONGEST_S = 60.0
"""Between two looks, however often what is there was refused."""


async def follow(service: Service, newer: Newer, every_s: float, say: Callable[[str], None]) -> None:
    """Look again and again, until it is cancelled. After a refusal the next look is later each time, up to a minute; each new reason is said once."""
    wait, told = every_s, ""
    service.metrics.looked_at()
    while True:
        await asyncio.sleep(wait)
        try:
            found = await _apart(newer)
        except Exception as error:
            if service.ending:
                return  # whoever looked was told to end
            reason = str(error) if isinstance(error, RecompressError) else f"{type(error).__name__}: {error}"
            if reason != told:
                say(f"{service.loaded.name} goes on, because what the alias names is refused: {reason}")
            told, wait = reason, min(2 * wait, max(LONGEST_S, every_s))
            service.refuses(type(error).__name__)
            continue
        told, wait, service.refused = "", every_s, ""
        service.metrics.looked_at()
        if found is not None:
            before = service.loaded
            service.take(found)
            service.metrics.changes.labels("served").inc()
            say(f"{found.name} answers from now on (manifest {found.manifest_sha256}); before it, version {before.version} did")


async def _apart(newer: Newer) -> Loaded | None:
    """What a look gives, in a thread that keeps no process from ending: a ledger that is away may be waited for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Loaded | None] = loop.create_future()

    def settle(found: Loaded | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)

    def look() -> None:
        found, error = None, None
        try:
            found = newer()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=look, name="look", daemon=True).start()
    return await future
