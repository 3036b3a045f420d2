"""Another version takes over without a request lost, and only when it could; until then the one before it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest

from recompress.errors import IntegrityError
from recompress.serving.loaded import Loaded
from tests.serving.servers import Answer, Told, running, told


class Place:
    """What an alias names: nothing new, a version, or something that is refused."""

    def __init__(self) -> None:
        self.next: Loaded | Exception | None = None
        self.looks = 0

    def newer(self) -> Loaded | None:
        self.looks += 1
        found, self.next = self.next, self.next if isinstance(self.next, Exception) else None
        if isinstance(found, Exception):
            raise found
        return found


def test_a_version_takes_over_while_requests_run_and_none_is_lost_or_mixed() -> None:
    place, answers, stop = Place(), list[Answer](), threading.Event()
    with running(told(label="old"), newer=place.newer) as server:

        def client() -> None:
            while not stop.is_set():
                answers.append(server.ask({"inputs": ["a", "b", "c"]}))

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        server.until(lambda: len(answers) > 40)
        place.next = told(version="2", label="new")
        server.until(lambda: answers[-1].headers.get("x-model-version") == "2")
        count = len(answers)
        server.until(lambda: len(answers) > count + 40)
        stop.set()
        for thread in clients:
            thread.join(60)
        assert server.get("/health").json["version"] == "2"
        assert server.metric('recompress_version_changes_total{outcome="served"}') == 1
        assert 'version="1"' not in server.get("/metrics").body.decode()
    assert {answer.status for answer in answers} == {200}
    labels = {"1": "old", "2": "new"}
    assert all({one["label"] for one in answer.json["predictions"]} == {labels[answer.headers["x-model-version"]]} for answer in answers)
    assert any("toy version 2 answers from now on" in line for line in server.said)


def test_who_asked_the_version_before_is_answered_by_it() -> None:
    old, place = told(label="old", waits=True), Place()
    with running(old, newer=place.newer) as server:
        waiting = server.busy(cast(Told, old.predictor), *({"inputs": [text]} for text in "abc"))
        place.next = told(version="2", label="new")
        server.until(lambda: server.get("/health").json["version"] == "2")
        later = server.later({"inputs": ["d"]})
        server.until(lambda: server.metric("recompress_waiting_rows") == 3)
        cast(Told, old.predictor).may.set()
        assert [answer().json["predictions"][0]["label"] for answer in waiting] == ["old"] * 3
        assert later().json["predictions"][0]["label"] == "new"


def refused_for(error: Exception, way_back: Callable[[Place], None]) -> list[str]:
    place = Place()
    with running(told(label="old"), newer=place.newer) as server:
        begun = server.metric("recompress_alias_looked_at_timestamp_seconds")
        assert begun == pytest.approx(time.time(), abs=60)
        place.next = error
        server.until(lambda: server.metric("recompress_alias_refused") == 1)
        health = server.get("/health")
        assert (health.status, health.json["status"], health.json["version"]) == (200, "ok", "1")
        assert type(error).__name__ in health.json["refused"]
        assert "/private" not in health.json["refused"], "whoever asks over HTTP learns no path"
        assert server.ask({"inputs": ["a"]}).json["predictions"][0]["label"] == "old"
        looks = place.looks
        server.until(lambda: place.looks > looks)
        assert server.metric('recompress_version_changes_total{outcome="refused"}') >= 2
        way_back(place)
        server.until(lambda: server.metric("recompress_alias_refused") == 0)
        assert server.get("/health").json["refused"] is None
    return [line for line in server.said if "refused" in line]


def test_a_version_that_is_damaged_is_refused_and_the_one_before_goes_on() -> None:
    def mended(place: Place) -> None:
        place.next = told(version="2")

    [line] = refused_for(IntegrityError("model.onnx in /private/2 has another sha256"), mended)
    assert line == "toy version 1 goes on, because what the alias names is refused: model.onnx in /private/2 has another sha256"


def test_what_nobody_foresaw_ends_no_server_either() -> None:
    def back(place: Place) -> None:
        place.next = None

    [line] = refused_for(OSError("/private: no such file"), back)
    assert "OSError" in line
