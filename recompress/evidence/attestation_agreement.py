"""Whether the statements for others say the same as the records, and whether their envelopes hold them.

Bundles of earlier versions hold provenance alone; whatever stands in a bundle is looked at, and a statement stands there with both of its envelopes or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import IntegrityError
from recompress.evidence.attestations import RESULT_TYPE, STATEMENTS, SUMMARY_TYPE, resource, sigstore_bundle, subjects
from recompress.evidence.broken import BundleBroken
from recompress.evidence.file_list import read_document
from recompress.evidence.provenance import open_envelope
from recompress.integrity.digest import FileEntry, canonical_json, sha256_json
from recompress.integrity.model_files import MODEL_FOLDER

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Rows = Iterator[tuple[str, str, Any, Any]]
"""File, what, what it says, what it should say."""


def present(folder: Path) -> tuple[str, ...]:
    """The statements of a bundle. Raises ``BundleBroken`` where some of what this version writes is there, and not all of it."""
    newer = ["statement.sigstore.json", *(f"{name}.{kind}" for name in STATEMENTS[1:] for kind in ("json", "dsse.json", "sigstore.json"))]
    there = [name for name in newer if (folder / name).is_file()]
    if there and len(there) < len(newer):
        missing = next(name for name in newer if name not in there)
        raise BundleBroken(missing, f"it is missing from {folder}, where {there[0]} stands")
    return STATEMENTS if there else STATEMENTS[:1]


def check_envelopes(folder: Path, key: Ed25519PublicKey, statements: Mapping[str, Any]) -> None:
    """Raises ``BundleBroken`` for an envelope that ``key`` did not sign, or that holds another statement than the one beside it."""
    newer = len(statements) > 1
    for name, statement in statements.items():
        file = f"{name}.dsse.json"
        signed = read_document(folder, file)
        try:
            payload = open_envelope(signed, key)
        except IntegrityError as error:
            raise BundleBroken(file, str(error)) from None
        if payload != canonical_json(statement):
            raise BundleBroken(file, f"it holds another statement than {name}.json")
        if newer and read_document(folder, f"{name}.sigstore.json") != sigstore_bundle(signed, key):
            raise BundleBroken(f"{name}.sigstore.json", f"it is not {file} with the hint of this key")


def result_rows(statement: dict[str, Any], verdict: dict[str, Any], files: tuple[FileEntry, ...]) -> Rows:
    """The test result against the verdict."""
    name, predicate = "test-result.json", statement["predicate"]
    yield name, "its kind", statement["predicateType"], RESULT_TYPE
    yield name, "the files", statement["subject"], subjects(file for file in files if file.path.startswith(f"{MODEL_FOLDER}/"))
    yield name, "the result", predicate["result"], "PASSED" if verdict["passed"] else "FAILED"
    yield name, "what passed", predicate["passedTests"], [finding["check"] for finding in verdict["findings"] if finding["passed"]]
    yield name, "what failed", predicate["failedTests"], [finding["check"] for finding in verdict["findings"] if not finding["passed"]]
    digests = {entry["name"]: entry["digest"]["sha256"] for entry in predicate["configuration"]}
    yield name, "policy and data", digests, {"policy": verdict["policy_sha256"], "data": verdict["dataset_sha256"]}


def summary_rows(
    statement: dict[str, Any], inputs: Mapping[str, Any], committed: dict[str, Any], time: str, policy_sha256: str, files: tuple[FileEntry, ...]
) -> Rows:
    """The verification summary against the record of the promotion; ``inputs`` are the envelopes that it names, by file."""
    name, predicate = "verification-summary.json", statement["predicate"]
    yield name, "its kind", statement["predicateType"], SUMMARY_TYPE
    yield name, "the files", statement["subject"], subjects(files)
    yield name, "the result", predicate["verificationResult"], "PASSED"
    yield name, "a level of SLSA", [level for level in predicate["verifiedLevels"] if level.startswith("SLSA_")], []
    yield name, "the version", predicate["resourceUri"], resource(committed["model"], committed["version"])
    yield name, "the time", predicate["timeVerified"], time
    yield name, "the policy", predicate["policy"]["digest"]["sha256"], policy_sha256
    named = {entry["uri"]: entry["digest"]["sha256"] for entry in predicate["inputAttestations"]}
    yield name, "what it rests on", named, {file: sha256_json(document) for file, document in inputs.items()}
