"""Looks in the ledger: counted for each split and model, found again, finished after a kill, never two with one number."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recompress.benchmarks import Example
from recompress.data.prepare import _write_parquet
from recompress.errors import InputError, IntegrityError
from recompress.gate.levels import level_of, next_level
from recompress.integrity.digest import sha256_directory
from recompress.ledger import Ledger
from recompress.records import DatasetRef, Selection, Trial
from tasks.ledger.looks import (
    Named,
    check_looks,
    history_of,
    look_key,
    named_finalists,
    record_result,
    split_digest,
    take_look,
)
from tasks.steps.finalists import name_finalists, names_in_order, to_be_judged
from tasks.steps.judge import Champion
from tests.gate.cases import verdict
from tests.ledger.stores import where

__all__ = ["where"]
SPLIT, FIRST, OTHERS = "b" * 64, ("first",), ("others",)


def key(number: int) -> str:
    return f"{number:064x}"


def take(ledger: Ledger, number: int, ladders: tuple[str, ...] = FIRST, model: str = "ner", split: str = SPLIT, alpha: float = 0.05) -> Any:
    return take_look(ledger, key=key(number), model=model, split=split, candidate_sha256=key(number), ladders=ladders, alpha=alpha)


def test_a_look_is_recorded_once_and_found_again_with_what_came_out(where: Path | str) -> None:
    ledger = Ledger(where)
    first = take(ledger, 1)
    assert (first.look.number, first.look.level, first.proven) == (1, level_of([1], 0.05), None)
    assert take(ledger, 1) == first
    record_result(ledger, first.look, verdict(), proven=False)
    record_result(ledger, first.look, verdict(), proven=True)  # the first result stands
    assert take(ledger, 1) == first._replace(proven=False)
    assert len(ledger.entries("test-look")) == len(ledger.entries("test-look-result")) == 1
    second = take(ledger, 2)
    assert (second.look.number, second.look.steps) == (2, {"first": 2})
    record_result(ledger, second.look, verdict(), proven=True)
    assert take(ledger, 3).look.steps == {"first": 2}
    assert ledger.entries("test-look-result")[-1].body["verdict"] == verdict().digest
    ledger.verify()


def test_another_split_or_another_model_has_a_budget_of_its_own(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for number in range(5):
        take(ledger, number)
    assert take(ledger, 10).look.number == 6
    assert take(ledger, 11, split="c" * 64).look.number == 1
    assert take(ledger, 12, model="other").look.level == level_of([1], 0.05)
    assert [past.look.number for past in history_of(ledger, "ner", SPLIT)] == [1, 2, 3, 4, 5, 6]


def test_a_ledger_from_before_looks_were_counted_begins_with_none(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append("variant-measured", {"recipe": "r", "model": "ner"}, actor="ada")
    ledger.append("verdict", {"candidate": "int8", "passed": False}, actor="ada")
    assert history_of(ledger, "ner", SPLIT) == []
    assert take(ledger, 1).look.number == 1


def test_no_later_policy_has_more_than_the_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert take(ledger, 1, alpha=0.01).look.budget == 0.01
    assert take(ledger, 2, alpha=0.1).look.budget == 0.01
    assert take(ledger, 3, alpha=0.005).look.budget == 0.005


def _many(where: Path | str, numbers: range) -> list[int]:
    ledger = Ledger(where, timeout=60)
    return [take(ledger, number, OTHERS).look.number for number in numbers]


def test_runs_at_once_never_take_one_number_or_one_step(where: Path | str) -> None:
    Ledger(where)
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        taken = [number for numbers in pool.map(_many, [where] * 4, [range(10 * i, 10 * i + 10) for i in range(4)]) for number in numbers]
    assert sorted(taken) == list(range(1, 41))
    looks = [past.look for past in history_of(Ledger(where), "ner", SPLIT)]
    assert sorted(look.steps["others"] for look in looks) == list(range(1, 41))
    assert sum(look.level for look in looks) <= 0.025


def _killed(where: Path | str, *, committed: bool) -> None:
    ledger = Ledger(where)
    if committed:
        take(ledger, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    with ledger.transaction() as writer:
        writer.append("test-look", {"key": key(1), "model": "ner", "split": SPLIT, "content": take_body()}, actor="ada")
        os.kill(os.getpid(), signal.SIGKILL)


def take_body() -> dict[str, Any]:
    from recompress.gate.levels import next_look

    return next_look([], key=key(1), model="ner", split=SPLIT, candidate_sha256=key(1), ladders=FIRST, alpha=0.05).as_json()


@pytest.mark.parametrize("committed", [True, False])
def test_a_run_that_is_killed_behind_its_look_has_had_it_and_may_finish_it(tmp_path: Path, committed: bool) -> None:
    place = tmp_path / "ledger.db"
    Ledger(place)
    child = get_context("fork").Process(target=_killed, args=(place,), kwargs={"committed": committed})
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    ledger = Ledger(place)
    assert len(history_of(ledger, "ner", SPLIT)) == committed
    if committed:
        assert take(ledger, 2).look.steps == {"first": 2}, "what is not known yet counts as refused"
        again = take(ledger, 1)
        assert (again.look.number, again.look.level, again.proven) == (1, level_of([1], 0.05), None)
        record_result(ledger, again.look, verdict(), proven=True)
        assert next_level(history_of(ledger, "ner", SPLIT), FIRST, 0.05) == level_of([1], 0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "1" * 64}, "another look than the one"),
        ({"content": {}}, "holds no look"),
        ({"content": take_body() | {"level": "much"}}, "holds no look: level"),
    ],
)
def test_a_look_that_says_something_else_inside_cannot_be_recorded(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    body = {"key": key(1), "model": "ner", "split": SPLIT, "content": take_body()}
    ledger.append("test-look", body, actor="ada")
    with pytest.raises(InputError, match=message):
        ledger.append("test-look", body | change, actor="ada")
    with pytest.raises(InputError, match="a look is proven or refused"):
        ledger.append("test-look-result", {"key": key(1), "model": "ner", "split": SPLIT, "outcome": "maybe"}, actor="ada")


def test_a_remembered_verdict_whose_look_the_ledger_does_not_hold_is_not_believed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    look = take(ledger, 1).look
    good = verdict().model_copy(update={"look": look})
    check_looks(ledger, [good], "ner", SPLIT)
    for other in (look.model_copy(update={"level": 0.05}), look.model_copy(update={"key": "1" * 64})):
        with pytest.raises(IntegrityError, match="names look 1 at the test split, which the ledger does not hold"):
            check_looks(ledger, [good, good.model_copy(update={"look": other})], "ner", SPLIT)


def test_what_makes_two_looks_the_same() -> None:
    usual = ("ner", SPLIT, "p" * 64, [("c", "1"), ("b", "2")])
    assert look_key(*usual) == look_key(*usual)
    others = [
        ("x", *usual[1:]),
        ("ner", "c" * 64, *usual[2:]),
        (*usual[:2], "q" * 64, usual[3]),
        (*usual[:3], [("c", "1"), ("b", "3")]),
        (*usual[:3], usual[3][:1]),
    ]
    assert len({look_key(*cast(Any, other)) for other in [usual, *others]}) == 6


def dataset(folder: Path, rows: list[Example], train: str = "x") -> DatasetRef:
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        _write_parquet(rows if split == "test" else [Example((f"{train} {split}",), ("a",), "east")], folder / f"{split}.parquet", grouped=False)
    return DatasetRef(
        name="d",
        benchmark="text-classification",
        uri=str(folder),
        sha256=sha256_directory(folder),
        md5="m",
        labels=("a", "b"),
        slices=("east", "west"),
        rows={},
    )


def test_a_test_split_is_known_by_its_text_whatever_surrounds_it(tmp_path: Path) -> None:
    rows = [Example(("one",), ("a",), "east"), Example(("two",), ("b",), "west"), Example(("three",), ("b",), "west")]
    usual = dataset(tmp_path / "usual", rows)
    assert split_digest(usual) == split_digest(dataset(tmp_path / "reordered", rows[::-1]))
    assert split_digest(usual) == split_digest(dataset(tmp_path / "other train", rows, train="y"))
    assert split_digest(usual) == split_digest(usual.model_copy(update={"slices": ("west",), "name": "e"})), "a choice of slices is no fresh data"
    assert split_digest(usual) != split_digest(dataset(tmp_path / "other", [*rows[:2], Example(("four",), ("b",), "west")]))
    (tmp_path / "usual" / "test.parquet").write_bytes(b"x")
    with pytest.raises(IntegrityError):
        split_digest(usual)


def trial(name: str, place: int | None, reason: str = "") -> Trial:
    return Trial(name=name, sha256=f"{sum(map(ord, name)):064x}", score=0.8, size_bytes=1.0, latency_ratio=1.0, place=place, reason=reason)


SELECTION = Selection(examples=100, trials=(trial("large", 2), trial("bad", None, "loss-too-large"), trial("safe", 1)))


def named_by(ledger: Ledger, data: DatasetRef, selection: Selection, champion: Champion | None = None, lost: bool = False) -> Named:
    """``name_finalists`` with a step that remembers ``selection``, or has ``lost`` what it remembered."""
    register, recipe = SimpleNamespace(model="ner"), SimpleNamespace(benchmark="text-classification", name="r")
    recipe.register_ = register
    policy = SimpleNamespace(sha256="p" * 64, as_json=dict)
    run = SimpleNamespace(ledger=ledger, plan=SimpleNamespace(recipe=recipe, policy=policy, sha256="q" * 64))
    run.step = lambda *_args, **_more: {"selection": selection.as_json()}
    run.known = lambda _step, key: None if lost or ledger.last("finalists-named", key=key) is None else {}

    def note(kind: str, noted: str, body: dict[str, Any]) -> None:
        if ledger.last(kind, key=noted) is None:
            ledger.append(kind, {"key": noted, **body}, actor="ada")

    run.note = note
    return name_finalists.fn(cast(Any, run), data, cast(Any, None), [], [], champion or Champion())


def test_what_a_champion_was_chosen_by_is_found_again_and_named_anew_where_it_was_lost(tmp_path: Path) -> None:
    """The champion that came of a choice may be a variant itself, so that dev says something else today."""
    ledger, data = Ledger(tmp_path / "ledger.db"), dataset(tmp_path / "data", [Example(("one",), ("a",), "east")])
    first = named_by(ledger, data, SELECTION, Champion("1"))
    tags = {"recompress.trial": first.evidence, "recompress.judged_against": "1"}
    today = SELECTION.model_copy(update={"trials": (trial("large", 1), SELECTION.trials[1], trial("safe", 2))})
    for known in ({}, {"recompress.named_in": first.key}):
        assert named_by(ledger, data, SELECTION, Champion("2", None, tags | known)) == first
    of_other_code = {"recompress.judged_against": "7", "recompress.named_in": first.key}
    assert named_by(ledger, data, SELECTION, Champion("2", None, tags | of_other_code)) == first
    anew = named_by(ledger, data, today, Champion("2", None, tags | {"recompress.named_in": first.key}), lost=True)
    assert anew.key != first.key
    assert ledger.last("finalists-named", key=anew.key).body["content"] == names_in_order(today)  # type: ignore[union-attr]
    other = tags | {"recompress.trial": "0" * 64, "recompress.named_in": first.key}
    assert named_by(ledger, data, today, Champion("2", None, other)).key == anew.key, "another evidence is another choice"


def test_finalists_stand_in_the_ledger_and_remembered_ones_must_be_those(tmp_path: Path) -> None:
    ledger, data = Ledger(tmp_path / "ledger.db"), dataset(tmp_path / "data", [Example(("one",), ("a",), "east")])
    named = named_by(ledger, data, SELECTION)
    assert named_finalists(ledger, named.key) == (trial("safe", 1).sha256, trial("large", 2).sha256)
    assert ledger.last("finalists-named").body["content"] == names_in_order(SELECTION)  # type: ignore[union-attr]
    assert named_by(ledger, data, SELECTION) == named
    assert len(ledger.entries("finalists-named")) == 1
    swapped = SELECTION.model_copy(update={"trials": (trial("large", 1), SELECTION.trials[1], trial("safe", 2))})
    with pytest.raises(IntegrityError, match="the remembered finalists are not those that the ledger names"):
        named_by(ledger, data, swapped)
    with pytest.raises(IntegrityError, match="no record of who was to be judged"):
        named_finalists(ledger, "0" * 64)


def test_baseline_finalists_and_champion_answer_the_test_split_and_nobody_else() -> None:
    from recompress.records import ModelRef

    models = {name: ModelRef(name=name, kind="variant", uri="u", sha256=trial(name, None).sha256) for name in ("baseline", "large", "bad", "safe", "champion")}
    variants = [models["large"], models["bad"], models["safe"]]
    named = Named("k", SPLIT, "e", SELECTION)
    outside = Champion("1", models["champion"].sha256, {}, (models["champion"],))
    assert [m.name for m in to_be_judged(models["baseline"], variants, named, Champion())] == ["baseline", "large", "safe"]
    assert [m.name for m in to_be_judged(models["baseline"], variants, named, outside)] == ["baseline", "large", "safe", "champion"]
    inside = replace(outside, sha256=models["bad"].sha256, models=())
    assert [m.name for m in to_be_judged(models["baseline"], variants, named, inside)] == ["baseline", "large", "bad", "safe"], "it has to be compared with"
