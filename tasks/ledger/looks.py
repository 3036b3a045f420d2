"""Looks at test splits, as the ledger keeps them: who was named, which look it was, at what level, and what came out.

A look is recorded before its verdict is reached, and its result after. One that a killed run left without a result counts as refused for whoever looks in between; when
the same comparison comes again, it is finished at the level that was recorded. Looks from before the ledger had records of them are not known, and not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recompress.data.splits import read_split
from recompress.errors import IntegrityError
from recompress.gate.levels import Past, next_look
from recompress.integrity.digest import check_directory, sha256_json
from recompress.ledger import Ledger
from recompress.ledger.store import Reader
from recompress.records import DatasetRef, Look, Selection, Verdict
from tasks.ledger.access import actor


@dataclass(frozen=True)
class Named:
    """The finalists of a run, and the record of the ledger that names them."""

    key: str
    split: str
    """Digest of the test split."""
    evidence: str
    """Digest of everything that they were chosen by."""
    selection: Selection


def split_digest(dataset: DatasetRef) -> str:
    """The digest of the whole test split's texts and labels, in any order and whichever slices a recipe chooses: the same text is the same split, under any name."""
    check_directory(Path(dataset.uri), dataset.sha256)
    return sha256_json(sorted([list(example.words), list(example.labels)] for example in read_split(Path(dataset.uri), "test")))


def look_key(model: str, split: str, policy_sha256: str, compared: Sequence[tuple[str, str]]) -> str:
    """What makes two looks the same: the policy, and the digests of candidate, baseline and champion with those of their predictions."""
    return sha256_json({"model": model, "split": split, "policy": policy_sha256, "compared": [list(pair) for pair in compared]})


def history_of(reader: Reader | Ledger, model: str, split: str) -> list[Past]:
    """All looks at a split for a registered model, in order."""
    looks: dict[str, Look] = {}
    outcomes: dict[str, bool] = {}
    for entry in reader.entries("test-look", "test-look-result", model=model, split=split):
        key = entry.body["key"]
        if entry.kind == "test-look":
            looks.setdefault(key, Look.model_validate(entry.body["content"]))
        else:
            outcomes.setdefault(key, entry.body["outcome"] == "proven")
    return [Past(look, outcomes.get(key)) for key, look in looks.items()]


def take_look(ledger: Ledger, *, key: str, model: str, split: str, candidate_sha256: str, ladders: Sequence[str], alpha: float) -> Past:
    """The look for this comparison: recorded now, or found again with its number, its level and what came out. No two looks get one number."""
    with ledger.transaction() as writer:
        history = history_of(writer, model, split)
        again = next((past for past in history if past.look.key == key), None)
        if again is not None:
            return again
        look = next_look(history, key=key, model=model, split=split, candidate_sha256=candidate_sha256, ladders=ladders, alpha=alpha)
        writer.append("test-look", {"key": key, "model": model, "split": split, "content": look.as_json()}, actor=actor())
    return Past(look, None)


def record_result(ledger: Ledger, look: Look, verdict: Verdict, *, proven: bool) -> None:
    """What came out of a look, once: the first result stands."""
    with ledger.transaction() as writer:
        if writer.last("test-look-result", key=look.key) is None:
            outcome = "proven" if proven else "refused"
            body = {"key": look.key, "model": look.model, "split": look.split, "outcome": outcome, "verdict": verdict.digest, "number": look.number}
            writer.append("test-look-result", body, actor=actor())


def check_looks(ledger: Ledger, verdicts: Sequence[Verdict], model: str, split: str) -> None:
    """Raises ``IntegrityError`` for a verdict whose look the ledger does not know, or knows otherwise: it was not reached here."""
    known = {past.look.key: past.look for past in history_of(ledger, model, split)}
    for verdict in verdicts:
        look = verdict.look
        if look is not None and known.get(look.key) != look:
            raise IntegrityError(
                f"the remembered verdict about {verdict.candidate} names look {look.number} at the test split, which the ledger does not hold so"
            )


def named_finalists(ledger: Ledger, key: str) -> tuple[str, ...]:
    """Digests of the models that were named, in order. Raises ``IntegrityError`` when nobody was."""
    entry = ledger.last("finalists-named", key=key)
    if entry is None:
        raise IntegrityError("the ledger holds no record of who was to be judged before the test split was looked at")
    return tuple(str(model["sha256"]) for model in entry.body["content"]["finalists"])
