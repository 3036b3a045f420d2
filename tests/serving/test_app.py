"""A real server over HTTP: what is asked is answered, what is too much or no text is refused in a line, and afterwards the server answers as before."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import math
from collections.abc import Iterator

import pytest

from recompress.serving.limits import Limits
from recompress.serving.loaded import Loaded
from tests.serving.servers import JSON, Running, running, told

TEXTS = ["asha alikwenda nairobi .", "", "leo juma otieno cheza kisumu na bibi"]
SECRET = "xyzzy-4711"


@pytest.fixture(scope="module")
def server(int8: Loaded) -> Iterator[Running]:
    with running(int8) as server:
        yield server


def test_an_answer_is_what_the_predictor_says(server: Running, int8: Loaded) -> None:
    answer = server.ask({"inputs": TEXTS})
    assert (answer.status, answer.headers["content-type"], answer.headers["x-model-version"]) == (200, "application/json", "1")
    assert answer.json == {"predictions": json.loads(json.dumps(int8.predictor(TEXTS)))}
    assert server.ask({"inputs": []}).json == {"predictions": []}


def test_half_a_character_is_a_lost_one(server: Running) -> None:
    halves = server.ask(b'{"inputs": ["kula \\ud83d leo", "\\ude00"]}')
    assert halves.status == 200
    assert halves.json == server.ask({"inputs": ["kula \ufffd leo", "\ufffd"]}).json


HOSTILE = {
    "ten megabytes": (json.dumps({"inputs": ["a" * 10_000_000]}).encode(), JSON, 413),
    "100,000 rows": (json.dumps({"inputs": ["a"] * 100_000}).encode(), JSON, 413),
    "a long row": (json.dumps({"inputs": ["a" * 20_001]}).encode(), JSON, 413),
    "a number": (b'{"inputs": [3]}', JSON, 400),
    "null": (b'{"inputs": [null]}', JSON, 400),
    "a boolean": (b'{"inputs": [true]}', JSON, 400),
    "nested": (b'{"inputs": [["a"]]}', JSON, 400),
    "deep": (b"[" * 10_000, JSON, 400),
    "1e400": (b'{"inputs": [1e400]}', JSON, 400),
    "10,000 digits": (b'{"inputs": [' + b"9" * 10_000 + b"]}", JSON, 400),
    "NaN": (b'{"inputs": [NaN]}', JSON, 400),
    "no UTF-8": (b'{"inputs": ["\xff"]}', JSON, 400),
    "nothing": (b"", JSON, 400),
    "CSV": (b"text\na\n", {"Content-Type": "text/csv"}, 415),
    "no kind": (b'{"inputs": ["a"]}', {}, 415),
    "Latin-1": (b'{"inputs": ["a"]}', {"Content-Type": "application/json; charset=latin-1"}, 415),
    "gzip": (gzip.compress(b'{"inputs": ["a"]}'), JSON | {"Content-Encoding": "gzip"}, 415),
}


REASONS = {"ten megabytes": "the body has 10,000,016 bytes", "100,000 rows": "100,000 rows", "a long row": "row 1 has 20,001 characters"}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_too_much_or_no_text_is_refused_in_a_line(server: Running, name: str) -> None:
    body, headers, status = HOSTILE[name]
    answer = server.ask(body, headers)
    assert answer.status == status, answer.body
    assert set(answer.json) == {"error_code", "message"}
    message = answer.json["message"]
    assert REASONS.get(name, "") in message, message
    assert "\n" not in message
    assert not any(sign in message for sign in ("Traceback", ".py", "/home", "/tmp", "Error"))
    assert server.ask({"inputs": ["a"]}).status == 200
    assert server.metric(f'recompress_requests_total{{code="{status}"}}') >= 1


def test_a_body_without_a_length_is_stopped_where_it_is_too_large(server: Running) -> None:
    """Sent in pieces, so that nobody knows beforehand how large it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/invocations", iter([b" " * 100_000] * 15), JSON, encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 413
    assert "bytes and more, and this server takes 1,048,576 at most" in json.loads(response.read())["message"]
    connection.request("GET", "/ping")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    "method, path, status", [("GET", "/invocations", 405), ("DELETE", "/invocations", 405), ("POST", "/health", 405), ("GET", "/", 404), ("GET", "/docs", 404)]
)
def test_another_method_or_path_is_told_what_there_is(server: Running, method: str, path: str, status: int) -> None:
    answer = server.ask(b"", {}, method, path)
    assert answer.status == status
    assert "POST /invocations" in answer.json["message"]
    assert ("allow" in answer.headers) == (status == 405)


def test_the_paths_of_mlflows_server_are_here(server: Running) -> None:
    assert (server.get("/ping").status, server.get("/ping").body) == (200, b"\n")
    assert server.get("/version").status == 200
    health = server.get("/health").json
    assert (health["status"], health["model"], health["version"], health["refused"]) == ("ok", "toy", "1", None)


def test_the_metrics_count_what_was_asked(server: Running) -> None:
    before = {name: server.metric(name) for name in ("recompress_rows_total", "recompress_request_seconds_count")}
    server.ask({"inputs": TEXTS})
    after = {name: server.metric(name) - count for name, count in before.items()}
    assert after == {"recompress_rows_total": len(TEXTS), "recompress_request_seconds_count": 1}
    text = server.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert f'recompress_model_info{{manifest_sha256="{"1" * 64}",model="toy",version="1"}} 1.0' in text.body.decode()
    assert server.metric("process_resident_memory_bytes") > 0
    assert math.isnan(server.metric("recompress_alias_looked_at_timestamp_seconds")), "nobody looks"


def test_a_model_that_fails_on_a_text_tells_nobody_what_stood_in_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    loaded = told(asks_alone=False)
    with running(loaded) as server:
        answer = server.ask({"inputs": [SECRET, "fail"]})
        assert answer.status == 500
        assert answer.json == {"error_code": "INTERNAL_SERVER_ERROR", "message": "the model failed on row 2; the server's log names the error"}
        assert server.ask({"inputs": [SECRET]}).status == 200
        assert server.metric("recompress_model_failures_total") == 1
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_nothing_that_was_asked_is_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for body in ({"inputs": [SECRET]}, {"inputs": [SECRET, 3]}, {SECRET: 3}):
        server.ask(body)
    server.ask(f'{{"inputs": ["{SECRET}"'.encode())
    assert SECRET not in caplog.text + " ".join(server.said)


def test_an_answer_that_is_no_number_is_no_answer() -> None:
    loaded = told(label=float("nan"))
    with running(loaded) as server:
        assert server.ask({"inputs": ["a"]}).status == 500


def test_more_connections_than_it_holds_are_told_so() -> None:
    with running(told(), Limits(connections=2)) as server:
        first = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        first.request("GET", "/ping")
        assert first.getresponse().read() == b"\n"
        assert server.get("/ping").status == 503
        first.close()
        server.until(lambda: server.get("/ping").status == 200)
