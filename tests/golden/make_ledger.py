"""Make a golden ledger: one record of every kind, four promotions, a rollback, an approval with a signature, and a signed head.

    python -m tests.golden.make_ledger tests/golden/ledger-1

A golden ledger is made once and kept for ever: it shows that later versions still read and verify what this one wrote. A version that writes anything new makes
another one beside it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.errors import IntegrityError
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.integrity.signing import public_pem
from recompress.ledger import KINDS, Ledger, write_lines
from recompress.ledger.anchor import sign_head
from recompress.promotion import Promoter, PromotionRefused, approve, present_champion, progress_of, propose, reject
from recompress.promotion.states import OPENERS
from recompress.records import ApprovalRule
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory, sha


def make(ledger: Ledger, root: Path, wait: object, key: Ed25519PrivateKey) -> None:
    registry = FolderRegistry(root / "registry")
    promoter = Promoter(ledger, registry, "ada")
    rule = ApprovalRule(required=True, expires_after_hours=24, not_the_author=True, signed=True, signers={"bob": public_pem(key)})

    def proposed(seed: int, asked: ApprovalRule | None = None) -> tuple[str, Path]:
        directory = model_directory(root / str(seed), seed)
        return promoter.propose(*make_plan(directory, present_champion(registry, MODEL), rule=asked)).digest, directory

    ledger.append("policy-recorded", {"policy_sha256": sha("policy"), "recipe": "r", "policy": {"metric": "f1", "confidence": 0.95}}, actor="ada")
    ledger.append("data-refused", {"data": sha("raw"), "checks": ["nfc", "leaks"]}, actor="ada")
    ledger.append("data-accepted", {"data": sha("data"), "waived": {"leaks": "Sätze, die häufig sind: 你好 🙂"}}, actor="ada")
    ledger.append("baseline-trained", {"model": sha("baseline"), "seconds": 54.25, "loss": 1.5e-07}, actor="ada")
    ledger.append("variant-measured", {"model": sha("int8"), "metrics": {"f1": 0.7421, "size_bytes": 23300000, "tiny": 5e-324, "huge": 1e21}}, actor="ada")
    ledger.append("verdict", {"candidate": "int8", "passed": True, "reasons": []}, actor="ada")
    promoter.promote(*proposed(1))
    digest, directory = proposed(2, rule)
    approve(ledger, digest, actor="bob", key=key)
    promoter.promote(digest, directory)
    promoter.rollback(MODEL, reason="it answers in the wrong language")
    stopped, _ = proposed(3, rule)
    reject(ledger, stopped, actor="carol", reason="not before Monday")
    late, _ = proposed(4, rule)
    wait(25)  # type: ignore[operator]
    for act in (lambda: approve(ledger, late, actor="bob", key=key), lambda: cut_off(ledger, root), promoter.recover, lambda: harmed(ledger, registry, root)):
        try:
            act()
        except (Exception, SystemExit) as error:
            print(f"{type(error).__name__}: {error}")  # noqa: T201
    registry.set_champion(MODEL, "2")
    digest, directory = proposed(7)
    try:
        promoter.promote(digest, directory)
    except PromotionRefused as refusal:
        print(refusal)  # noqa: T201
    propose(ledger, make_plan(model_directory(root / "8", 8), None)[0])


def cut_off(ledger: Ledger, root: Path) -> None:
    """A promotion that dies after its intent, in a process of its own."""

    def die(name: str) -> None:
        if name == "promotion:intent-written":
            os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        registry = FolderRegistry(root / "registry")
        promoter = Promoter(ledger, registry, "ada", crash_point=die)
        directory = model_directory(root / "5", 5)
        promoter.promote(promoter.propose(*make_plan(directory, present_champion(registry, MODEL))).digest, directory)
    os.waitpid(child, 0)


def harmed(ledger: Ledger, registry: FolderRegistry, root: Path) -> None:
    """A promotion whose files are changed after the alias has moved."""

    def harm(name: str) -> None:
        if name == "promotion:alias-moved":
            (registry.fetch(MODEL, registry.champion(MODEL) or "") / MODEL_FOLDER / "config.json").write_text("{}")

    promoter = Promoter(ledger, registry, "ada", crash_point=harm)
    directory = model_directory(root / "6", 6)
    try:
        promoter.promote(promoter.propose(*make_plan(directory, present_champion(registry, MODEL))).digest, directory)
    except IntegrityError as error:
        print(error)  # noqa: T201


def main(target: Path) -> None:
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def clock() -> datetime:
        nonlocal now
        now += timedelta(milliseconds=1)
        return now

    def wait(hours: float) -> None:
        nonlocal now
        now += timedelta(hours=hours)

    target = target.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # relative paths only: what is recorded names no machine
        ledger = Ledger(Path("ledger.db"), clock=clock)
        key = Ed25519PrivateKey.generate()
        make(ledger, Path("work"), wait, key)
        head = ledger.verify()
        target.mkdir(parents=True)
        write_lines(ledger.entries(), target / "ledger.jsonl")
        states = {entry.body["plan"]: progress_of(ledger, entry.body["plan"]).state for entry in ledger.entries(*OPENERS)}
        (target / "signed-head.json").write_text(json.dumps(sign_head(key, head), indent=1) + "\n")
        (target / "public.pem").write_text(public_pem(key))
        (target / "states.json").write_text(json.dumps(states, indent=1) + "\n")
        print("missing kinds:", sorted(set(KINDS) - {entry.kind for entry in ledger.entries()}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
