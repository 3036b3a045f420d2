"""Looking again and again: once for cron and systemd, or in a loop whose looks are spread a little, so that many watchers do not all ask at the same second.

A hint (any POST to the port of ``--listen``, from a hub's webhook or a registry's) only makes the next look sooner. Nothing that it says is believed.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from recompress.errors import InputError, RecompressError, without_passwords
from recompress.watch.settings import WatchSettings, read_watch_settings, seconds_of
from tasks.running.servers import noted_signals
from tasks.watch.carry_out import Stopped, carry_out
from tasks.watch.looked import WORST_FIRST, Looked
from tasks.watch.watcher import Watcher

log = logging.getLogger(__name__)
JITTER = 0.1
SHORTEST_S = 5.0
"""A storm of hints is one hint."""
Say = Callable[[str], None]
After = Callable[[WatchSettings], object]


def recipes_of(root: Path, named: Sequence[Path]) -> list[Path]:
    """The recipes to look at: those that were named, or all of the project. Raises ``InputError`` where there is none."""
    recipes = list(named) or sorted(path.relative_to(root) for path in (root / "recipes").glob("*.yaml"))
    if not recipes:
        raise InputError(f"{root} has no recipes to watch; name one: recompress watch RECIPE")
    return recipes


def look_once(watcher: Watcher, recipes: Sequence[Path], ended: Sequence[object] = ()) -> tuple[list[Looked], int]:
    """One look at each recipe, until a signal stands in ``ended``. One that cannot be read or looked at is said and does not keep the others from being looked at;
    the exit code is that of the worst."""
    looks, codes = list[Looked](), set[int]()
    for recipe in recipes:
        if ended:
            break
        try:
            looks.append(watcher.look(recipe))
            codes.add(looks[-1].exit_code)
        except RecompressError as error:
            watcher.say(f"{recipe}: {error}")
            codes.add(error.exit_code)
        except Exception as error:  # whatever it is, it is this recipe's alone
            log.exception("a look at %s failed", recipe)
            watcher.say(f"{recipe}: the look failed ({in_a_line(error)}); --verbose shows where")
            codes.add(1)
    return looks, next((code for code in WORST_FIRST if code in codes), 1)


def watch_on(root: Path, named: Sequence[Path], say: Say, after: After, *, port: int | None = None, pause: Callable[[float], float] | None = None) -> int:
    """Look until a signal comes; gives the exit code that belongs to it. A run that is being made is ended by it, and taken up by the next look.

    ``watch.yaml`` is read before each look; a mistake in it is said once, and the settings before it go on. Raises ``InputError`` where it is wrong from the beginning.
    """
    sooner, settings, wrong = threading.Event(), read_watch_settings(root), ""
    with noted_signals() as ended, hints(port, sooner, say):
        while not ended:
            try:
                settings, mistake = read_watch_settings(root), ""
            except RecompressError as error:
                mistake = str(error)
            if mistake and mistake != wrong:
                say(f"{mistake}; until that is mended the settings before it go on")
            wrong = mistake
            with suppress(Stopped):
                _look(Watcher(root, settings, say, partial(carry_out, ended=ended)), named, ended)
                _after(after, settings, say)
                _rest((pause or spread)(seconds_of(settings.every)), sooner, ended)
    return 128 + ended[0]


def _look(watcher: Watcher, named: Sequence[Path], ended: Sequence[object]) -> None:
    try:
        looks, _ = look_once(watcher, recipes_of(watcher.root, named), ended)
    except RecompressError as error:
        watcher.say(str(error))
        looks = []
    for look in looks:
        watcher.say(look.text())


def _after(after: After, settings: WatchSettings, say: Say) -> None:
    try:
        after(settings)
    except Exception as error:  # telling people ends no watch
        log.exception("what follows a look failed")
        say(f"people could not be told ({in_a_line(error)})")


def in_a_line(error: Exception) -> str:
    """An error of no kind of ours, as one line."""
    said = without_passwords((str(error).splitlines() or [""])[0])[:160]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def spread(every_s: float) -> float:
    """The time to the next look: a tenth more or less, drawn anew each time."""
    return every_s * random.uniform(1 - JITTER, 1 + JITTER)


def _rest(seconds: float, sooner: threading.Event, ended: Sequence[object]) -> None:
    """Until it is time, a hint came, or a signal did."""
    begun = time.monotonic()
    while not ended and time.monotonic() - begun < seconds:
        if sooner.is_set() and time.monotonic() - begun >= min(SHORTEST_S, seconds):
            break
        time.sleep(0.1)
    sooner.clear()


@contextmanager
def hints(port: int | None, sooner: threading.Event, say: Say) -> Iterator[int | None]:
    """Listen on the loopback for hints while the block runs; gives the port."""
    if port is None:
        yield None
        return

    class Hint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sooner.set()
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Hint)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not from 0 to 65535"
        raise InputError(f"port {port} cannot be listened on: {why}; choose another with --listen") from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(f"hints are taken at http://127.0.0.1:{server.server_port}/")
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
