"""The ledger, believed only when its chain holds and when it is the one whose heads were kept elsewhere: a ledger that was deleted holds by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from recompress.errors import IntegrityError, RecompressError
from recompress.evidence.file_list import read_document
from recompress.ledger import Head, Ledger, NoLedger
from recompress.ledger.anchor import check_head
from recompress.promotion import ModelRegistry, champion_by_ledger
from tasks.ledger.access import ledger_place, open_ledger
from tasks.ledger.keys import trusted_keys


def sound_ledger(root: Path, registry: ModelRegistry, model: str | None = None) -> Ledger | None:
    """The project's ledger, verified; ``None`` where there is none and nothing says that there was one.

    The heads in the project's bundles must lie on the chain, and with ``model`` those that the versions of that model keep. Raises ``LedgerBroken`` for a chain
    that does not hold or was cut, and ``IntegrityError`` for a ledger that is gone or empty while a head of it is kept elsewhere. The registry, which is slow to
    answer, is asked only where one of these questions is open.
    """
    try:
        ledger = open_ledger(root, create=False)
    except NoLedger:
        ledger = None
    if ledger is not None and ledger.head().sequence:
        tags = _tags(registry, model) if model is not None else iter(())
        ledger.verify(anchors=[_parsed(place, head) for place, head in chain(tags, kept_in_bundles(root))])
        return ledger
    check_not_lost(root, registry, model)
    return ledger


def check_not_lost(root: Path, registry: ModelRegistry, model: str | None = None) -> None:
    """Raises ``IntegrityError`` that names who keeps a head of a ledger of which nothing is there."""
    anchor = next(chain(_tags(registry, model), kept_in_bundles(root)), None)
    if anchor is not None:
        place, head = anchor
        number, _, digest = head.partition(":")
        others = "; if another project registered it, choose another name under register" if place.startswith("the tag") else ""
        raise IntegrityError(
            f"the ledger is gone or empty, but {place} names its record {number} ({digest[:12]}…); put back a copy of it, "
            f"or name its place in RECOMPRESS_LEDGER (looked for at {ledger_place(root)}){others}"
        )


def check_alias(ledger: Ledger, registry: ModelRegistry, model: str) -> None:
    """Raises ``IntegrityError`` when nothing has the alias of a model that has a champion by the ledger."""
    champion = champion_by_ledger(ledger, model)
    if champion is not None and registry.champion(model) is None:
        raise IntegrityError(
            f"nothing has the alias champion of {model}, but by the ledger it is version {champion}; recompress rollback {model} --to {champion} --reason '…' puts it back"
        )


def kept_in_bundles(root: Path) -> Iterator[tuple[str, str]]:
    """The heads that this project has signed in its bundles, with the bundle's place. What is not signed with its key says nothing."""
    keys = trusted_keys(root)
    for folder in sorted((root / "evidence").glob("[!.]*")):
        for key in keys:
            try:
                yield f"evidence/{folder.name}", str(check_head(read_document(folder, "ledger-head.json"), key))
                break
            except RecompressError:
                continue


def _parsed(place: str, head: str) -> Head:
    try:
        return Head.parse(head)
    except IntegrityError as error:
        raise IntegrityError(f"{place} was altered: {error}") from None


def _tags(registry: ModelRegistry, model: str | None) -> Iterator[tuple[str, str]]:
    for (name, version), head in sorted(registry.heads().items()):
        if model in (None, name):
            yield f"the tag of version {version} of {name}", head
