"""The ledger: every decision that was ever made here, in an order that nobody can change unseen.

Records are chained by sha256 (``entry``), kept in SQLite or PostgreSQL (``store``), and carried as JSON lines (``lines``). A chain alone does not show a cut
tail: its head is anchored outside, as a tag on the registered model's version and in signed heads.
"""

from recompress.ledger.database import NoLedger
from recompress.ledger.entry import GENESIS, KINDS, Entry, Head, LedgerBroken, verify
from recompress.ledger.lines import read_lines, write_lines
from recompress.ledger.store import Ledger, Lock, Writer

__all__ = ["GENESIS", "KINDS", "Entry", "Head", "Ledger", "LedgerBroken", "Lock", "NoLedger", "Writer", "read_lines", "verify", "write_lines"]
