"""The keys in ``keys/``: does the public half fit the private one, and is it the one that the ledger knows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from recompress.audit import Trouble
from recompress.errors import RecompressError
from recompress.evidence.model_signature import public_model_pem
from recompress.integrity.digest import sha256_bytes
from recompress.integrity.signing import public_pem, read_private_key
from recompress.ledger import Ledger
from tasks.ledger.access import actor
from tasks.ledger.keys import MODEL, OWN

KIND = "key-used"
Halves = Callable[[Path], str]
KEYS: dict[str, tuple[str, Halves]] = {"recompress": (OWN, lambda path: public_pem(read_private_key(path))), "model-signing": (MODEL, public_model_pem)}
"""For each key the variable that may name another place for it, and how the public half of what lies there is had."""


def note_keys(root: Path, ledger: Ledger) -> None:
    """Record the public keys of which the private halves sign here, each when it is new. Raises ``IntegrityError`` for a private key that is none."""
    for name, (variable, public_half) in KEYS.items():
        private = _private(root, name, variable)
        if private.is_file():
            public = public_half(private)
            last = ledger.last(KIND, name=name)
            if last is None or last.body["public"] != public:
                ledger.append(KIND, {"name": name, "public": public}, actor=actor())


def check_keys(root: Path, ledger: Ledger) -> Iterator[Trouble]:
    """A public half that does not fit, a key that cannot be read, and one that was changed behind the ledger's back."""
    for name, (variable, public_half) in KEYS.items():
        place, private = root / "keys" / f"{name}.pub.pem", _private(root, name, variable)
        try:
            halves = [public_half(private)] if private.is_file() else []
            laid = [_text(place)] if place.is_file() else []
            former = {path.name: _text(path) for path in sorted((root / "keys").glob(f"{name}-*.pub.pem"))}
        except RecompressError as error:
            yield Trouble(f"keys/{name}.pem", "broken", str(error))
            continue
        if laid and halves and laid != halves and laid[0] not in former.values():  # else it is named for what it is, one that signed before
            yield Trouble(
                f"keys/{place.name}", "broken", f"it is not the public half of {private.name}; delete it, and the next bundle lays the right one there"
            )
        if laid and not halves:
            yield Trouble(f"keys/{name}.pem", "notice", "it is gone, and only its public half is here: nothing more can be signed with it; put it back")
        known = [str(entry.body["public"]) for entry in ledger.entries(KIND, name=name)]
        present = halves or laid
        if known and not present:
            yield Trouble(f"keys/{name}.pem", "notice", f"it is gone with its public half; what {_id(known[-1])} signed cannot be checked here")
        if known and present and known[-1] not in (*present, *former.values()):
            yield Trouble(
                f"keys/{name}.pem",
                "broken",
                f"the ledger knows the key {_id(known[-1])}, here is {_id(present[0])}; put the old one back, or keep its public half as keys/{name}-FORMER.pub.pem",
            )
        for file, text in former.items():
            if known and text not in known:
                yield Trouble(
                    f"keys/{file}",
                    "broken",
                    f"nothing that this ledger knows of was ever signed with the key {_id(text)}, and bundles that are would be believed",
                )


def _private(root: Path, name: str, variable: str) -> Path:
    return Path(os.environ.get(variable) or root / "keys" / f"{name}.pem")


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _id(pem: str) -> str:
    return f"{sha256_bytes(pem.encode())[:12]}…"
