"""uvicorn's HTTP, with an end to how long a request may take to arrive: without one, whoever sends half a request holds a connection for ever."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from recompress.serving.refusal import Refusal


class PunctualProtocol(H11Protocol):
    """A connection whose next request has to be here, head and body, some seconds after its first byte; the first one after the connection was made."""

    receive_s = 10.0
    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._expect()
        else:
            self._came()

    def connection_lost(self, exc: Exception | None) -> None:
        self._came()
        super().connection_lost(exc)

    def _expect(self) -> None:
        """Begin to count, where that was not begun."""
        if self._overdue is None:
            self._overdue = self.loop.call_later(self.receive_s, self._give_up)

    def _came(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        """Say that the time is over, where something of a request has come and nothing was answered to it yet; then close."""
        self._overdue = None
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.SEND_RESPONSE:  # half a body: the application waits for the rest
            refusal = Refusal(408, f"the request did not arrive within {self.receive_s:g} s")
            headers = [("content-type", "application/json"), ("content-length", str(len(refusal.body))), ("connection", "close")]
            for event in (h11.Response(status_code=refusal.status, headers=headers), h11.Data(data=refusal.body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
