"""How a server listens and how it ends."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import time
from contextlib import suppress
from typing import cast

import pytest

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.serving.limits import Limits
from recompress.serving.loaded import load_version
from recompress.serving.protocol import PunctualProtocol
from recompress.serving.server import bound
from tests.serving.servers import Running, Told, running, told

HEAD = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def sent(server: Running, *pieces: bytes) -> bytes:
    """What comes back to bytes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        received = b""
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05)
            while piece := connection.recv(1 << 16):
                received += piece
    return received


def refuses(server: Running) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    "pieces, answer",
    [
        ((), b""),
        ((b"POST /invoca",), b""),
        ((HEAD,), b""),
        ((HEAD, b"X-Slow: 1\r\n", b"X-Slower: 1\r\n"), b""),
        ((HEAD + b"Content-Length: 17\r\n\r\n",), b"HTTP/1.1 408"),
        ((HEAD + b"Content-Length: 17\r\n\r\n", b'{"inp', b"uts"), b"HTTP/1.1 408"),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n", b'{"inp'), b"HTTP/1.1 408"),
        ((HEAD + b"Content-Length: 9000000\r\n\r\n", b" " * 1000), b"HTTP/1.1 413"),
        ((b"\x16\x03\x01\x02\x00\x01",), b""),
        ((b"nonsense\r\n\r\n",), b"HTTP/1.1 400"),
    ],
    ids=["nothing", "half a line", "half a head", "a head in pieces", "no body", "half a body", "half a chunk", "a body that is not wanted", "TLS", "nonsense"],
)
def test_half_a_request_holds_no_connection_for_ever(pieces: tuple[bytes, ...], answer: bytes) -> None:
    with running(told(), Limits(receive_s=1.0)) as server:
        assert sent(server, *pieces).startswith(answer)
        assert server.ask({"inputs": ["a"]}).status == 200


@pytest.mark.parametrize("half", [b"POST /invoca", HEAD + b"Content-Length: 17\r\n\r\n"], ids=["half a head", "no body"])
def test_the_second_request_of_a_connection_has_no_longer_than_the_first(half: bytes) -> None:
    with running(told(), Limits(receive_s=1.0)) as server:
        assert sent(server, b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n", half).startswith(b"HTTP/1.1 200")


def test_who_keeps_a_connection_may_ask_again_later() -> None:
    with running(told(), Limits(receive_s=1.0)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for _ in range(3):
            connection.request("GET", "/ping")
            assert connection.getresponse().read() == b"\n"
            time.sleep(1.3)
        connection.close()


def test_no_half_of_an_answer_waits_for_the_other_half_to_be_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body are two writes; with Nagle's algorithm the second is held back until the client's system acknowledges the first, up to 40 ms later."""
    seen: list[int] = []
    usual = PunctualProtocol.connection_made

    def look(self: PunctualProtocol, transport: asyncio.Transport) -> None:
        seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        usual(self, transport)

    monkeypatch.setattr(PunctualProtocol, "connection_made", look)
    with running(told()) as server:
        assert server.ask({"inputs": ["a"]}).status == 200
    assert seen
    assert all(seen)


def test_sigterm_answers_what_was_asked_and_takes_nothing_new() -> None:
    loaded = told(waits=True)
    with running(loaded) as server:
        asked = server.busy(cast(Told, loaded.predictor), *({"inputs": [text] * 3} for text in "abcde"))
        server.ended.append(signal.SIGTERM)
        server.until(lambda: refuses(server))
        assert server.thread.is_alive()
        cast(Told, loaded.predictor).may.set()
        assert [answer().status for answer in asked] == [200] * 5
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_ctrl_c_does_not_wait_for_a_model_that_never_answers() -> None:
    loaded = told(waits=True)
    with running(loaded, Limits(drain_s=600)) as server:
        asked = server.later({"inputs": ["a"]})
        server.until(cast(Told, loaded.predictor).begun.is_set)
        server.ended += [signal.SIGTERM, signal.SIGINT]
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            asked()
        cast(Told, loaded.predictor).may.set()


def test_a_port_that_is_taken_is_one_line() -> None:
    with (
        running(told()) as server,
        pytest.raises(StorageError, match=f"nothing can listen on 127.0.0.1:{server.port} .* choose another port"),
        bound("127.0.0.1", server.port),
    ):
        pass
    for port in (70_000, -1):
        with pytest.raises(InputError, match="ports go to 65535; choose another port"), bound("127.0.0.1", port):
            pass


def test_a_model_that_opens_but_cannot_answer_takes_nobodys_place(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from recompress.serving import loaded

    for label in (float("nan"), object()):
        monkeypatch.setattr(loaded, "Predictor", lambda _: cast(Told, told(label=label).predictor))  # noqa: B023
        with pytest.raises(IntegrityError, match="toy version 7 can be opened, but does not answer"):
            load_version("toy", "7", "0" * 64, tmp_path)  # type: ignore[arg-type]
