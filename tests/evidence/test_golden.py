"""A bundle made by the first version that made any, and one by the first that wrote statements for others. They must verify for ever: these folders are never made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recompress.evidence import BundleBroken, verify_bundle
from recompress.integrity.signing import read_public_key

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("name", ["bundle-1", "bundle-2"])
def test_the_golden_bundles_verify(name: str) -> None:
    bundle = GOLDEN / name
    report = verify_bundle(bundle, read_public_key(GOLDEN / f"{name}.pub.pem"), model_key=(bundle / "model-signing.pub.pem").read_text())
    assert (report.model, report.version, report.kind, report.approver) == ("ner", "1", "rollback", "bob")
    assert report.promoted_at == "2026-09-21T13:33:48.000000Z"
    assert report.model_sha256 == "beb18038e34f233a3a52641d2f5f93f9be136e448497e707fc17ef3a3db0cb6e"
    assert len(report.checked) == 5


def test_it_is_really_looked_at(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "bundle-1", tmp_path / "bundle")
    card = tmp_path / "bundle" / "model-card.md"
    card.write_bytes(card.read_bytes().replace(b"0.75", b"0.85"))
    with pytest.raises(BundleBroken, match=r"model-card\.md: it was changed"):
        verify_bundle(tmp_path / "bundle", read_public_key(GOLDEN / "bundle-1.pub.pem"))
