"""The loop: looks are spread, a hint makes the next one sooner and says nothing, and one broken recipe does not keep the others from being looked at."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from recompress.errors import InputError
from recompress.watch.decide import Decision
from recompress.watch.settings import WatchSettings, read_watch_settings, seconds_of
from tasks.watch.loop import _rest, hints, look_once, recipes_of, spread, watch_on
from tasks.watch.watcher import Looked, Watcher
from tests.tasks.watch.small_project import make_small_project


def test_looks_are_spread_by_a_tenth() -> None:
    waits = [spread(100.0) for _ in range(400)]
    assert 90 <= min(waits) < 93
    assert 107 < max(waits) <= 110


def test_a_hint_ends_the_wait_and_a_storm_of_them_is_one() -> None:
    sooner, said = threading.Event(), list[str]()
    with hints(0, sooner, said.append) as port:
        assert f"http://127.0.0.1:{port}/" in said[0]
        for _ in range(5):
            assert httpx2.post(f"http://127.0.0.1:{port}/hook", json={"sha": "whatever"}).status_code == 202
        assert httpx2.get(f"http://127.0.0.1:{port}/").status_code == 501
        begun = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.watch.loop.SHORTEST_S", 0.3)
            _rest(60, sooner, [])
        assert 0.3 <= time.monotonic() - begun < 30
        assert not sooner.is_set()


def test_a_port_that_is_taken_is_said() -> None:
    with (
        hints(0, threading.Event(), lambda _: None) as port,
        pytest.raises(InputError, match=f"port {port} cannot be listened on"),
        hints(port, threading.Event(), lambda _: None),
    ):
        pass


class Looks(Watcher):
    """A watcher that looks at nothing."""

    def look(self, recipe: Path) -> Looked:
        if recipe.stem == "broken":
            raise InputError("unknown key 'polcy'")
        return Looked(recipe.stem, [], Decision())


def test_a_recipe_that_cannot_be_read_is_said_and_the_others_are_looked_at(tmp_path: Path) -> None:
    said: list[str] = []
    looks, code = look_once(Looks(tmp_path, WatchSettings(), said.append), [Path("broken.yaml"), Path("whole.yaml")])
    assert ([look.recipe for look in looks], code, said) == (["whole"], 2, ["broken.yaml: unknown key 'polcy'"])


def test_all_recipes_of_a_project_are_looked_at(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipes to watch"):
        recipes_of(tmp_path, [])
    (tmp_path / "recipes").mkdir()
    for name in ("b", "a"):
        (tmp_path / "recipes" / f"{name}.yaml").touch()
    assert recipes_of(tmp_path, []) == [Path("recipes/a.yaml"), Path("recipes/b.yaml")]
    assert recipes_of(tmp_path, [Path("x.yaml")]) == [Path("x.yaml")]


def test_the_loop_looks_again_until_a_signal_and_reads_its_settings_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_small_project(tmp_path / "project", model="some/encoder", revision="a" * 40, sha256="b" * 64)
    seen: list[str] = []

    def look(self: Watcher, recipe: Path) -> Looked:
        seen.append(self.settings.every)
        (root / "watch.yaml").write_text("every: 2h\n")
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return Looked("toy", [], Decision())

    monkeypatch.setattr(Watcher, "look", look)
    after: list[int] = []
    assert watch_on(root, [], lambda _: None, lambda: after.append(1), pause=lambda every: 0.01) == 143
    assert (seen, len(after)) == (["15m", "2h", "2h"], 3)


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("45s", 45), ("1.5h", 5400), ("2d", 172800)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("every: soon\n", "every is a number with s, m, h or d behind it"),
        ("mode: always\n", "mode"),
        ("evry: 15m\n", "did you mean 'every'"),
        ("recipes: {recipes/a.yaml: {mod: auto}}\n", "did you mean 'mode'"),
        ("forge: {api: x}\n", "forge.repository is missing"),
    ],
)
def test_a_mistake_in_watch_yaml_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "watch.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_watch_settings(tmp_path)
    assert "watch.yaml:1" in str(error.value)


def test_a_recipe_may_have_a_mode_of_its_own() -> None:
    said: Any = {"recipes/a.yaml": {"mode": "auto"}, "recipes/b.yaml": {}}
    settings = WatchSettings(recipes=said)
    assert [settings.mode_of(f"recipes/{name}.yaml") for name in "abc"] == ["auto", "propose", "propose"]
