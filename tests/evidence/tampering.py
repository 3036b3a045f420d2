"""Ways to change a bundle, for as long as a block runs: by somebody without the key, and by a holder of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.evidence.bundle import seal
from recompress.integrity.digest import canonical_json
from tests.evidence.bundles import Bundled
from tests.evidence.stories import KEY


@contextmanager
def changed(file: Path, data: bytes | None) -> Iterator[None]:
    before = file.read_bytes() if file.exists() else None
    try:
        file.unlink() if data is None else file.write_bytes(data)
        yield
    finally:
        file.unlink(missing_ok=True) if before is None else file.write_bytes(before)


@contextmanager
def resealed(bundled: Bundled, name: str, change: Callable[[dict[str, Any]], object], key: Ed25519PrivateKey = KEY) -> Iterator[None]:
    """A document that says something else, in a bundle that is signed all the same: what a careless or dishonest holder of the key would make."""
    document = json.loads((bundled.bundle / name).read_bytes())
    change(document)
    before = {file: (bundled.bundle / file).read_bytes() for file in (name, "bundle.json", "bundle.sig.json")}
    model = bundled.bundle.parent / "aside"
    (bundled.bundle / "model").rename(model)
    try:
        (bundled.bundle / name).write_bytes(canonical_json(document))
        for file in ("bundle.json", "bundle.sig.json"):
            (bundled.bundle / file).unlink()
        seal(bundled.bundle, bundled.story, key)
        model.rename(bundled.bundle / "model")
        yield
    finally:
        for file, data in before.items():
            (bundled.bundle / file).write_bytes(data)
        if model.exists():
            model.rename(bundled.bundle / "model")


def read(bundled: Bundled, name: str) -> Any:
    return json.loads((bundled.bundle / name).read_bytes())


@contextmanager
def resealed_list(bundled: Bundled, path: str) -> Iterator[None]:
    listing = read(bundled, "bundle.json")
    listing["files"] = sorted([*listing["files"], [path, 1, "0" * 64]])
    with sealed(bundled, listing):
        yield


@contextmanager
def sealed(bundled: Bundled, listing: dict[str, Any]) -> Iterator[None]:
    """Another list, with the project's signature."""
    from recompress.evidence.bundle import signed_list

    with (
        changed(bundled.bundle / "bundle.json", canonical_json(listing)),
        changed(bundled.bundle / "bundle.sig.json", canonical_json(signed_list(listing, KEY))),
    ):
        yield


def nest(*keys: Any, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(node: Any) -> None:
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change
