"""Who acts, where the system knows a user by number only."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from tasks.ledger.access import actor
from tasks.ledger.user import give_home


def nobody(*_: object) -> str:
    raise KeyError("getpwuid(): uid not found: 12345")


def test_a_user_without_a_name_acts_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOMPRESS_ACTOR", raising=False)
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert actor().startswith("uid12345@")
    monkeypatch.setenv("RECOMPRESS_ACTOR", "ada")
    assert actor() == "ada"


def test_a_user_without_a_home_gets_one_below_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    give_home(tmp_path)
    assert os.environ["HOME"] == "/somewhere"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    give_home(tmp_path)
    assert os.environ["HOME"] == str(tmp_path / ".recompress" / "home")
    monkeypatch.delenv("HOME")
