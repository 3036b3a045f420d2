"""Listens, answers, and ends when it is told to: what was asked before is answered, what comes later finds nobody."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from recompress.errors import InputError, StorageError
from recompress.serving.app import Service, make_app
from recompress.serving.batching import Batcher
from recompress.serving.following import Newer, follow
from recompress.serving.limits import Limits
from recompress.serving.loaded import Loaded
from recompress.serving.metrics import Metrics
from recompress.serving.protocol import PunctualProtocol

HASTE_S = 2.0
"""What is left to requests after Ctrl-C."""
KEEP_S = 75
"""How long a connection may stay without a request: longer than proxies keep theirs, so that it is they who close it."""
TICK_S = 0.1
LAST_PORT = 65535
Say = Callable[[str], None]


class _Server(uvicorn.Server):
    """uvicorn, whose signals whoever serves has taken over."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """An address that is this process's, and nobody can connect to yet. Raises ``InputError`` for a port that there is not, and ``StorageError`` for an address that
    cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not 0 <= port <= LAST_PORT:
        raise InputError(f"nothing can listen on {host}:{port}, because ports go to {LAST_PORT}; choose another port with --port")
    with socket.socket(family, proto=socket.IPPROTO_TCP) as mine:  # named, or asyncio leaves the head of an answer waiting for an acknowledgement: 40 ms
        try:
            socket.create_server((host, port), family=family).close()  # says of an address that somebody listens on that it is taken
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            mine.bind((host, port))
        except OSError as error:
            raise StorageError(f"nothing can listen on {host}:{port} ({error.strerror or error}); choose another port with --port") from None
        yield mine


def serve(loaded: Loaded, listening: socket.socket, limits: Limits, ended: Sequence[signal.Signals], say: Say, newer: Newer | None, every_s: float) -> None:
    """Serve a version, and those that follow it, until a signal stands in ``ended``, which may grow while this runs.

    SIGTERM leaves requests that came before it ``limits.drain_s`` to be answered in, Ctrl-C two seconds. Raises ``StorageError`` where the server stops by itself.
    """
    asyncio.run(_serve(loaded, listening, limits, ended, say, newer, every_s))


async def _serve(
    loaded: Loaded, listening: socket.socket, limits: Limits, ended: Sequence[signal.Signals], say: Say, newer: Newer | None, every_s: float
) -> None:
    metrics = Metrics()
    batcher = Batcher(limits, metrics)
    service = Service(limits, metrics, batcher, loaded)
    service.take(loaded)
    server = _Server(_config(service))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    work = [asyncio.create_task(_heed(server, service, ended))]
    work += [asyncio.create_task(follow(service, newer, every_s, say))] if newer is not None else []
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(TICK_S / 10)
        host, port = listening.getsockname()[:2]
        say(f"it answers at http://{f'[{host}]' if ':' in host else host}:{port}/invocations, until Ctrl-C")
        await asyncio.wait([serving, *work], return_when=asyncio.FIRST_COMPLETED)
        if not ended and not serving.done():
            raise StorageError(f"the server stopped by itself ({next(task for task in work if task.done())}); start it again")
        await serving
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        batcher.close()


def _config(service: Service) -> uvicorn.Config:
    class Protocol(PunctualProtocol):
        receive_s = service.limits.receive_s

    return uvicorn.Config(
        make_app(service),
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_S,
        limit_concurrency=service.limits.connections,
        timeout_graceful_shutdown=int(service.limits.drain_s) or 1,
    )


async def _heed(server: uvicorn.Server, service: Service, ended: Sequence[signal.Signals]) -> None:
    """Ends the server when a signal came. Stays until it is cancelled, so that Ctrl-C shortens what SIGTERM has begun."""
    while not ended:
        await asyncio.sleep(TICK_S)
    service.ending = server.should_exit = True
    while signal.SIGINT not in ended:
        await asyncio.sleep(TICK_S)
    await asyncio.sleep(HASTE_S)
    server.force_exit = True
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(service.limits.drain_s)
