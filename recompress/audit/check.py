"""Does everything still hold? The chain, the heads that were anchored elsewhere, and the registry against the ledger. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from recompress.audit.trouble import Trouble
from recompress.audit.versions import check_files, check_others, check_rows
from recompress.errors import IntegrityError
from recompress.evidence.dossier import committed_plans, origin_of
from recompress.ledger import GENESIS, Entry, Head, Ledger, LedgerBroken, verify
from recompress.promotion.approved import approval_trouble
from recompress.promotion.effects import champion_by_ledger
from recompress.promotion.pins import PIN_KINDS, kept_to_pin, standing_in
from recompress.promotion.registry import HEAD_TAG, MANIFEST_TAG, ModelRegistry, tags_of
from recompress.promotion.states import UNFINISHED, Progress, progress_of
from recompress.watch.silence import silences


@dataclass(frozen=True)
class AuditReport:
    """What was compared, and what does not hold."""

    head: Head
    anchors: int
    models: dict[str, str | None]
    """For each model the champion that the registry names."""
    troubles: tuple[Trouble, ...]

    @property
    def broken(self) -> list[Trouble]:
        return [trouble for trouble in self.troubles if trouble.kind == "broken"]

    def as_json(self) -> dict[str, Any]:
        return {"holds": not self.broken, "records": self.head.sequence, "head": str(self.head), **{k: v for k, v in asdict(self).items() if k != "head"}}


def check_all(ledger: Ledger, registry: ModelRegistry, anchors: Iterable[tuple[str, Head]] = ()) -> AuditReport:
    """Check the whole ledger and every model that it knows. ``anchors`` are heads kept elsewhere, each with the name of its place.

    Raises ``StorageError`` when the ledger or the registry does not answer: what cannot be looked at is not called whole.
    """
    entries = ledger.entries()
    try:
        head = verify(entries)
    except LedgerBroken as error:  # nothing that such a ledger says can be held against the registry
        return AuditReport(
            Head(error.sequence - 1, entries[error.sequence - 2].hash) if error.sequence > 1 else Head(0, GENESIS), 0, {}, (_broken_chain(error),)
        )
    models = sorted({str(e.body["model"]) for e in entries if e.kind in ("promotion-committed", "alias-moved-outside", "promotion-intent", *PIN_KINDS)})
    champions = {model: registry.champion(model) for model in models}
    heads, troubles = [*anchors], list[Trouble]()
    for (model, version), tag in sorted(registry.heads().items()):
        if registry.shared and entries and model not in models:
            continue  # another project's, with a ledger of its own
        try:
            heads.append((f"the tag of version {version} of {model}", Head.parse(tag)))
        except IntegrityError as error:
            troubles.append(Trouble(f"{model} version {version}", "broken", str(error)))
    for model, champion in champions.items():
        troubles += _registry(ledger, entries, registry, model, champion)
    return AuditReport(head, len(heads), champions, (*_anchors(entries, heads), *troubles, *_guards(ledger), *_silences(ledger, entries)))


def _broken_chain(error: LedgerBroken) -> Trouble:
    return Trouble("ledger", "broken", str(error))


def _silences(ledger: Ledger, entries: list[Entry]) -> Iterator[Trouble]:
    """Times in which a watch that had begun did not look: what changed then was seen late, or by nobody."""
    for gap in silences(entries, ledger.clock()):
        yield Trouble(f"watch of {gap.recipe}", "notice", f"{gap.text} (behind ledger record {gap.record.sequence})")


def _guards(ledger: Ledger) -> Iterator[Trouble]:
    missing = ledger.missing_guards()
    if missing:
        yield Trouble(
            "ledger",
            "broken",
            f"its database no longer refuses changes: {', '.join(missing)} was dropped or altered; find out by whom, then `recompress audit guard` makes it anew",
        )


def _anchors(entries: list[Entry], anchors: list[tuple[str, Head]]) -> Iterator[Trouble]:
    for place, head in anchors:
        if head.sequence and not entries:
            yield Trouble("ledger", "broken", f"it is empty, but {place} names its record {head.sequence} ({head.hash[:12]}…); put back a copy of it")
        elif head.sequence > len(entries):
            missing = len(entries) + 1
            yield Trouble("ledger", "broken", f"ledger record {missing}: it is missing; the ledger ends before it, and {place} names record {head.sequence}")
        elif head.sequence and entries[head.sequence - 1].hash != head.hash:
            yield Trouble("ledger", "broken", f"ledger record {head.sequence}: it is not the one that {place} names; the ledger was rewritten")


def _registry(ledger: Ledger, entries: list[Entry], registry: ModelRegistry, model: str, champion: str | None) -> Iterator[Trouble]:
    known = champion_by_ledger(ledger, model)
    begun = _unfinished(ledger, model)
    if begun is not None:
        yield Trouble(model, "notice", f"plan {begun.digest[:12]}… was cut off at {begun.state}; the next promotion of {model} finishes or undoes it")
    expected = begun.plan.expected.version if begun and begun.plan.expected else None
    between = {expected, begun.said("promotion-intent")["version"]} if begun else set()
    if champion != known and champion not in between:
        yield Trouble(
            model, "broken", f"the alias champion names {_named(champion)}, but by the ledger it should be {_named(known)}: it was moved by other means"
        )
    elif champion == known and (outside := _put_there_by_others(entries, model)) is not None:
        yield Trouble(
            model, "broken", f"{_named(champion)} is champion, but nobody promoted it: ledger record {outside.sequence} found it there at {outside.time}"
        )
    promoted = {str(p.said("promotion-committed")["version"]): p for p in committed_plans(entries, model)}
    yield from _pins(entries, model)
    yield from _approvals(entries, model)
    for version, progress in promoted.items():
        yield from _version(registry, entries, version, progress, is_champion=version == champion)
    yield from check_others(registry, entries, model, {*promoted, *between} - {None})


def _pins(entries: list[Entry], model: str) -> Iterator[Trouble]:
    """What is pinned was pinned by those who might, and every promotion kept to the pin of its time."""
    try:
        standing_in(entries, model)
        rules = [entry for entry in entries if entry.kind in (*PIN_KINDS, "policy-recorded")]
        for progress in committed_plans(entries, model):
            intent, version = progress.latest("promotion-intent"), progress.said("promotion-committed")["version"]
            for trouble in kept_to_pin(rules, progress.plan, intent.sequence if intent else 0):
                yield Trouble(f"{model} version {version}", "broken", trouble)
    except IntegrityError as error:
        yield Trouble("ledger", "broken", str(error))


def _approvals(entries: list[Entry], model: str) -> Iterator[Trouble]:
    """Every promotion was approved as its plan asks, by whom that lets, and in time."""
    for progress in committed_plans(entries, model):
        plan = progress.plan
        trouble = approval_trouble(plan.approval, plan.author, progress.digest, progress.entries)
        if trouble is not None:
            yield Trouble(f"{model} version {progress.said('promotion-committed')['version']}", "broken", trouble)


def _version(registry: ModelRegistry, entries: list[Entry], version: str, progress: Progress, *, is_champion: bool) -> Iterator[Trouble]:
    """A version's tags, its rows and its files, against what was committed."""
    model, manifest = progress.plan.model, str(progress.said("promotion-committed")["manifest_sha256"])
    where = f"{model} version {version}"
    tags = registry.tags(model, version)
    if tags is None:
        yield Trouble(where, "broken" if is_champion else "notice", "it was deleted from the registry, and the head that it kept with it")
        return
    origin = origin_of(entries, progress)
    for name, expected in {MANIFEST_TAG: manifest, **tags_of(origin.plan)}.items():
        if tags.get(name) != expected:
            yield Trouble(where, "broken", f"its tag {name} says {_short(tags.get(name))}, the ledger {_short(expected)}")
    yield from _kept_head(entries, where, tags, progress)
    yield from check_rows(registry, version, origin)
    yield from check_files(registry, model, version, [manifest])


def _kept_head(entries: list[Entry], where: str, tags: dict[str, str], progress: Progress) -> Iterator[Trouble]:
    """A promotion ends by leaving its own record on the version, so an earlier head was put there by somebody else, or the promotion was cut off before."""
    if HEAD_TAG not in tags:
        yield Trouble(where, "broken", f"its tag {HEAD_TAG}, which keeps the ledger's head, was removed")
        return
    number, committed = tags[HEAD_TAG].partition(":")[0], progress.entries[-1].sequence
    if number.isdecimal() and int(number) < committed:
        begun = next(entry for entry in reversed(entries) if entry.kind == "promotion-intent")
        kind: Literal["broken", "notice"] = "notice" if begun.body["plan"] == progress.digest else "broken"
        way_out = "the next promotion sets it right" if kind == "notice" else "it was altered"
        yield Trouble(where, kind, f"its tag {HEAD_TAG} names record {int(number)}, its promotion is record {committed}; {way_out}")


def _unfinished(ledger: Ledger, model: str) -> Progress | None:
    intent = ledger.last("promotion-intent", model=model)
    progress = progress_of(ledger, intent.body["plan"]) if intent else None
    return progress if progress is not None and progress.state in UNFINISHED else None


def _put_there_by_others(entries: list[Entry], model: str) -> Entry | None:
    last = next((e for e in reversed(entries) if e.kind in ("promotion-committed", "alias-moved-outside") and e.body["model"] == model), None)
    return last if last is not None and last.kind == "alias-moved-outside" and last.body["registry"] is not None else None


def _short(value: str | None) -> str:
    return "nothing" if value is None else value if len(value) <= 12 else f"{value[:12]}…"


def _named(version: str | None) -> str:
    return f"version {version}" if version else "none"
