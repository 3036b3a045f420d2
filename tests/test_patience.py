"""A server that is away is asked again until it answers or patience ends; whatever else goes wrong is told at once."""

from __future__ import annotations

import pytest

from recompress import patience
from recompress.patience import Patience


class Server:
    """Answers when it has been asked so often."""

    def __init__(self, away: int) -> None:
        self.away, self.asked = away, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.away:
            raise ConnectionError("refused")
        return "here"


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time goes by only where it is slept."""
    pauses: list[float] = []
    monkeypatch.setattr(patience.time, "monotonic", lambda: sum(pauses))
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    return pauses


def is_away(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def test_it_waits_says_so_once_and_says_that_the_server_is_back() -> None:
    said: list[str] = []
    assert Patience(60, said.append).ask("the server", Server(3), is_away) == "here"
    assert said == ["the server does not answer; it is waited for, 60 s at most", "the server answers again"]


def test_patience_ends(slept: list[float]) -> None:
    server = Server(1000)
    with pytest.raises(ConnectionError, match="refused"):
        Patience(5).ask("the server", server, is_away)
    assert (sum(slept), server.asked) == (5, 6)


def test_without_patience_and_for_other_errors_nothing_is_asked_twice(slept: list[float]) -> None:
    server = Server(1)
    with pytest.raises(ConnectionError):
        Patience().ask("the server", server, is_away)
    with pytest.raises(ConnectionError):
        Patience(60).ask("the server", Server(1), lambda _: False)
    assert (server.asked, slept) == (1, [])
