"""Every change to a bundle is found and named, and documents that disagree are, whoever signed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.evidence import BundleBroken, verify_bundle, write_bundle
from recompress.evidence.bundle import seal
from recompress.integrity.digest import sha256_json
from tests.evidence.bundles import PUBLIC, Bundled
from tests.evidence.stories import KEY, OTHER
from tests.evidence.tampering import changed, nest, resealed, resealed_list

FILES = [
    *("README.md", "bom.cdx.json", "bundle.json", "bundle.sig.json", "data-check.json", "evaluations.json", "gate-report.md", "ledger-head.json"),
    *("ledger.jsonl", "model-card.md", "model-manifest.json", "model-signing.pub.pem", "model.sig", "plan.json", "policy.json", "policy.yaml"),
    *("recipe.json", "recipe.yaml", "verdict.json"),
    *(f"{name}.{kind}" for name in ("statement", "test-result", "verification-summary") for kind in ("json", "dsse.json", "sigstore.json")),
    *("model/artifacts/model/config.json", "model/artifacts/model/model.safetensors", "model/served.py", "model/recompress-manifest.json"),
]


def test_the_list_of_files_to_tamper_with_is_whole(bundled: Bundled) -> None:
    names = {path.relative_to(bundled.bundle).as_posix() for path in bundled.bundle.rglob("*") if path.is_file()}
    assert names - set(FILES) == {"model/artifacts/model/vocab.txt"}


@given(name=st.sampled_from(FILES), how=st.sampled_from(["change", "delete", "insert", "cut"]), place=st.floats(0, 1), byte=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_every_changed_deleted_or_inserted_byte_is_found_and_its_file_named(bundled: Bundled, name: str, how: str, place: float, byte: int) -> None:
    file = bundled.bundle / name
    data = file.read_bytes()
    at = min(int(place * len(data)), len(data) - 1)
    new = {
        "change": data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :],
        "delete": data[:at] + data[at + 1 :],
        "insert": data[:at] + bytes([byte]) + data[at:],
        "cut": data[:at],
    }[how]
    with changed(file, new), pytest.raises(BundleBroken) as broken:
        verify_bundle(bundled.bundle, PUBLIC)
    assert broken.value.file == name.split("/", 1)[0]
    if name.startswith("model/artifacts"):
        assert name.removeprefix("model/artifacts/model/") in str(broken.value)


def test_every_byte_of_the_signature_counts(bundled: Bundled) -> None:
    """The last characters of base64 hold bits that a decoder ignores."""
    file = bundled.bundle / "bundle.sig.json"
    data = file.read_bytes()
    for at in range(len(data)):
        for bit in (1, 2, 4):
            with changed(file, data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]), pytest.raises(BundleBroken, match=r"^bundle\.sig\.json: "):
                verify_bundle(bundled.bundle, PUBLIC)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundled: Bundled, name: str) -> None:
    with changed(bundled.bundle / name, None), pytest.raises(BundleBroken) as broken:
        verify_bundle(bundled.bundle, PUBLIC)
    assert broken.value.file == name.split("/", 1)[0]


@pytest.mark.parametrize("name", ["notes.txt", "ledger.jsonl.bak", ".hidden", "model/registered_model_meta", "model/artifacts/model/more.json"])
def test_a_file_more_is_named(bundled: Bundled, name: str) -> None:
    with changed(bundled.bundle / name, b"{}"), pytest.raises(BundleBroken) as broken:
        verify_bundle(bundled.bundle, PUBLIC)
    assert broken.value.file == name.split("/", 1)[0]


def test_links_and_empty_folders_are_refused(bundled: Bundled) -> None:
    place = bundled.bundle / "more"
    place.symlink_to(bundled.bundle / "plan.json")
    with pytest.raises(BundleBroken, match="more: it is a link"):
        verify_bundle(bundled.bundle, PUBLIC)
    place.unlink()
    place.mkdir()
    with pytest.raises(BundleBroken, match="more: it is an empty folder"):
        verify_bundle(bundled.bundle, PUBLIC)
    place.rmdir()
    aside = bundled.bundle.parent / "real"
    (bundled.bundle / "model").rename(aside)
    (bundled.bundle / "model").symlink_to(aside)
    with pytest.raises(BundleBroken, match="model: it is a link"):
        verify_bundle(bundled.bundle, PUBLIC)
    (bundled.bundle / "model").unlink()
    aside.rename(bundled.bundle / "model")
    assert verify_bundle(bundled.bundle, PUBLIC)


def test_a_bundle_by_another_key_is_not_believed_whatever_key_lies_inside(bundled: Bundled, tmp_path: Path) -> None:
    with pytest.raises(BundleBroken, match=r"bundle\.sig\.json: .* does not come from the key"):
        verify_bundle(bundled.bundle, OTHER.public_key())
    forged = write_bundle(tmp_path / "forged", bundled.story, bundled.project.version("2"), OTHER)
    with pytest.raises(BundleBroken, match=r"bundle\.sig\.json"):
        verify_bundle(forged, PUBLIC)


def test_a_list_with_a_path_outside_is_refused_before_anything_is_read(bundled: Bundled) -> None:
    for path in ("../plan.json", "/etc/hostname", "a/../../x", "C:\\x", "", "a//b"):
        with resealed_list(bundled, path), pytest.raises(BundleBroken, match=r"^bundle\.json: it is not a list"):
            verify_bundle(bundled.bundle, PUBLIC)


SHA = sha256_json("something else")


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("plan.json", nest("model_sha256", value=SHA), "ledger.jsonl"),
        ("plan.json", nest("approval", "required", value=False), "ledger.jsonl"),
        ("verdict.json", nest("score", value=0.99), "verdict.json"),
        ("verdict.json", nest("passed", value=False), "verdict.json"),
        ("policy.json", nest("baseline", "margin", value=0.5), "policy.json"),
        ("recipe.json", nest("seed", value=1), "recipe.json"),
        ("data-check.json", nest("prepared_sha256", value=SHA), "data-check.json"),
        ("data-check.json", nest("tool", value="nobody"), "data-check.json"),
        ("evaluations.json", nest("candidate", "metrics", "f1", value=0.9), "evaluations.json"),
        ("evaluations.json", lambda document: document.pop("baseline"), "evaluations.json"),
        ("statement.json", nest("subject", 0, "digest", "sha256", value=SHA), "statement.json"),
        ("statement.json", lambda document: document["subject"].pop(), "statement.json"),
        ("statement.json", nest("predicate", "buildDefinition", "resolvedDependencies", 2, "digest", "sha256", value=SHA), "statement.json"),
        ("statement.json", nest("predicate", "buildDefinition", "internalParameters", "facts", "git_commit", value="f" * 40), "statement.json"),
        ("statement.json", nest("predicate", "buildDefinition", "internalParameters", "environment", "torch", value="0"), "statement.dsse.json"),
        ("bom.cdx.json", nest("metadata", "component", "version", value="3"), "bom.cdx.json"),
        ("bom.cdx.json", nest("metadata", "component", "components", 0, "hashes", 0, "content", value=SHA), "bom.cdx.json"),
        ("bom.cdx.json", nest("components", value=[]), "bom.cdx.json"),
        ("ledger-head.json", nest("sequence", value=3), "ledger-head.json"),
        ("bom.cdx.json", lambda document: document.clear(), "bundle.json"),
    ],
)
def test_documents_that_disagree_are_found_even_when_they_are_signed(
    bundled: Bundled, name: str, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    with resealed(bundled, name, change), pytest.raises(BundleBroken) as broken:
        verify_bundle(bundled.bundle, PUBLIC)
    assert broken.value.file == named
    assert verify_bundle(bundled.bundle, PUBLIC)


def test_a_ledger_that_was_cut_reordered_or_rewritten_is_found_even_when_the_list_is_signed(bundled: Bundled) -> None:
    lines = (bundled.bundle / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    for new in (lines[:-1], lines[1:], [lines[1], lines[0], *lines[2:]], [*lines, lines[-1]], [*lines[:5], *lines[6:]]):
        aside = bundled.bundle.parent / "aside"
        before = {file: (bundled.bundle / file).read_bytes() for file in ("ledger.jsonl", "bundle.json", "bundle.sig.json")}
        (bundled.bundle / "model").rename(aside)
        (bundled.bundle / "ledger.jsonl").write_bytes(b"".join(new))
        seal(bundled.bundle, bundled.story, KEY)
        with pytest.raises(BundleBroken, match=r"^ledger\.jsonl: ledger record \d+"):
            verify_bundle(bundled.bundle, PUBLIC)
        for file, data in before.items():
            (bundled.bundle / file).write_bytes(data)
        aside.rename(bundled.bundle / "model")
