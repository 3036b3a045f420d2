"""Where the ledger of this project lies, who is acting, and the records that tasks write."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

from recompress.ledger import Ledger


def open_ledger(root: Path) -> Ledger:
    """The project's ledger: ``ledger/ledger.db``, or what ``RECOMPRESS_LEDGER`` names (a path or a PostgreSQL URL)."""
    named = os.environ.get("RECOMPRESS_LEDGER")
    if named:
        return Ledger(named if "://" in named else Path(named))
    (root / "ledger").mkdir(parents=True, exist_ok=True)
    return Ledger(root / "ledger" / "ledger.db")


def actor() -> str:
    """Who acts: ``RECOMPRESS_ACTOR``, or the user at this host. A name, not a proof; a signed approval is a proof."""
    named = os.environ.get("RECOMPRESS_ACTOR")
    return named or f"{getpass.getuser()}@{socket.gethostname()}"
