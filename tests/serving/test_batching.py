"""What waits shares a call only where no answer depends on it, and more than may wait is refused."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from recompress.errors import InputError
from recompress.measure.quality import predict
from recompress.runtimes.batches import Batch
from recompress.runtimes.cutting import Cost
from recompress.serving.batching import BATCH_CHARACTERS, BATCH_ROWS, Batcher
from recompress.serving.limits import Limits
from recompress.serving.loaded import Loaded
from recompress.serving.metrics import Metrics
from recompress.serving.refusal import Refusal
from tests.families import examples
from tests.serving.servers import Told, running, told


def asked(work: Callable[[Batcher], Awaitable[Any]], limits: Limits | None = None) -> Any:
    """What work with a batcher gives."""

    async def whole() -> Any:
        batcher = Batcher(limits or Limits(), Metrics())
        try:
            return await work(batcher)
        finally:
            batcher.close()

    return asyncio.run(whole())


def model_of(loaded: Loaded) -> Told:
    return cast(Told, loaded.predictor)


def all_waiting(loaded: Loaded, bodies: list[list[str]]) -> list[Any]:
    """Answers, or errors, of requests that wait all together while the model is at a text before them."""

    async def work(batcher: Batcher) -> Any:
        first = asyncio.create_task(batcher.ask(loaded, ["before"]))
        others = [asyncio.create_task(batcher.ask(loaded, rows)) for rows in bodies]
        await asyncio.sleep(0.05)
        model_of(loaded).may.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    answers: list[Any] = asked(work)
    assert model_of(loaded).calls.pop(0) == ["before"]
    return answers


def calls_for(texts: list[str], *, asks_alone: bool) -> list[list[str]]:
    loaded = told(asks_alone=asks_alone, waits=True)
    answers = all_waiting(loaded, [[text] for text in texts])
    assert [answer["length"] for [answer] in answers] == [len(text) for text in texts], "each gets its own"
    return model_of(loaded).calls


def test_which_rows_share_a_call_is_the_models_own_choice_and_each_call_is_given_back() -> None:
    texts = ["a", "bbbb", "cc"]
    assert calls_for(texts, asks_alone=True) == [[text] for text in texts]
    assert calls_for(texts, asks_alone=False) == [texts]


def test_a_thread_takes_so_much_at_once() -> None:
    assert [len(call) for call in calls_for(["a"] * (BATCH_ROWS + 3), asks_alone=False)] == [BATCH_ROWS, 3]
    long = BATCH_CHARACTERS // 2
    assert [len(call) for call in calls_for(["a" * long] * 3, asks_alone=False)] == [2, 1]
    assert [len(call) for call in calls_for(["a" * (BATCH_CHARACTERS + 1)] * 2, asks_alone=False)] == [1, 1]


def test_what_is_answered_waits_for_nobody_beside_it() -> None:
    loaded = told(asks_alone=True, waits=True)
    model = model_of(loaded)

    async def work(batcher: Batcher) -> None:
        asked = [asyncio.create_task(batcher.ask(loaded, [text])) for text in ("before", "first", "second")]
        await asyncio.sleep(0.05)
        model.stops_at = "second"
        model.may.set()
        assert await asyncio.wait_for(asked[1], 60) == [{"label": "long", "length": 5}]
        assert not asked[2].done()
        model.stops_at = None
        model.may.set()
        await asked[2]

    asked(work)


def test_a_row_that_fails_costs_its_neighbours_nothing() -> None:
    loaded = told(asks_alone=False, waits=True)
    first, failed, last = all_waiting(loaded, [["a"], ["b", "fail"], ["c"]])
    assert [first[0]["length"], last[0]["length"]] == [1, 1]
    assert isinstance(failed, Refusal)
    assert failed.status == 500


def test_a_full_queue_is_a_503_and_who_waits_is_answered() -> None:
    loaded = told(waits=True)
    with running(loaded, Limits(queue=4, rows=4)) as server:
        waiting = server.busy(model_of(loaded), {"inputs": ["first"]}, *[{"inputs": ["a", "b"]}] * 2)
        refused = server.ask({"inputs": ["too much"]})
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.json["message"] == "4 rows wait already, and 4 may; ask again later"
        model_of(loaded).may.set()
        assert [answer().status for answer in waiting] == [200] * 3
        assert server.ask({"inputs": ["again"]}).status == 200
    assert ["too much"] not in model_of(loaded).calls


def test_who_waits_too_long_is_told_so_and_what_nobody_waits_for_is_not_computed() -> None:
    loaded = told(waits=True)
    with running(loaded, Limits(wait_s=0.3)) as server:
        first = server.later({"inputs": ["first"]})
        assert model_of(loaded).begun.wait(60)
        second = server.ask({"inputs": ["second"]})
        assert (second.status, second.headers["retry-after"]) == (503, "5")
        assert "no answer within 0.3 s" in second.json["message"]
        assert first().status == 503
        model_of(loaded).may.set()
        server.until(lambda: server.ask({"inputs": ["third"]}).status == 200)
    assert ["second"] not in model_of(loaded).calls


@pytest.mark.parametrize("in_parallel", [True, False])
def test_threads_answer_at_the_same_time_where_the_runtime_allows_it(in_parallel: bool) -> None:
    loaded = told(waits=True, in_parallel=in_parallel)
    with running(loaded, Limits(threads=2)) as server:
        asked = [server.later({"inputs": [text]}) for text in ("first", "second", "third")]
        server.until(lambda: model_of(loaded).within + server.metric("recompress_waiting_rows") == 3)
        assert model_of(loaded).within == (2 if in_parallel else 1)
        model_of(loaded).may.set()
        assert [answer().status for answer in asked] == [200] * 3


def test_threads_share_what_waits() -> None:
    loaded = told()

    async def work(batcher: Batcher) -> Any:
        batcher._busy = 2  # both are at work
        asked = [asyncio.create_task(batcher.ask(loaded, ["a", "b", "c", "d", "e"]))]
        await asyncio.sleep(0)
        batcher._busy = 0
        return len(batcher._next()), [task.cancel() for task in asked]

    assert asked(work, Limits(threads=2))[0] == 3


@pytest.mark.parametrize("kind", ["int8", "floats"])
def test_who_judges_and_who_serves_put_the_same_batches_to_the_model(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Loaded = request.getfixturevalue(kind)
    predictor, shapes = loaded.predictor, list[tuple[int, ...]]()
    runtime: Any = predictor.runtime
    run = runtime._run

    def looked(batch: Batch) -> Any:
        shapes.append(batch["input_ids"].shape)
        return run(batch)

    def asked_by(ask: Callable[[], Any]) -> tuple[Any, list[tuple[int, ...]]]:
        shapes.clear()
        return ask(), shapes.copy()

    monkeypatch.setattr(runtime, "_run", looked)
    monkeypatch.setattr(runtime, "cost", Cost(call=3, even=10_000, crowd=10_000))
    texts = examples(24)
    rows = [" ".join(example.words) for example in texts]
    features = predictor.benchmark.encode(predictor.tokenizer, texts, predictor.info.labels, predictor.info.max_length)
    answers, by_all = asked_by(lambda: predictor(rows))
    units, judged = asked_by(lambda: predict(predictor.runtime, predictor.benchmark, features))
    told, served = asked_by(lambda: asked(lambda batcher: batcher.ask(loaded, rows), Limits(threads=1)))
    assert by_all == judged == served
    assert len(by_all) == 24 if kind == "int8" else 1 < len(by_all) < 24
    assert told == answers
    assert [answer["words"] for answer in answers] == [list(example.words) for example in texts]
    assert [tuple(answer["tags"]) for answer in answers] == [predictor.benchmark.decide(logits, predictor.info.labels) for logits in units]


@pytest.mark.parametrize("kind", ["int8", "floats"])
def test_twenty_clients_get_the_answers_that_each_text_gets_alone(kind: str, request: pytest.FixtureRequest) -> None:
    loaded: Loaded = request.getfixturevalue(kind)
    texts = [" ".join(example.words) for example in examples(60)]
    alone = {text: json.loads(json.dumps(loaded.predictor([text])[0])) for text in texts}
    wrong: list[Any] = []

    def client(number: int) -> None:
        draw = random.Random(number)
        for _ in range(8):
            rows = draw.sample(texts, draw.randint(1, 4))
            answer = server.ask({"inputs": rows})
            if answer.status != 200 or not all(same(one, alone[row]) for one, row in zip(answer.json["predictions"], rows, strict=True)):
                wrong.append((answer.status, rows, answer.body))

    def same(one: Any, other: Any) -> bool:
        if kind == "int8":
            return bool(one == other)  # to the last digit: no range is shared
        scores = [[entity.pop("score") for entity in json.loads(json.dumps(given))["entities"]] for given in (one, other)]
        return bool(one["tags"] == other["tags"]) and scores[0] == pytest.approx(scores[1], abs=1e-5)

    with running(loaded, Limits(threads=3)) as server:
        clients = [threading.Thread(target=client, args=(number,)) for number in range(20)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(120)
        assert server.metric('recompress_requests_total{code="200"}') == 160
    assert wrong == []


def test_a_tokenizer_is_asked_by_one_thread_at_a_time(int8: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where to cut before it is asked, so that one thread's rule would be another's."""
    predictor, inside, overlaps = int8.predictor, threading.Semaphore(), list[str]()
    tokenizer = predictor.tokenizer

    class Watched:
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            if not inside.acquire(blocking=False):
                overlaps.append("two at once")
                return tokenizer(*arguments, **named)
            time.sleep(0.005)
            try:
                return tokenizer(*arguments, **named)
            finally:
                inside.release()

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    monkeypatch.setattr(predictor, "tokenizer", Watched())
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: predictor(["leo kula"]), range(20)))
    assert overlaps == []
    assert answers == [answers[0]] * 20


@pytest.mark.parametrize("limits", [{"rows": 0}, {"queue": -1}, {"receive_s": 0}, {"rows": 10, "queue": 9}])
def test_a_limit_that_lets_nothing_through_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match="above 0|never fit"):
        Limits(**limits)  # type: ignore[arg-type]
