"""What others read without knowing this project: the gate's verdict as a test result, the promotion as a verification summary, and each in a Sigstore bundle.

Sources: in-toto's predicate Test Result v0.1 (in-toto.io/attestation/test-result/v0.1), SLSA's Verification Summary v1 (slsa.dev/verification_summary/v1), whose
levels may be names of one's own but none that begins with ``SLSA_``, and the Sigstore bundle v0.3 with the hint of a public key, without a transparency log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from recompress.evidence.dossier import Story
from recompress.evidence.provenance import STATEMENT_TYPE, envelope, statement
from recompress.integrity.digest import FileEntry, sha256_json
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.integrity.signing import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

RESULT_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY_TYPE = "https://slsa.dev/verification_summary/v1"
SIGSTORE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
VERIFIER = "urn:recompress:gate"
LEVEL = "RECOMPRESS_PROMOTED"
"""Passed the gate under the policy that is named, and was promoted as the ledger records it. It says nothing of SLSA's levels."""
STATEMENTS = ("statement", "test-result", "verification-summary")
"""Each stands there as ``NAME.json``, signed as ``NAME.dsse.json``, and as ``NAME.sigstore.json``. Bundles of earlier versions hold the first two of the first."""


def signed_documents(story: Story, key: Ed25519PrivateKey) -> dict[str, dict[str, Any]]:
    """Every statement with its envelopes, by the name of its file."""
    provenance, result = statement(story), test_result(story)
    inputs = {"statement.dsse.json": envelope(provenance, key), "test-result.dsse.json": envelope(result, key)}
    statements = dict(zip(STATEMENTS, (provenance, result, verification_summary(story, inputs)), strict=True))
    documents: dict[str, dict[str, Any]] = {}
    for name, value in statements.items():
        signed = envelope(value, key)
        documents |= {f"{name}.json": value, f"{name}.dsse.json": signed, f"{name}.sigstore.json": sigstore_bundle(signed, key.public_key())}
    return documents


def test_result(story: Story) -> dict[str, Any]:
    """What the gate checked. Its subjects are the files that were measured: those of the model directory."""
    verdict = story.dossier.verdict
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects(file for file in story.files if file.path.startswith(f"{MODEL_FOLDER}/")),
        "predicateType": RESULT_TYPE,
        "predicate": {
            "result": "PASSED" if verdict.passed else "FAILED",
            "configuration": [
                {"name": "policy", "digest": {"sha256": verdict.policy_sha256}},
                {"name": "data", "digest": {"sha256": verdict.dataset_sha256}},
            ],
            "passedTests": [finding.check for finding in verdict.findings if finding.passed],
            "warnedTests": [],
            "failedTests": [finding.check for finding in verdict.findings if not finding.passed],
        },
    }


def verification_summary(story: Story, inputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """That the version was verified and promoted: by what, when, under which policy. ``inputs`` are the envelopes that it rests on, by name."""
    policy = str(story.origin.plan.policy_sha256)
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects(story.files),
        "predicateType": SUMMARY_TYPE,
        "predicate": {
            "verifier": {"id": VERIFIER},
            "timeVerified": story.committed.time,
            "resourceUri": resource(story.plan.model, story.version),
            "policy": {"uri": f"urn:recompress:policy:{policy}", "digest": {"sha256": policy}},
            "inputAttestations": [{"uri": name, "digest": {"sha256": sha256_json(document)}} for name, document in inputs.items()],
            "verificationResult": "PASSED",
            "verifiedLevels": [LEVEL],
        },
    }


def subjects(files: Iterable[FileEntry]) -> list[dict[str, Any]]:
    return [{"name": file.path, "digest": {"sha256": file.sha256}} for file in files]


def resource(model: str, version: str) -> str:
    """The version as the registry names it."""
    return f"models:/{model}/{version}"


def sigstore_bundle(signed: dict[str, Any], key: Ed25519PublicKey) -> dict[str, Any]:
    """An envelope as Sigstore's tools read it. The hint is the sha256 of the key's PEM, as in the OpenSSF signature."""
    return {"mediaType": SIGSTORE_TYPE, "verificationMaterial": {"publicKey": {"hint": key_id(key)}, "tlogEntries": []}, "dsseEnvelope": signed}
