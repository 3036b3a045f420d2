"""Evidence from somebody who holds the project's key and writes the ledger as it suits: every hash and every signature of the project's fits, and still no bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.evidence import BundleBroken, tell, verify_bundle, write_bundle
from recompress.evidence.agreement import records_of
from recompress.evidence.layout import FORMAT
from recompress.integrity.digest import canonical_json, sha256_bytes
from recompress.integrity.model_files import MANIFEST_FILE, write_manifest
from recompress.integrity.signing import public_pem
from recompress.ledger import GENESIS, Entry, Head
from recompress.ledger.entry import make_entry
from recompress.records import ApprovalRule
from tests.evidence.bundles import PUBLIC, Bundled
from tests.evidence.stories import KEY, Project
from tests.evidence.tampering import changed, nest, read, resealed, sealed
from tests.ledger.chains import SAID
from tests.promotion.stage import MODEL

BOB = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)


def rewritten(entries: list[Entry], change: Callable[[str, dict[str, Any]], str | None]) -> list[Entry]:
    """The ledger made anew. ``change`` gets the kind and the body of each record, may alter the body, and may name another actor."""
    chain: list[Entry] = []
    for entry in entries:
        body = entry.body
        actor = change(entry.kind, body) or entry.actor
        chain.append(make_entry(chain[-1].head if chain else Head(0, GENESIS), time=entry.time, actor=actor, kind=entry.kind, body=body))
    return chain


def bundle_of(project: Project, plan: str, change: Callable[[str, dict[str, Any]], str | None], version: str = "1", files: Path | None = None) -> Path:
    files = files or project.version(version)
    story = tell(rewritten(project.ledger.entries(), change), plan, files, project.dossiers[plan])
    return write_bundle(project.root / "forged", story, files, KEY)


def test_an_approval_by_the_author_carries_no_bundle_where_the_rule_asks_for_somebody_else(tmp_path: Path) -> None:
    """However the author spells the name."""
    project = Project(tmp_path)
    plan = project.promote(1, ApprovalRule(required=True, not_the_author=True))
    for author in ("ada", "Ada ", "\uff41da"):

        def approve_oneself(kind: str, body: dict[str, Any], author: str = author) -> str | None:
            body |= {"approver": author} if kind == "approval" else {}
            return author if kind == "approval" else None

        with pytest.raises(BundleBroken, match=f"^ledger.jsonl: {author} approved what ada proposed, and the rule asks for somebody else"):
            bundle_of(project, plan, approve_oneself)
    assert verify_bundle(bundle_of(project, plan, lambda kind, body: None), PUBLIC).approver == "bob"


def test_an_approval_by_somebody_whose_key_is_known_carries_no_bundle_without_the_signature(tmp_path: Path) -> None:
    def without_signature(kind: str, body: dict[str, Any]) -> None:
        if kind == "approval":
            del body["key"], body["signature"]

    project = Project(tmp_path)
    plan = project.promote(1, ApprovalRule(required=True, signers={"bob": public_pem(BOB)}), key=BOB)
    with pytest.raises(BundleBroken, match=r"^ledger\.jsonl: the approval by bob does not carry the signature"):
        bundle_of(project, plan, without_signature)


def test_the_files_of_another_model_carry_no_bundle_though_the_ledger_names_them(tmp_path: Path) -> None:
    """Everything agrees on the files of version 1, and on the digest of the model that was judged as version 2."""
    project = Project(tmp_path)
    project.promote(1)
    plan = project.promote(2)
    [first, second] = [entry.body["manifest_sha256"] for entry in project.ledger.entries("promotion-committed")]

    def other_files(_kind: str, body: dict[str, Any]) -> None:
        if body.get("manifest_sha256") == second:
            body["manifest_sha256"] = first

    with pytest.raises(BundleBroken, match=r"^model-manifest\.json: the model's digest is "):
        bundle_of(project, plan, other_files, files=project.version("1"))


def test_a_version_that_serves_the_model_by_other_code_carries_no_bundle(bundled: Bundled, tmp_path: Path) -> None:
    """The model is the one that was promoted, to the byte; what stands around it was never in the ledger."""
    version = tmp_path / "version"
    shutil.copytree(bundled.project.version("2"), version)
    (version / "served.py").write_text("# and whatever else I like\n")
    (version / MANIFEST_FILE).unlink()
    write_manifest(version)
    forged = (version / MANIFEST_FILE).read_bytes()
    listing = read(bundled, "bundle.json")
    with changed(bundled.bundle / "model-manifest.json", forged):
        listing["files"] = sorted([*(f for f in listing["files"] if f[0] != "model-manifest.json"), ["model-manifest.json", len(forged), sha256_bytes(forged)]])
        with sealed(bundled, listing), pytest.raises(BundleBroken, match=r"^model-manifest\.json: .* was changed, or belongs to another model"):
            verify_bundle(bundled.bundle, PUBLIC)


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("rejection", "promotion-alias-moved"),
        ("promotion-refused", "promotion-judged"),
        ("promotion-rolled-back", "promotion-intent"),
        ("approval", "promotion-judged"),
        ("rollback", "promotion-judged"),
        ("rejection", ""),
    ],
)
def test_a_plan_with_a_record_out_of_its_order_was_not_carried_out(bundled: Bundled, kind: str, before: str) -> None:
    """A rejection between intent and move, or an approval before the judgement, is no step of a promotion, whatever follows on it."""
    own = [entry for entry in bundled.story.chain if entry.body.get("plan") == bundled.plan]
    place = next((number for number, entry in enumerate(own) if entry.kind == before), len(own))
    assert records_of(own, bundled.plan)[-1].kind == "promotion-committed"
    stray = own[0]._replace(kind=kind, body_text=canonical_json({"model": MODEL, **SAID[kind], "plan": bundled.plan}).decode())
    with pytest.raises(BundleBroken, match="was proposed, judged, approved and carried out, in this order"):
        records_of([*own[:place], stray, *own[place:]], bundled.plan)


def test_a_statement_that_names_more_than_the_plan_is_not_the_plans(bundled: Bundled) -> None:
    more = {"name": "more-data", "digest": {"sha256": "0" * 64}}
    nested = ("predicate", "buildDefinition", "resolvedDependencies")
    dependencies = [*read(bundled, "statement.json")["predicate"]["buildDefinition"]["resolvedDependencies"], more]
    with resealed(bundled, "statement.json", nest(*nested, value=dependencies)), pytest.raises(BundleBroken, match=r"^statement\.json: what it was made from"):
        verify_bundle(bundled.bundle, PUBLIC)


def test_a_list_of_another_format_is_not_read_as_this_one(bundled: Bundled) -> None:
    for other in (f"{FORMAT}0", "recompress-evidence/99", ""):
        with sealed(bundled, read(bundled, "bundle.json") | {"format": other}), pytest.raises(BundleBroken, match=r"^bundle\.json: it is of format"):
            verify_bundle(bundled.bundle, PUBLIC)


@pytest.mark.parametrize("name", ["bundle.json", "bundle.sig.json"])
def test_a_list_that_says_the_same_in_other_bytes_was_changed(bundled: Bundled, name: str) -> None:
    data = (bundled.bundle / name).read_bytes()
    twice = b'{"key":"",' if name == "bundle.sig.json" else b'{"format":"",'
    for other in (data + b"\n", data.replace(b'":', b'": ', 1), twice + data[1:]):
        with changed(bundled.bundle / name, other), pytest.raises(BundleBroken, match=f"^{name}: it is not an object in canonical JSON"):
            verify_bundle(bundled.bundle, PUBLIC)
