"""A run that changes nothing must find again what the present champion was promoted on, whoever is champion by now and whatever code judges today.

The plan of a promotion names its steps by their keys. Where the evidence is still the same, those keys count. A step whose result was lost is done anew beside the
present champion, as a new one: what the ledger says of the old one is not made up.
"""

from __future__ import annotations

from tasks.running.recompression import Recompression

NAMED, JUDGED = "named_in", "judged_in"
"""The facts of a plan that name the steps by which its finalists were named and its verdict was reached."""


def key_then(run: Recompression, step: str, key: str, tags: dict[str, str], fact: str) -> str:
    """The key under which a step of the present champion's promotion is remembered, by its plan or by ``key``; empty where its result is not to be had any more."""
    keys = (tags.get(f"recompress.{fact}", ""), key)
    return next((key for key in keys if key and run.known(step, key) is not None), "")
