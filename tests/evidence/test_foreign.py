"""Verifiers that know nothing of this project: the very commands that a bundle's README prints, run over a bundle, and over one that was changed."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recompress.evidence import BundleBroken, verify_bundle, write_bundle
from recompress.evidence.attestations import STATEMENTS
from recompress.evidence.foreign import IN_TOTO, OPENSSF, SIGSTORE
from recompress.evidence.provenance import dsse_key_id, pae
from recompress.integrity.digest import canonical_json, sha256_bytes
from recompress.integrity.signing import public_pem
from tests.evidence.bundles import PUBLIC, Bundled
from tests.evidence.stories import KEY, OTHER
from tests.evidence.tampering import nest, resealed

REPOSITORY = Path(__file__).parent.parent.parent
TOOLS = REPOSITORY / ".cache" / "npm-sigstore"
"""npm's packages, fetched once for a checkout."""
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "TIMEOUT", "EHOSTUNREACH", "E401", "E403", "E404", "E429", "E502", "E503")
"""What npm says where its registry cannot be asked, or has not got the packages. Whatever else goes wrong fails."""


class Visitor:
    """Somebody with a copy of the bundle, the public key, and other people's tools."""

    def __init__(self, bundled: Bundled, root: Path) -> None:
        self.bundle = root / "bundle"
        shutil.copytree(bundled.bundle, self.bundle)
        self.key = root / "recompress.pub.pem"
        self.key.write_text(public_pem(KEY))
        blocks = re.findall(r"```sh\n(.*?)```", (self.bundle / "README.md").read_text(), re.DOTALL)
        self.openssf, self.in_toto, self.sigstore = blocks

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        offline = {"npm_config_fetch_retries": "0", "npm_config_fetch_timeout": "20000", "npm_config_update_notifier": "false"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | offline | {"KEY": str(self.key), "TOOLS": str(TOOLS), "PATH": path}
        return subprocess.run(["bash", "-ec", command], cwd=self.bundle, env=env, capture_output=True, text=True, timeout=120, check=False)

    def change(self, name: str, *keys: Any, value: Any) -> None:
        document = json.loads((self.bundle / name).read_bytes())
        nest(*keys, value=value)(document)
        (self.bundle / name).write_bytes(canonical_json(document))


@pytest.fixture
def visitor(bundled: Bundled, tmp_path: Path) -> Visitor:
    return Visitor(bundled, tmp_path)


@pytest.fixture
def sigstore(visitor: Visitor) -> str:
    """The command, where node is there and npm's registry answers."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed here, so Sigstore's JavaScript cannot look at a bundle")
    TOOLS.mkdir(parents=True, exist_ok=True)
    done = visitor.run(visitor.sigstore.splitlines()[0])
    if done.returncode and any(word in done.stderr for word in UNREACHABLE):
        pytest.skip(f"npm's registry does not answer here, so Sigstore's JavaScript cannot look at a bundle: {done.stderr.strip().splitlines()[0][:120]}")
    assert done.returncode == 0, done.stderr
    return visitor.sigstore


def resign(visitor: Visitor, name: str) -> None:
    """Another key signs the same statement, under the name of ours: whoever believes names believes it."""
    file = visitor.bundle / f"{name}.dsse.json"
    payload = base64.b64decode(json.loads(file.read_bytes())["payload"])
    signature = base64.b64encode(OTHER.sign(pae("application/vnd.in-toto+json", payload))).decode()
    visitor.change(f"{name}.dsse.json", "signatures", 0, "sig", value=signature)
    visitor.change(f"{name}.sigstore.json", "dsseEnvelope", "signatures", 0, "sig", value=signature)


def test_the_printed_commands_are_the_same_everywhere(visitor: Visitor) -> None:
    assert (visitor.openssf, visitor.in_toto, visitor.sigstore) == (OPENSSF, IN_TOTO, SIGSTORE)
    trust = (REPOSITORY / "docs" / "trust.md").read_text()
    assert all(f"```sh\n{command}```" in trust for command in (OPENSSF, IN_TOTO, SIGSTORE))


def test_model_signing_verifies_the_folder_that_the_readme_names(visitor: Visitor) -> None:
    done = visitor.run(visitor.openssf)
    assert done.returncode == 0, done.stderr
    (visitor.bundle / "model" / "artifacts" / "model" / "vocab.txt").write_text("another")
    assert visitor.run(visitor.openssf).returncode != 0


def test_in_totos_libraries_verify_every_statement(visitor: Visitor) -> None:
    done = visitor.run(visitor.in_toto)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(STATEMENTS)
    resign(visitor, "verification-summary")
    done = visitor.run(visitor.in_toto)
    assert (done.returncode, done.stdout.count("verified")) == (1, 2)
    assert "Accepted signatures do not match" in done.stderr


def test_sigstores_javascript_verifies_every_statement(visitor: Visitor, sigstore: str) -> None:
    done = visitor.run(sigstore)
    assert done.returncode == 0, done.stderr
    assert all(f"{name} verified" in done.stdout for name in STATEMENTS)
    resign(visitor, "test-result")
    done = visitor.run(sigstore)
    assert done.returncode != 0
    assert "signature verification failed" in done.stderr


def test_every_predicate_is_of_the_kind_that_it_says(visitor: Visitor) -> None:
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult
    from in_toto_attestation.predicates.vsa.v1.vsa_pb2 import VerificationSummary

    said = {name: json.loads((visitor.bundle / f"{name}.json").read_bytes()) for name in STATEMENTS}
    ParseDict(said["statement"]["predicate"], Provenance())
    result = ParseDict(said["test-result"]["predicate"], TestResult())
    assert (result.result, list(result.passed_tests), list(result.failed_tests)) == ("PASSED", ["loss-against-baseline"], [])
    assert {entry.name for entry in result.configuration} == {"policy", "data"}
    assert {subject["name"] for subject in said["test-result"]["subject"]} < {subject["name"] for subject in said["verification-summary"]["subject"]}
    levels = said["verification-summary"]["predicate"].pop("verifiedLevels")  # a list in SLSA's specification, one text in this library's schema
    summary = ParseDict(said["verification-summary"]["predicate"], VerificationSummary())
    assert (summary.verification_result, levels) == ("PASSED", ["RECOMPRESS_PROMOTED"])
    for entry in summary.input_attestations:
        assert entry.digest["sha256"] == sha256_bytes((visitor.bundle / entry.uri).read_bytes())


def test_the_key_is_called_what_in_totos_library_calls_it() -> None:
    from securesystemslib.signer import SSlibKey

    assert dsse_key_id(PUBLIC) == SSlibKey.from_crypto(PUBLIC).keyid


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("test-result", ("predicate", "result"), "FAILED"),
        ("test-result", ("predicate", "passedTests"), ["loss-against-baseline", "latency"]),
        ("test-result", ("predicate", "configuration", 0, "digest", "sha256"), "0" * 64),
        ("test-result", ("subject",), []),
        ("verification-summary", ("predicate", "verifiedLevels"), ["SLSA_BUILD_LEVEL_3"]),
        ("verification-summary", ("predicate", "resourceUri"), "models:/ner/3"),
        ("verification-summary", ("predicate", "timeVerified"), "2026-01-01T00:00:00Z"),
        ("verification-summary", ("predicate", "policy", "digest", "sha256"), "0" * 64),
        ("verification-summary", ("predicate", "inputAttestations", 0, "digest", "sha256"), "0" * 64),
        ("verification-summary", ("subject", 0, "digest", "sha256"), "0" * 64),
        ("verification-summary", ("predicateType",), "https://slsa.dev/provenance/v1"),
    ],
)
def test_statements_that_say_something_else_are_found_even_when_the_list_is_signed(bundled: Bundled, name: str, keys: tuple[Any, ...], value: Any) -> None:
    with resealed(bundled, f"{name}.json", nest(*keys, value=value)), pytest.raises(BundleBroken) as broken:
        verify_bundle(bundled.bundle, PUBLIC)
    assert broken.value.file == f"{name}.json"


@pytest.mark.parametrize("change", [("verificationMaterial", "publicKey", "hint"), ("dsseEnvelope", "payload"), ("mediaType",)])
def test_a_sigstore_bundle_holds_the_envelope_beside_it(bundled: Bundled, change: tuple[str, ...]) -> None:
    with resealed(bundled, "statement.sigstore.json", nest(*change, value="e30=")), pytest.raises(BundleBroken, match=r"^statement\.sigstore\.json: it is not"):
        verify_bundle(bundled.bundle, PUBLIC)


def test_without_the_openssf_signature_the_readme_prints_no_command_for_it(bundled: Bundled, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", bundled.story, bundled.project.version("2"), KEY)
    text = (bundle / "README.md").read_text()
    assert OPENSSF not in text
    assert "OpenSSF" not in text
    assert IN_TOTO in text
    assert SIGSTORE in text
