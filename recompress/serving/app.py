"""What HTTP sees: the paths of MLflow's server, ``/metrics``, and a line of JSON for whatever is refused."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from recompress import __version__
from recompress.serving.batching import Batcher
from recompress.serving.limits import Limits
from recompress.serving.loaded import Loaded
from recompress.serving.metrics import Metrics
from recompress.serving.refusal import Refusal
from recompress.serving.request_body import rows_of

log = logging.getLogger(__name__)
JSON = "application/json"
VERSION_HEADER = "X-Model-Version"
"""In every answer: the version that gave it."""
GONE = 499
"""What is counted for a client that went before it was answered."""


@dataclass
class Service:
    """One server: what answers now, and what is to be said of it."""

    limits: Limits
    metrics: Metrics
    batcher: Batcher
    loaded: Loaded
    refused: str = ""
    """Why what the alias names is not served, where it is not; without paths."""
    ending: bool = False
    begun: float = field(default_factory=time.monotonic)

    def take(self, loaded: Loaded) -> None:
        """Requests that come from now on are answered by this version; those that wait get the answer of the one that they were read for."""
        self.loaded, self.refused = loaded, ""
        self.metrics.takes_over(loaded.model, loaded.version, loaded.manifest_sha256)

    def refuses(self, kind: str) -> None:
        """What the alias names was refused, with an error of this kind; whoever asks over HTTP learns no more, because a line may name paths."""
        self.refused = f"what the alias names was refused ({kind}); the server's own output says why"
        self.metrics.refused.set(1)
        self.metrics.changes.labels("refused").inc()

    @property
    def health(self) -> dict[str, Any]:
        known = {"model": self.loaded.model, "version": self.loaded.version, "manifest_sha256": self.loaded.manifest_sha256}
        state = "ending" if self.ending else "ok"
        return {"status": state, **known, "refused": self.refused or None, "uptime_s": round(time.monotonic() - self.begun, 1)}


def make_app(service: Service) -> Starlette:
    """The ASGI application of a service."""

    async def invocations(request: Request) -> Response:
        begun = time.perf_counter()
        response = await _answered(service, request)
        service.metrics.requests.labels(response.status_code).inc()
        service.metrics.seconds.observe(time.perf_counter() - begun)
        return response

    async def ping(_: Request) -> Response:
        return Response("\n", HTTPStatus.SERVICE_UNAVAILABLE if service.ending else HTTPStatus.OK, media_type=JSON)

    async def health(_: Request) -> Response:
        return Response(json.dumps(service.health), HTTPStatus.SERVICE_UNAVAILABLE if service.ending else HTTPStatus.OK, media_type=JSON)

    async def version(_: Request) -> Response:
        return Response(__version__, media_type="text/plain")

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": service.metrics.content_type})

    pages = {"/ping": ping, "/health": health, "/version": version, "/metrics": metrics}
    routes = [Route("/invocations", invocations, methods=["POST"]), *(Route(path, page, methods=["GET"]) for path, page in pages.items())]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_thing})


async def _answered(service: Service, request: Request) -> Response:
    try:
        loaded = service.loaded
        _check_kind(request)
        rows = rows_of(await _body(request, service.limits), loaded.predictor.columns, service.limits)
        answers = await service.batcher.ask(loaded, rows)
        return Response(_json(answers), media_type=JSON, headers={VERSION_HEADER: loaded.version})
    except Refusal as refusal:
        return _told(refusal)
    except ClientDisconnect:
        return Response(status_code=GONE)
    except Exception as error:
        log.error("a request failed: %s", type(error).__name__)  # no traceback and no message: either may hold what was asked
        return _told(Refusal(500, "the server failed on this request; its log names the error"))


async def _body(request: Request, limits: Limits) -> bytes:
    """Raises ``Refusal`` (413) as soon as it is too large; one that is too slow is the connection's own business."""
    length = int(request.headers.get("content-length", "0"))  # h11 lets through digits alone
    if length > limits.body_bytes:
        raise _too_large(length, limits)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limits.body_bytes:
            raise _too_large(len(body), limits, more=True)
    return bytes(body)


def _too_large(size: int, limits: Limits, *, more: bool = False) -> Refusal:
    """The connection stays, for as long as a request may take: a client that still sends would never read why it was refused."""
    way_out = "send several requests, or start it with --max-bytes"
    return Refusal(413, f"the body has {size:,} bytes{' and more' if more else ''}, and this server takes {limits.body_bytes:,} at most; {way_out}")


def _check_kind(request: Request) -> None:
    """Raises ``Refusal`` (415) for a body that is not said to be JSON in UTF-8, as it is."""
    kind, *parameters = [part.strip().lower() for part in request.headers.get("content-type", "").split(";")]
    if kind != JSON or any(parameter not in ("", "charset=utf-8", 'charset="utf-8"') for parameter in parameters):
        raise Refusal(415, f"send Content-Type: {JSON}, in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "send the body as it is, without a Content-Encoding")


def _json(answers: list[Any]) -> bytes:
    try:
        return json.dumps({"predictions": answers}, allow_nan=False).encode()
    except ValueError:
        raise Refusal(500, "the model's answer is no number") from None


def _told(refusal: Refusal) -> Response:
    return Response(refusal.body, refusal.status, headers=refusal.headers, media_type=JSON)


async def _no_such_thing(request: Request, error: Exception) -> Response:
    """A path or a method that is not here."""
    assert isinstance(error, HTTPException)
    response = _told(Refusal(error.status_code, "POST /invocations; GET /ping, /health, /version and /metrics"))
    response.headers.update(error.headers or {})
    return response
