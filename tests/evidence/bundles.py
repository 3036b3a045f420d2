"""A project with a bundle, for tests that look at bundles."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.evidence import write_bundle
from recompress.evidence.model_signature import model_key
from recompress.integrity.signing import public_pem
from recompress.records import ApprovalRule
from tests.evidence.stories import KEY, Project

PUBLIC = KEY.public_key()
BOB = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
SIGNED = ApprovalRule(required=True, not_the_author=True, signed=True, signers={"bob": public_pem(BOB)})


class Bundled:
    """A project with two promotions, the second approved with a signature, and the bundle of the second with the model's files inside."""

    def __init__(self, root: Path) -> None:
        moments = iter(range(10_000))
        self.project = Project(root, lambda: datetime.fromtimestamp(1_790_000_000 + next(moments), UTC))
        self.first = self.project.promote(1)
        self.plan = self.project.promote(2, SIGNED, key=BOB)
        self.story = self.project.story(self.plan)
        self.key = model_key(root / "keys")
        self.bundle = write_bundle(root / "bundle", self.story, self.project.version("2"), KEY, self.key)
        shutil.copytree(self.project.version("2"), self.bundle / "model")


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    return Bundled(tmp_path_factory.mktemp("evidence"))
