"""What a look leads to, from the world, the pins and the history alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

from recompress.ledger.entry import GENESIS, Entry, Head, make_entry
from recompress.ledger.store import rfc3339
from recompress.watch.decide import Due, decide
from recompress.watch.history import ENDED, RUN, SEEN, WatchHistory, history_of
from recompress.watch.sources import Sight, Source, files_digest

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
BASE = Sight(Source("base", "hub model", "some/encoder", "c1"), digest="A", pinned_digest="A", revision="c1", pins={"revision": "c1"})
RECIPE = Sight(Source("recipe", "recipe", "r.yaml"), digest="dials")
HERE = {"base": "c1", "recipe": "dials"}


class Records:
    """A ledger's records of one recipe, written by hand."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, kind: str, time: datetime = NOW, **body: object) -> Records:
        head = self.entries[-1].head if self.entries else Head(0, GENESIS)
        self.entries.append(make_entry(head, time=rfc3339(time), actor="w", kind=kind, body={"recipe": "toy", **body}))
        return self

    def ran(self, due: Due, *, ended: bool = True) -> Records:
        self.add(RUN, key=due.key, sources=dict(due.sources), after=due.after, proposal=bool(due.moved), superseded=[])
        return self.add(ENDED, key=due.key, outcome="promoted", final=True) if ended else self

    @property
    def history(self) -> WatchHistory:
        return history_of(self.entries, "toy")


def begun() -> Records:
    return Records().ran(Due("toy", HERE))


def moved(digest: str, commit: str, **more: object) -> Sight:
    return replace(BASE, digest=digest, revision=commit, pins={"revision": commit}, **more)  # type: ignore[arg-type]


def due(records: Records, *sights: Sight, settle: float = 0, now: datetime = NOW) -> list[Due]:
    return list(decide("toy", sights or (BASE, RECIPE), records.history, now, timedelta(minutes=settle), ran_before=True).due)


def test_watching_begins_with_what_was_run_before() -> None:
    first = decide("toy", (BASE, RECIPE), Records().history, NOW, timedelta(0), ran_before=True)
    assert (first.due, first.begins) == ((), Due("toy", HERE, why=("it was never run",)))
    never = decide("toy", (BASE, RECIPE), Records().history, NOW, timedelta(0), ran_before=False)
    assert (len(never.due), never.begins) == (1, None)


def test_the_same_world_gives_the_same_key_in_whatever_order_events_came() -> None:
    sightings = [moved("A", "c1"), moved("B", "c2"), moved("C", "c3")]
    keys = set()
    for order in permutations(sightings):
        records = begun()
        for sight in (*order, *order):
            records.add(SEEN, source="base", place="some/encoder", digest=sight.digest, revision=sight.revision)
        keys.add(due(records, moved("C", "c3"), RECIPE)[0].key)
    assert len(keys) == 1


def test_one_proposal_for_one_state_of_the_world_whatever_is_edited_beside_it() -> None:
    records = begun()
    [proposal] = due(records, moved("B", "c2"), RECIPE)
    records.ran(proposal)
    assert due(records, moved("B", "c2"), RECIPE) == []
    policy = Sight(Source("policy", "policy", "p.yaml"), digest="p")
    [edited] = due(records, moved("B", "c2"), RECIPE, policy)
    assert not edited.moved, "a policy that was edited is run with the pin as it is, and what was proposed is not proposed again"
    [newer] = due(records, moved("C", "c3"), RECIPE)
    assert newer.key != proposal.key


def test_an_unpinned_source_settles_from_when_it_was_first_seen_so() -> None:
    edited = replace(RECIPE, digest="other dials")
    records = begun().add(SEEN, NOW - timedelta(minutes=20), source="recipe", place="r.yaml", digest="other dials", revision="")
    records.add(SEEN, NOW - timedelta(minutes=1), source="recipe", place="r.yaml", digest="other dials", revision="again")
    assert due(records, BASE, edited, settle=30) == []
    assert len(due(records, BASE, edited, settle=30, now=NOW + timedelta(minutes=11))) == 1


def test_nothing_is_run_while_a_source_is_away_or_waits_and_is_needed() -> None:
    edited = replace(RECIPE, digest="other dials")
    assert len(due(begun(), BASE, edited)) == 1
    assert due(begun(), Sight(BASE.source, away="503"), edited) == []
    assert due(begun(), Sight(Source("data toy", "data", "raw/toy"), waits="it was changed"), BASE, edited) == []
    origin = Sight(Source("origin of toy", "DVC import", "a repository", "c9"), away="no network")
    now = Records().ran(Due("toy", HERE | {"origin of toy": "c9"}))
    assert len(due(now, origin, BASE, edited)) == 1, "the data itself is pinned here, and a watch would not accept other data"
    assert due(now, origin, BASE, RECIPE) == []
    licence = replace(moved("B", "c2"), waits="its licence changed")
    assert [run.moved for run in due(begun(), licence, edited)] == [()], "the pinned model may be used, the new one may not"


def test_a_run_that_was_cut_off_is_due_again_under_its_own_key() -> None:
    edited = replace(RECIPE, digest="other dials")
    [first] = due(begun(), BASE, edited)
    [again] = due(begun().ran(first, ended=False), BASE, edited)
    assert again.key == first.key
    assert due(begun().ran(first), BASE, edited) == []


def test_going_back_is_run_again_and_not_taken_for_the_run_before() -> None:
    edited = replace(RECIPE, digest="other dials")
    records = begun()
    records.ran(due(records, BASE, edited)[0])
    [back] = due(records, BASE, RECIPE)
    assert back.key not in records.history.runs


def test_two_sources_that_moved_wait_for_each_other() -> None:
    other = replace(moved("B", "d2"), source=Source("baseline", "hub model", "some/classifier", "d1"))
    records = Records().ran(Due("toy", {"base": "c1", "baseline": "d1", "recipe": "dials"}))
    for source, commit, minutes in (("base", "c2", 60), ("baseline", "d2", 5)):
        records.add(SEEN, NOW - timedelta(minutes=minutes), source=source, place="some/model", digest="B", revision=commit)
    assert due(records, moved("B", "c2"), other, RECIPE, settle=30) == []
    [both] = due(records, moved("B", "c2"), other, RECIPE, settle=30, now=NOW + timedelta(minutes=26))
    assert [sight.source.name for sight in both.moved] == ["base", "baseline"]


def test_files_are_known_by_path_and_identity() -> None:
    assert files_digest({"a": "1", "b": "2"}) == files_digest({"b": "2", "a": "1"})
    assert len({files_digest(files) for files in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {})}) == 4
