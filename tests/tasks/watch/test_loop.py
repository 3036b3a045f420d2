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
from recompress.settings.file import place_in
from recompress.watch.decide import Decision
from recompress.watch.settings import WatchSettings, read_watch_settings, seconds_of
from tasks.watch.looked import Looked
from tasks.watch.loop import _rest, hints, look_once, recipes_of, spread, watch_on
from tasks.watch.watcher import Watcher
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


@pytest.mark.parametrize("port", [65536, 99999, 10**12])
def test_a_port_that_is_none_is_said(port: int) -> None:
    with pytest.raises(InputError, match="not from 0 to 65535"), hints(port, threading.Event(), lambda _: None):
        pass


class Looks(Watcher):
    """A watcher that looks at nothing."""

    def look(self, recipe: Path) -> Looked:
        if recipe.stem == "broken":
            raise InputError("unknown key 'polcy'")
        if recipe.stem == "odd":
            raise ValueError("'/somewhere' is not in the subpath\nof anything")
        return Looked(recipe.stem, [], Decision())


def test_a_recipe_that_cannot_be_read_is_said_and_the_others_are_looked_at(tmp_path: Path) -> None:
    said: list[str] = []
    looks, code = look_once(Looks(tmp_path, WatchSettings(), said.append), [Path("broken.yaml"), Path("whole.yaml")])
    assert ([look.recipe for look in looks], code, said) == (["whole"], 2, ["broken.yaml: unknown key 'polcy'"])


def test_what_nobody_thought_of_is_one_recipe_s_own(tmp_path: Path) -> None:
    said: list[str] = []
    looks, code = look_once(Looks(tmp_path, WatchSettings(), said.append), [Path("odd.yaml"), Path("whole.yaml")])
    assert ([look.recipe for look in looks], code) == (["whole"], 1)
    assert said == ["odd.yaml: the look failed (ValueError: '/somewhere' is not in the subpath); --verbose shows where"]


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
    assert watch_on(root, [], lambda _: None, lambda _: after.append(1), pause=lambda every: 0.01) == 143
    assert (seen, len(after)) == (["15m", "2h", "2h"], 3)


def test_a_mistake_that_is_saved_while_the_loop_runs_is_said_once_and_the_settings_before_it_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_small_project(tmp_path / "project", model="some/encoder", revision="a" * 40, sha256="b" * 64, watch="every: 2h\nbudget: 0.5\n")
    texts = iter(["evry: 3h\n", "evry: 3h\n", "every: {\n", "every: 4h\n", "evry: 3h\n"])
    seen, told, said = list[str](), list[float](), list[str]()

    def look(self: Watcher, recipe: Path) -> Looked:
        seen.append(self.settings.every)
        (root / "watch.yaml").write_text(next(texts, "every: 4h\n"))
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return Looked("toy", [], Decision())

    def after(settings: WatchSettings) -> None:
        told.append(settings.budget)
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(Watcher, "look", look)
    assert watch_on(root, [], said.append, after, pause=lambda every: 0.01) == 130
    assert seen == ["2h", "2h", "2h", "2h", "4h", "4h"]
    assert told[:4] == [0.5] * 4
    mistakes = [line for line in said if "the settings before it go on" in line]
    assert [("evry" in line, "YAML" in line) for line in mistakes] == [(True, False), (False, True), (True, False)]
    assert sum("people could not be told (ValueError" in line for line in said) == 6


def test_a_mistake_at_the_beginning_is_refused(tmp_path: Path) -> None:
    (tmp_path / "watch.yaml").write_text("evry: 3h\n")
    with pytest.raises(InputError, match="did you mean 'every'"):
        watch_on(tmp_path, [], print, print)


@pytest.mark.parametrize("text", ["", "\n \n", "# every: 15m\n  # settle: 30m\n", "---\n# nothing yet\n...\n", "\ufeff# nothing\r\n"])
def test_a_file_with_nothing_but_comments_is_all_defaults(tmp_path: Path, text: str) -> None:
    (tmp_path / "watch.yaml").write_bytes(text.encode())
    assert read_watch_settings(tmp_path) == WatchSettings()


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
        ("{workers: auto, pool: few}\n", "auto counts the cores of this machine, and a pool may have others"),
        ("workers: 0\n", "workers"),
        ("workers: many\n", "workers"),
        ("every: 10000000000d\n", "every is at most 366d, got '10000000000d'"),
        ("settle: 367d\n", "settle is at most 366d"),
        (f"lease: {'9' * 400}s\n", "lease is at most 366d"),
        ("forge: {repository: a/b, api: 'https://git.example.org:port/api/v1'}\n", "forge.api is an address like"),
        ("forge: {repository: a/b, api: git.example.org}\n", "forge.api is an address like"),
        ("forge: {repository: a/b, api: 'https://[x/api'}\n", "forge.api is an address like"),
        ("forge: {repository: a/b, api: 'https://a b/api'}\n", "forge.api is an address like"),
        ("every: 0s\n", "every is at least 1s, got '0s'"),
        ("lease: 0.5s\n", "lease is at least 1s"),
        ("settle: 10000000000d\n", "settle is at most 366d"),
        ("mode: auto\nrecipes: {recipes/ticket.yaml: {mode: propose}}\n", "unknown recipe 'recipes/ticket.yaml' .*did you mean 'recipes/tickets.yaml'"),
        ("recipes: {tickets.yaml: {mode: propose}}\n", "unknown recipe 'tickets.yaml' .*did you mean 'recipes/tickets.yaml'"),
        ("recipes: {recipes/tickets.yaml: {}, ./recipes/tickets.yaml: {}}\n", "'./recipes/tickets.yaml' is a recipe that has its settings already"),
        ("follow: {some/encodr: dev}\n", "unknown model or data set 'some/encodr' .*did you mean 'some/encoder'"),
        ("follow: {some/ticket: dev}\n", "unknown model or data set 'some/ticket' .*did you mean 'some/tickets'"),
    ],
)
def test_a_mistake_in_watch_yaml_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    named_project(tmp_path, text)
    with pytest.raises(InputError, match=message) as error:
        read_watch_settings(tmp_path)
    assert "watch.yaml:" in str(error.value)


def named_project(root: Path, watch: str) -> None:
    """With a recipe, data sets and where they come from, and nothing else."""
    for folder in ("recipes", "raw"):
        (root / folder).mkdir()
    (root / "recipes" / "tickets.yaml").write_text("base: {model: some/encoder}\nbaseline: {model: some/classifier}\n")
    (root / "params.yaml").write_text("datasets:\n  a: {source: raw/a, hub: {dataset: some/tickets}}\n  b: {source: raw/b}\n")
    (root / "raw" / "b.dvc").write_text("deps:\n- {path: data, repo: {url: 'https://ada:pass@git.example.org/data'}}\n")
    (root / "watch.yaml").write_text(watch)


def test_what_watch_yaml_names_may_be_written_in_any_way(tmp_path: Path) -> None:
    places = ("some/encoder", "some/classifier", "some/tickets", "https://ada:***@git.example.org/data")
    follow = ", ".join(f'"{place}": dev' for place in places)
    named_project(tmp_path, f"recipes: {{./recipes//tickets.yaml: {{mode: auto}}}}\nfollow: {{{follow}}}\n")
    settings = read_watch_settings(tmp_path)
    assert (settings.mode_of("recipes/tickets.yaml"), set(settings.follow)) == ("auto", set(places))
    (tmp_path / "shared.yaml").write_text("base: {model: other/encoder}\n")
    (tmp_path / "recipes" / "link.yaml").symlink_to(tmp_path / "shared.yaml")
    (tmp_path / "watch.yaml").write_text("recipes: {recipes/link.yaml: {mode: auto}}\nfollow: {other/encoder: dev}\n")
    assert read_watch_settings(tmp_path).mode_of(place_in(tmp_path, tmp_path / "recipes" / "link.yaml")) == "auto"
    (tmp_path / "watch.yaml").write_text("# every: 15m\n\n")
    assert read_watch_settings(tmp_path) == WatchSettings()


def test_a_recipe_may_have_a_mode_of_its_own() -> None:
    said: Any = {"recipes/a.yaml": {"mode": "auto"}, "recipes/b.yaml": {}}
    settings = WatchSettings(recipes=said)
    assert [settings.mode_of(f"recipes/{name}.yaml") for name in "abc"] == ["auto", "propose", "propose"]
