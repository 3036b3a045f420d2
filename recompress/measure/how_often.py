"""How often models are timed. A plan asks that before anything is timed, so that nothing stands here which is needed to do it."""

from __future__ import annotations

from typing import NamedTuple

ROUNDS = 6
LIMITED = 8
"""Rounds in a block where there is a limit on speed: one that was disturbed may be left out of a bound at 95 %."""
MOST = 3
"""So many blocks of rounds are timed at most on a machine that is not steady."""


class Rounds(NamedTuple):
    """How many rounds are timed: what a bound needs (``recompress.gate.rounds``) where there is a limit, and a few for the page where there is none."""

    single: int = ROUNDS
    """In a block, one text at a time."""
    batches: int | None = None
    """In a block, in batches; half as many as of single texts when left out."""
    cold: int | None = None
    """In a block, one text at a time with cold caches; half as many when left out."""
    most: int = 1
    """Blocks, while the machine is not steady."""
    memory: int = 1
    """Fresh processes for each model's memory."""
    writing: int | None = None
    """Of what models of language write; a few when left out."""
