"""Bundles: what stands in them, who can read them, and that what nobody promoted has none."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError, IntegrityError
from recompress.evidence import BundleBroken, verify_bundle, write_bundle
from recompress.evidence.model_signature import check_signed_files, check_signed_model, model_key, public_model_pem
from recompress.evidence.provenance import PAYLOAD_TYPE, envelope, pae
from recompress.integrity.digest import FileEntry, manifest, sha256_bytes, sha256_json
from recompress.integrity.signing import public_pem
from recompress.ledger import Ledger, read_lines
from tests.evidence.bundles import PUBLIC, Bundled
from tests.evidence.stories import KEY, OTHER, Project
from tests.evidence.tampering import read
from tests.promotion.stage import MODEL


def test_a_bundle_verifies_and_says_what_it_is_about(bundled: Bundled) -> None:
    report = verify_bundle(bundled.bundle, PUBLIC, model=bundled.project.version("2"), model_key=public_model_pem(bundled.key))
    assert (report.model, report.version, report.kind, report.approver) == (MODEL, "2", "promotion", "bob")
    assert report.plan == bundled.plan
    assert report.ledger_head == str(bundled.project.ledger.head())
    assert sum("files of the model" in line for line in report.checked) == 2
    assert verify_bundle(bundled.bundle, PUBLIC, model=bundled.project.version("2") / "artifacts" / "model")


def test_checking_needs_nothing_but_the_bundle_and_the_key(bundled: Bundled, tmp_path: Path) -> None:
    """In a process without network, without home, and without any library that a project needs besides."""
    (tmp_path / "key.pem").write_text(public_pem(KEY))
    code = f"""
import socket, sys
def refuse(*_, **__): raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from pathlib import Path
from recompress.evidence import verify_bundle
from recompress.integrity.signing import read_public_key
print(verify_bundle(Path({str(bundled.bundle)!r}), read_public_key(Path("key.pem"))).version)
sys.exit(bool({{"torch", "transformers", "mlflow", "prefect", "pandas"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr


def test_the_statement_is_what_in_toto_tools_read(bundled: Bundled) -> None:
    statement = read(bundled, "statement.json")
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    assert subjects == {entry.path: entry.sha256 for entry in bundled.story.files}
    assert "artifacts/model/model.safetensors" in subjects
    assert {d["name"] for d in statement["predicate"]["buildDefinition"]["resolvedDependencies"]} == {"data", "base", "code", "recipe", "policy"}
    signed = read(bundled, "statement.dsse.json")
    payload = base64.b64decode(signed["payload"])
    assert payload == (bundled.bundle / "statement.json").read_bytes()
    PUBLIC.verify(base64.b64decode(signed["signatures"][0]["sig"]), pae(PAYLOAD_TYPE, payload))
    assert pae("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"  # DSSE's own example


def test_the_bill_of_materials_is_cyclonedx(bundled: Bundled) -> None:
    bill = read(bundled, "bom.cdx.json")
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", MODEL, "2")
    metrics = {(m["type"], m.get("slice")): m["value"] for m in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    assert (metrics["f1", None], metrics["f1", "yor"]) == ("0.75", "0.74")
    refs = [model["bom-ref"], *(part["bom-ref"] for part in model["components"]), *(c["bom-ref"] for c in bill["components"])]
    assert len(set(refs)) == len(refs)
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": "data"}]
    assert {"data", "base"} <= set(bill["dependencies"][0]["dependsOn"]) <= set(refs)
    assert all(len(h["content"]) == 64 and h["alg"] == "SHA-256" for part in model["components"] for h in part["hashes"])


def test_the_bill_of_materials_follows_the_whole_schema(bundled: Bundled) -> None:
    """CycloneDX's own, of the version that the bill names, for a bill made now and for one that was kept."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    golden = Path(__file__).parent.parent / "golden" / "bundle-1" / "bom.cdx.json"
    for text in ((bundled.bundle / "bom.cdx.json").read_text(), golden.read_text()):
        assert validator.validate_str(text) is None
        for right, wrong in (('"machine-learning-model"', '"model"'), ('"SHA-256"', '"SHA-255"'), ('"specVersion"', '"specversion"')):
            assert right in text
            assert validator.validate_str(text.replace(right, wrong)) is not None, "the schema does look"


def test_people_can_read_it(bundled: Bundled) -> None:
    card, gate, readme = ((bundled.bundle / name).read_text() for name in ("model-card.md", "gate-report.md", "README.md"))
    for digest in (bundled.story.plan.model_sha256, bundled.story.plan.digests["data"], str(bundled.story.plan.verdict_sha256)):
        assert digest in card
    assert "| Approved by | bob |" in card
    assert "loss-against-baseline" in gate
    assert all(f"`{file.name}`" in readme for file in bundled.bundle.iterdir() if file.is_file() and file.name != "README.md" and "bundle" not in file.name)
    assert not any(str(bundled.project.root) in file.read_text() for file in bundled.bundle.iterdir() if file.is_file()), "no path of a machine"


def test_made_again_it_is_the_same_but_for_the_signature_with_chance(bundled: Bundled, tmp_path: Path) -> None:
    bundled.project.promote(3)  # the ledger goes on; the bundle of an earlier promotion does not
    try:
        again = write_bundle(tmp_path / "again", bundled.project.story(bundled.plan), bundled.project.version("2"), KEY, bundled.key)
    finally:
        bundled.story = bundled.project.story(bundled.plan)
    differ = {f.name for f in again.iterdir() if f.read_bytes() != (bundled.bundle / f.name).read_bytes()}
    assert differ == {"model.sig", "bundle.json", "bundle.sig.json"}
    assert verify_bundle(again, PUBLIC)
    with pytest.raises(InputError, match="exists already"):
        write_bundle(again, bundled.story, bundled.project.version("2"), KEY)


def test_the_openssf_signature_is_one_that_its_own_package_verifies(bundled: Bundled, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(bundled.project.version("2") / "artifacts" / "model", model)
    check_signed_model(model, bundled.bundle / "model.sig", bundled.bundle / "model-signing.pub.pem")
    (model / "config.json").write_text('{"seed": 3}')
    with pytest.raises(IntegrityError, match="does not hold"):
        check_signed_model(model, bundled.bundle / "model.sig", bundled.bundle / "model-signing.pub.pem")
    assert bundled.key.stat().st_mode & 0o077 == 0
    with pytest.raises(BundleBroken, match="another model-signing key than the one that was given"):
        verify_bundle(bundled.bundle, PUBLIC, model_key=public_model_pem(model_key(tmp_path / "keys")))


def test_an_openssf_signature_over_fewer_files_or_by_another_key_is_refused_without_the_package_too(bundled: Bundled, tmp_path: Path) -> None:
    model, other = bundled.project.version("2") / "artifacts" / "model", model_key(tmp_path / "keys")
    signature, pem = (bundled.bundle / "model.sig").read_text(), public_model_pem(bundled.key)
    check_signed_files(signature, pem, manifest(model))
    with pytest.raises(IntegrityError, match=r"do not say the same of more\.json"):
        check_signed_files(signature, pem, [*manifest(model), FileEntry("more.json", 2, sha256_bytes(b"{}"))])
    with pytest.raises(IntegrityError, match=r"do not say the same of vocab\.txt"):
        check_signed_files(signature, pem, [entry for entry in manifest(model) if entry.path != "vocab.txt"])
    envelope = json.loads(signature)
    envelope["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(public_model_pem(other).encode()).hexdigest()
    with pytest.raises(IntegrityError, match="was not made by the model-signing key that stands beside it"):
        check_signed_files(json.dumps(envelope), public_model_pem(other), manifest(model))


def test_without_the_package_there_is_a_bundle_without_that_signature(bundled: Bundled, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", bundled.story, bundled.project.version("2"), KEY)
    assert not (bundle / "model.sig").exists()
    assert verify_bundle(bundle, PUBLIC).version == "2"
    assert verify_bundle(bundle, PUBLIC, model=bundled.project.version("2") / "artifacts" / "model")
    with pytest.raises(BundleBroken, match=r"config\.json in .* has sha256"):
        verify_bundle(bundle, PUBLIC, model=bundled.project.version("1") / "artifacts" / "model")
    with pytest.raises(BundleBroken, match="model.sig: there is none"):
        verify_bundle(bundle, PUBLIC, model_key=public_model_pem(bundled.key))


def test_an_approval_that_was_written_by_hand_carries_no_bundle(tmp_path: Path) -> None:
    """Somebody with the database and the signing key, but without the approver's: the bundle shows it."""
    bundled = Bundled(tmp_path)
    forged = Ledger(tmp_path / "forged.db", clock=bundled.project.ledger.clock)
    for entry in bundled.project.ledger.entries():
        body = entry.body
        if entry.kind == "approval":
            body["signature"] = base64.b64encode(OTHER.sign(b"x")).decode()
        forged.append(entry.kind, body, actor=entry.actor)
    bundled.project.ledger = forged
    with pytest.raises(BundleBroken, match="the approval by bob does not carry the signature"):
        write_bundle(tmp_path / "other", bundled.project.story(bundled.plan), bundled.project.version("2"), KEY)


def test_a_rollback_has_evidence_too(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.promote(1)
    project.promote(2)
    for reason, to in (("slow on phones", None), ("and forward", "2"), ("and back again", "1")):
        project.promoter.rollback(MODEL, reason=reason, to=to)
        last = project.ledger.last("promotion-committed")
        assert last is not None
        story = project.story(last.body["plan"])
        bundle = write_bundle(tmp_path / story.name, story, project.version(story.version), KEY)
        assert story.name == f"ner-v{story.version}-rollback-{last.sequence}"
        assert verify_bundle(bundle, PUBLIC, model=project.version(story.version)).kind == "rollback"
        assert reason in (bundle / "model-card.md").read_text()


def test_a_plan_that_was_not_carried_out_has_no_evidence(tmp_path: Path) -> None:
    project = Project(tmp_path)
    plan = project.propose(1)
    from recompress.evidence import tell

    with pytest.raises(InputError, match="was not carried out: it is judged"):
        tell(project.ledger.entries(), plan, tmp_path, project.dossiers[plan])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"policy": {"metric": "f1"}}, "policy.json"),
        ({"recipe": {"name": "tiny", "seed": 1}}, "recipe.json"),
        ({"evaluations": ()}, "evaluations.json"),
        ({"data_check": {"prepared_sha256": sha256_json("something else")}}, "data-check.json"),
    ],
)
def test_evidence_that_was_altered_where_it_was_kept_makes_no_bundle(bundled: Bundled, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    story = dataclasses.replace(bundled.story, dossier=bundled.story.dossier.model_copy(update=change))
    with pytest.raises(BundleBroken) as broken:
        write_bundle(tmp_path / "bundle", story, bundled.project.version("2"), KEY)
    assert broken.value.file == named
    assert list(tmp_path.iterdir()) == []


def test_the_wrong_models_files_are_named(bundled: Bundled, tmp_path: Path) -> None:
    with pytest.raises(BundleBroken, match="recompress-manifest.json"):
        verify_bundle(bundled.bundle, PUBLIC, model=bundled.project.version("1"))
    with pytest.raises(BundleBroken, match=r"config\.json"):
        verify_bundle(bundled.bundle, PUBLIC, model=bundled.project.version("1") / "artifacts" / "model")


def test_the_ledger_inside_is_the_ledger(bundled: Bundled) -> None:
    inside = list(read_lines(bundled.bundle / "ledger.jsonl"))
    assert inside == bundled.project.ledger.entries()[: len(inside)]
    assert inside[-1].kind == "promotion-committed"


def test_an_envelope_of_another_kind_is_not_opened(bundled: Bundled) -> None:
    from recompress.evidence.provenance import open_envelope

    signed = envelope({"a": 1}, KEY)
    assert json.loads(open_envelope(signed, PUBLIC)) == {"a": 1}
    for change in (
        {"payloadType": "text/plain"},
        {"payload": "!!"},
        {"signatures": []},
        {"signatures": signed["signatures"] * 2},
        {"payload": signed["payload"][:-4]},
    ):
        with pytest.raises(IntegrityError, match="was not signed"):
            open_envelope(signed | change, PUBLIC)
