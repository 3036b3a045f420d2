"""Messages really go out, to a mail server and a webhook on this machine; what fails is tried again, is told to nobody twice, and fails nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recompress.ledger import Ledger
from tasks.watch.tell import begin_telling, tell_people
from tests.hub import HubHandler, serving
from tests.tasks.watch.mail import Mailbox, mail_server, told_by_mail

AWAY = {"recipe": "toy", "source": "base", "place": "some/encoder", "why": "it is gated; accept its terms"}


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    with mail_server() as served:
        yield served


class Hook(HubHandler):
    code = 200
    got: list[dict[str, Any]] = []

    def post(self, body: bytes) -> None:
        if self.code == 200:
            self.got.append(json.loads(body))
        self.answer(self.code, {})


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Hook, "code", 200)
    monkeypatch.setattr(Hook, "got", [])
    with serving(Hook) as address:
        yield address.replace("http://", "json://")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.delenv("RECOMPRESS_LEDGER", raising=False)
    monkeypatch.setenv("RECOMPRESS_ACTOR", "watcher")
    made = Ledger(tmp_path / "ledger" / "ledger.db")
    made.append("source-not-visible", AWAY | {"source": "before anybody was to be told"}, actor="watcher")
    return made


@pytest.mark.parametrize("told", ["", "json://127.0.0.1:9/hook"], ids=["nobody", "somebody"])
def test_before_a_ledger_that_was_named_is_made_there_is_nothing_to_tell(where: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    """The first run of a team: it makes the ledger, so that telling must not ask for one before."""
    monkeypatch.setenv("RECOMPRESS_LEDGER", str(where))
    monkeypatch.setenv("RECOMPRESS_TELL", told)
    begin_telling(tmp_path)
    assert tell_people(tmp_path, print) == 0


def test_a_mail_and_a_webhook_say_what_happened_once(
    ledger: Ledger, tmp_path: Path, mailbox: tuple[Mailbox, int], hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, port = mailbox
    monkeypatch.setenv("RECOMPRESS_TELL", f"{told_by_mail(port)} {hook}/hook")
    begin_telling(tmp_path)
    ledger.append("source-not-visible", AWAY, actor="watcher")
    assert tell_people(tmp_path, print) == 2
    assert tell_people(tmp_path, print) == 0
    [(to, mail)] = box.mails
    assert (to, mail["Subject"]) == (["team@example.org"], "toy: base is not visible")
    text = mail.get_payload(decode=True) if not mail.is_multipart() else b"".join(part.get_payload(decode=True) or b"" for part in mail.walk())
    assert b"it is gated" in text
    [posted] = Hook.got
    assert (posted["title"], "The champion stays." in posted["message"]) == ("toy: base is not visible", True)
    assert ledger.verify().sequence == len(ledger.entries())


def test_a_message_that_fails_is_tried_again_later_and_the_others_are_not_told_twice(
    ledger: Ledger, tmp_path: Path, mailbox: tuple[Mailbox, int], hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, port = mailbox
    said: list[str] = []
    monkeypatch.setenv(
        "RECOMPRESS_TELL",
        f"{hook.replace('json://', 'json://user:a-secret@')}/hook {told_by_mail(port)}",
    )
    begin_telling(tmp_path)
    ledger.append("source-not-visible", AWAY, actor="watcher")
    Hook.code = 503
    assert tell_people(tmp_path, said.append) == 1
    assert (len(box.mails), Hook.got, len(said)) == (1, [], 1)
    assert ("did not go out" in said[0], "a-secret" in said[0]) == (True, False)
    assert "a-secret" not in "".join(entry.body_text for entry in ledger.entries())
    Hook.code = 200
    assert tell_people(tmp_path, said.append) == 0, "not before its pause is over"
    [place] = {entry.body["to"] for entry in ledger.entries("people-told")} - {
        entry.body["to"] for entry in ledger.entries("people-told") if entry.body["event"] == "source not visible"
    }
    ledger.leases.resume(f"tell {place}")
    assert tell_people(tmp_path, said.append) == 1
    assert (len(box.mails), len(Hook.got)) == (1, 1)


@pytest.mark.parametrize("address", ["json://127.0.0.1:1/nobody", "nonsense://x", told_by_mail(1)])
def test_nothing_fails_where_nobody_can_be_told(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    said: list[str] = []
    monkeypatch.setenv("RECOMPRESS_TELL", address)
    begin_telling(tmp_path)
    ledger.append("source-not-visible", AWAY, actor="watcher")
    assert (tell_people(tmp_path, said.append), len(said)) == (0, 1)


def test_nobody_is_told_where_no_address_is_given_and_without_a_ledger_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOMPRESS_TELL", raising=False)
    monkeypatch.delenv("RECOMPRESS_LEDGER", raising=False)
    begin_telling(tmp_path)
    assert (tell_people(tmp_path, print), list(tmp_path.iterdir())) == (0, [])
    monkeypatch.setenv("RECOMPRESS_TELL", "json://127.0.0.1:1/")
    begin_telling(tmp_path)
    assert (tell_people(tmp_path, print), list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize(
    "address",
    [
        "mailto:watch:s3cretpass@mail.example.org",
        "s3cretpass",
        "s3cretpass://x",
        "json://watch:s3cret pass@127.0.0.1:1/x",
        "pa://s3cretpass@127.0.0.1:1/",
        "mailto://watch:s3cretpass@127.0.0.1:1",
    ],
)
def test_a_password_is_never_shown_however_an_address_is_mistaken(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    said: list[str] = []
    monkeypatch.setenv("RECOMPRESS_TELL", address)
    begin_telling(tmp_path)
    ledger.append("source-not-visible", AWAY, actor="watcher")
    assert tell_people(tmp_path, said.append) == 0
    assert said
    assert not [line for line in said if "s3cret" in line or "pass" in line]
