"""What was built from what, as an in-toto statement with SLSA's provenance, in a DSSE envelope that any in-toto tool verifies.

Sources: in-toto Statement v1 (in-toto.io/Statement/v1), SLSA provenance v1.0 (slsa.dev/provenance/v1), DSSE 1.0 (secure-systems-lab/dsse).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import recompress
from recompress.errors import IntegrityError
from recompress.evidence.dossier import Story
from recompress.integrity.digest import canonical_json, sha256_json
from recompress.integrity.signing import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:recompress:recompression:1"


def statement(story: Story) -> dict[str, Any]:
    """The subjects are all files of the version, with the sha256 that the manifest in the ledger stands for."""
    origin, dossier = story.origin.plan, story.dossier
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": file.path, "digest": {"sha256": file.sha256}} for file in story.files],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": dossier.recipe, "policy": dossier.policy, "candidate": origin.candidate, "author": origin.author},
                "internalParameters": {"environment": dossier.environment, "facts": origin.facts},
                "resolvedDependencies": list(_dependencies(story)),
            },
            "runDetails": {
                "builder": {"id": "urn:recompress:builder", "version": {"recompress": recompress.__version__}},
                "metadata": {"invocationId": story.origin.digest},
                "byproducts": [
                    {"name": "verdict", "digest": {"sha256": str(origin.verdict_sha256)}},
                    *({"name": f"evaluation/{role}", "digest": {"sha256": digest}} for role, digest in sorted(dossier.verdict.evaluations.items())),
                    {"name": "ledger", "digest": {"sha256": story.head.hash}, "annotations": {"records": story.head.sequence}},
                    {"name": "plan", "digest": {"sha256": story.progress.digest}},
                ],
            },
        },
    }


def _dependencies(story: Story) -> list[dict[str, Any]]:
    """What it was made from. Digests of directories are those of ``recompress.integrity.digest.sha256_directory``."""
    plan = story.origin.plan
    notes = {
        "data": {"dvc_md5": plan.facts.get("data_md5", ""), "dataset": plan.facts.get("dataset", "")},
        "base": {"model": plan.facts.get("base_model", ""), "revision": plan.facts.get("base_revision", "")},
        "code": {"git_commit": plan.facts.get("git_commit", "")},
        "recipe": {"name": plan.facts.get("recipe", "")},
    }
    dependencies = []
    for name, digest in sorted(plan.digests.items()):
        details = {key: value for key, value in notes.get(name, {}).items() if value}
        dependencies.append({"name": name, "digest": {"sha256": digest}, **({"annotations": details} if details else {})})
    return [*dependencies, {"name": "policy", "digest": {"sha256": str(plan.policy_sha256)}}]


def envelope(statement: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The statement, signed. The payload is its canonical JSON."""
    payload = canonical_json(statement)
    signature = {"keyid": dsse_key_id(key.public_key()), "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode()}
    return {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signature]}


def open_envelope(document: dict[str, Any], key: Ed25519PublicKey) -> bytes:
    """The payload, if ``key`` signed it. Raises ``IntegrityError``."""
    from cryptography.exceptions import InvalidSignature

    try:
        payload = base64.b64decode(document["payload"], validate=True)
        signature = base64.b64decode(document["signatures"][0]["sig"], validate=True)
        if document["payloadType"] != PAYLOAD_TYPE or len(document["signatures"]) != 1:
            raise ValueError
        key.verify(signature, pae(PAYLOAD_TYPE, payload))
    except (InvalidSignature, binascii.Error, ValueError, KeyError, IndexError, TypeError):
        raise IntegrityError(f"the envelope was not signed by the key {key_id(key)[:12]}…") from None
    return payload


def dsse_key_id(key: Ed25519PublicKey) -> str:
    """The key's name as securesystemslib, in-toto's library, computes it: sha256 of the key's canonical JSON. It believes no envelope that names another."""
    return sha256_json({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": key.public_bytes_raw().hex()}})


def pae(kind: str, payload: bytes) -> bytes:
    """What DSSE signs: the pre-authentication encoding of a payload and its type."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def statement_digest(statement: dict[str, Any]) -> str:
    return sha256_json(statement)
