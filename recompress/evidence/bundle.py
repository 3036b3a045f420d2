"""Writing a bundle: a folder of plain files, a list of all of them, and one signature over the list.

What stands in a bundle follows from the promotion alone: made again, it is the same byte for byte, but for the OpenSSF signature, whose kind of key signs with
chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.evidence.attestations import signed_documents
from recompress.evidence.bom import bom
from recompress.evidence.dossier import Dossier, Story
from recompress.evidence.layout import FORMAT, LIST, PURPOSE, SIGNATURE
from recompress.evidence.model_signature import public_model_pem, sign_model
from recompress.evidence.pages import gate_report, model_card, readme
from recompress.evidence.verify import verify_bundle
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.digest import canonical_json, manifest, sha256_json
from recompress.integrity.model_files import MANIFEST_FILE, MODEL_FOLDER
from recompress.integrity.signing import public_pem, sign
from recompress.ledger import write_lines
from recompress.ledger.anchor import sign_head

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def write_bundle(target: Path, story: Story, directory: Path, key: Ed25519PrivateKey, model_key: Path | None = None) -> Path:
    """Write the evidence of a promotion to ``target``, whole or not at all, and give it back. ``directory`` holds the version's files.

    ``model_key`` is the elliptic-curve key for the OpenSSF signature; without one there is none in the bundle. Raises ``InputError`` when ``target`` exists
    already, ``IntegrityError`` when what belongs into it does not fit together, and ``StorageError`` when it cannot be written.
    """
    with new_directory(target) as place:
        for name, value in documents(story, key).items():
            _write(place / name, value)
        (place / "model-manifest.json").write_bytes((directory / MANIFEST_FILE).read_bytes())
        write_lines(story.chain, place / "ledger.jsonl")
        if model_key is not None:
            sign_model(directory / MODEL_FOLDER, place / "model.sig", model_key)
            _write(place / "model-signing.pub.pem", public_model_pem(model_key))
        _write(place / "README.md", readme(story, [file.name for file in place.iterdir()]))
        seal(place, story, key)
        verify_bundle(place, key.public_key(), model=directory)  # somebody may have altered the evidence that was kept: what does not verify is never written
    return target


def documents(story: Story, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The documents by name: JSON as values, the rest as text."""
    dossier = story.dossier
    return {
        "plan.json": story.plan.as_json(),
        "verdict.json": dossier.verdict.as_json(),
        "evaluations.json": {
            role: evaluation.as_json() for role in sorted(dossier.verdict.evaluations) if (evaluation := dossier.evaluation(role)) is not None
        },
        **({"trainings.json": _trainings(dossier)} if dossier.trainings else {}),
        "policy.json": dossier.policy,
        "policy.yaml": dossier.policy_text,
        "recipe.json": dossier.recipe,
        "recipe.yaml": dossier.recipe_text,
        "data-check.json": dossier.data_check,
        **signed_documents(story, key),
        "bom.cdx.json": bom(story),
        "model-card.md": model_card(story),
        "gate-report.md": gate_report(dossier.verdict),
        "ledger-head.json": sign_head(key, story.head),
    }


def _trainings(dossier: Dossier) -> dict[str, Any]:
    """By the number of the training; the first is that of ``evaluations.json``."""
    return {
        str(number): {"candidate": candidate.as_json(), "baseline": baseline.as_json()}
        for number, (candidate, baseline) in enumerate(dossier.trainings, start=2)
    }


def seal(place: Path, story: Story, key: Ed25519PrivateKey) -> None:
    """List every file with its sha256, and sign the list."""
    listing = {
        "format": FORMAT,
        "model": story.plan.model,
        "version": story.version,
        "plan": story.progress.digest,
        "model_sha256": story.plan.model_sha256,
        "ledger_head": str(story.head),
        "files": [list(entry) for entry in manifest(place, leave_out=(LIST, SIGNATURE))],
    }
    _write(place / LIST, listing)
    _write(place / SIGNATURE, signed_list(listing, key))


def signed_list(listing: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, str]:
    """The digest says which of the two was changed, where they do not fit."""
    return {"key": public_pem(key), "sha256": sha256_json(listing), "signature": sign(key, PURPOSE, listing)}


def _write(path: Path, value: Any) -> None:
    path.write_bytes(value.encode() if isinstance(value, str) else canonical_json(value))
