"""Waiting for a server that is away: it is asked again until it answers, or until patience ends.

A command that begins names a server that does not answer, at once. Work that took hours waits for one: servers are started anew, and what was computed is not to
be lost over that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

Answer = TypeVar("Answer")
PAUSE_S = 1.0


@dataclass
class Patience:
    """How long to wait, in seconds; 0 for not at all. ``say`` is told once that a server is waited for, and once that it is back."""

    seconds: float = 0.0
    say: Callable[[str], None] = lambda _: None
    _missed: set[str] = field(default_factory=set)
    """Who is away just now: several threads may wait for one."""

    def ask(self, who: str, question: Callable[[], Answer], is_away: Callable[[Exception], bool]) -> Answer:
        """The answer to a question that may be asked again. Raises what it raises: at once what ``is_away`` does not know, else when patience ends."""
        until = time.monotonic() + self.seconds
        while True:
            try:
                answer = question()
            except Exception as error:
                if not is_away(error) or time.monotonic() >= until:
                    raise
                if who not in self._missed:
                    self._missed.add(who)
                    self.say(f"{who} does not answer; it is waited for, {self.seconds:.0f} s at most")
                time.sleep(PAUSE_S)
            else:
                if who in self._missed:
                    self._missed.discard(who)
                    self.say(f"{who} answers again")
                return answer
