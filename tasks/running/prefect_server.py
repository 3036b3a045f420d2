"""Which Prefect server a run reports to, and whether it can: looked at before the run begins, because Prefect itself tells it in pages, minutes later."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from recompress.errors import StorageError

URL = "PREFECT_API_URL"
LOGIN = (401, 403)
DATABASE = "prefect.db"
FILES, VARIABLES = {".env": "prefect", "prefect.toml": "", "pyproject.toml": "tool.prefect"}, frozenset((URL, "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"))
"""Where Prefect reads settings from, beside its profiles: files of the present folder, with what they hold then, and what names other profiles."""


class Named(NamedTuple):
    """A server that is not the run's own."""

    url: str
    where: str
    """What names it, in words."""


def named_server() -> Named | None:
    """The server that Prefect would use, by whatever it reads: the variable, ``.env``, ``prefect.toml``, ``pyproject.toml`` or a profile. ``None`` where it starts its own."""
    if url := os.environ.get(URL):
        return Named(url, URL)
    if not _is_told_anything():
        return None
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    return Named(settings.api.url, _where(settings.profiles_path)) if settings.api.url else None


def _is_told_anything() -> bool:
    """Whether there is anything that Prefect would read an address from; its settings take longer to be imported than all else that a run does which finds everything."""
    names = {name.upper() for name in os.environ}
    profiles = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml"
    files = [name for name, mark in FILES.items() if Path(name).is_file() and mark in Path(name).read_text(encoding="utf-8", errors="replace").lower()]
    return bool(names & VARIABLES or files or profiles.exists())


def _where(profiles: Path | None) -> str:
    """Prefect says what it read, but not where; these are looked at in its own order."""
    for name, mark in ((".env", URL), ("prefect.toml", "url"), ("pyproject.toml", "tool.prefect")):
        file = Path(name)
        if file.is_file() and mark in file.read_text(encoding="utf-8", errors="replace"):
            return f"{URL} in {file.resolve()}"
    return f"the active profile in {profiles}"


def check_server(named: Named, *, way_out: str = "") -> None:
    """Raises ``StorageError`` when the server does not answer, or asks for a login that was not given. ``way_out`` is said where there is none without a server."""
    import httpx
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import get_current_settings

    given = get_current_settings().api
    key, login = (secret.get_secret_value() if secret else None for secret in (given.key, given.auth_string))
    try:
        with SyncPrefectClient(named.url, api_key=key, auth_string=login) as client:
            client.hello()
    except httpx.HTTPStatusError as error:
        if error.response.status_code in LOGIN:
            raise StorageError(
                f"the Prefect server that {named.where} names, {named.url}, asks for a login ({error.response.status_code}); "
                "set PREFECT_API_AUTH_STRING, or PREFECT_API_KEY for Prefect Cloud"
            ) from None
        raise _silent(named, error, way_out) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError) as error:
        raise _silent(named, error, way_out) from None


def _silent(named: Named, error: Exception, way_out: str) -> StorageError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    unset = f"unset {URL}" if named.where == URL else f"take it out of {named.where.removeprefix(f'{URL} in ')}"
    return StorageError(f"the Prefect server that {named.where} names, {named.url}, does not answer ({reason}); {way_out or f'start it, or {unset}'}")


def start_temporary_server() -> None:
    """Prefect's temporary server, in a session of its own: a signal to all processes of the run is for the run, which ends the server, and not for the server, which
    the run would wait for. Prefect finds it where it looks for its own. Raises ``RuntimeError`` where it does not answer in time."""
    from prefect.server.api.server import SubprocessASGIServer

    module: Any = sys.modules[SubprocessASGIServer.__module__]

    class InItsOwnSession(SubprocessASGIServer):
        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            usual = module.subprocess
            module.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": partial(subprocess.Popen, start_new_session=True)})
            try:
                return super()._run_uvicorn_command()
            finally:
                module.subprocess = usual

    InItsOwnSession().start()


def put_unusable_aside(home: Path, *, own: bool, say: Callable[[str], None]) -> None:
    """A database that the temporary server could not open gets another name, and the server makes a new one: it only says what ran when.

    Where ``home`` is not this project's ``own``, others may need it, so ``StorageError`` names it instead.
    """
    database = home / DATABASE
    reason = unusable(database) if database.is_file() else ""
    if not reason:
        return
    if not own:
        raise StorageError(f"Prefect's database {database} {reason}; move it away, or name another folder in PREFECT_HOME")
    aside = database.with_name(f"{DATABASE}.{time.strftime('%Y%m%dT%H%M%S')}")
    for tail in ("", "-wal", "-shm"):
        if (part := database.with_name(f"{DATABASE}{tail}")).exists():
            part.rename(f"{aside}{tail}")
    say(f"{database} {reason}; it is {aside.name} now, and a new one is made (it only says what ran when, and may be deleted)")


def unusable(database: Path) -> str:
    """Why this version of Prefect cannot use a database; empty where it can, or where another process holds it."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            [(health,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if health != "ok":
                return f"is damaged ({health})"
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")] if "alembic_version" in tables else []
    except sqlite3.OperationalError:  # held, or not readable: the server says more
        return ""
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    strange = [version for version in versions if version not in _known_versions()]
    return f"is of another version of Prefect ({strange[0]})" if strange else ""


def _known_versions() -> set[str]:
    """The states of the database that the installed Prefect can begin from, by the names in its migrations. Empty files and folders know none."""
    spec = find_spec("prefect")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    migrations = folder / "server" / "database" / "_migrations" / "versions" / "sqlite"
    return {
        found
        for file in migrations.glob("*.py")
        for found in re.findall(r"^revision(?:: str)? = [\"'](\w+)[\"']", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
