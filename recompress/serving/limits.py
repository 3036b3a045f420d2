"""How much one request may ask for, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from recompress.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is beyond one of these is refused before anything is computed. Raises ``InputError`` for a limit that is not above 0."""

    body_bytes: int = 1 << 20
    """Bytes of a request's body (status 413)."""
    rows: int = 256
    """Rows of a request (413)."""
    characters: int = 20_000
    """Characters of a row (413): what a model reads at once is a few hundred words, but a tokenizer reads all of them."""
    queue: int = 1024
    """Rows that wait for the model (503)."""
    threads: int = 1
    """Rows that are answered at the same time, each by a thread of its own, where the runtime allows it."""
    connections: int = 512
    """Connections at the same time (503)."""
    receive_s: float = 10.0
    """Seconds that a request may take to arrive (408)."""
    wait_s: float = 30.0
    """Seconds that an answer may take (503)."""
    drain_s: float = 25.0
    """Seconds that requests have to be answered in when the server is to end."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise InputError(f"{field.name} is above 0, got {getattr(self, field.name)}")
        if self.rows > self.queue:
            raise InputError(f"a request of {self.rows} rows would never fit into a queue of {self.queue}; raise the queue, or lower the rows")
