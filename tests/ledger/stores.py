"""Where a test's ledger lies: a SQLite file, or a database of a PostgreSQL server that is started here, on loopback, for this test run only."""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """The place of a new, empty ledger: the same test runs on both databases."""
    return tmp_path / "ledger.db" if request.param == "sqlite" else new_database()


def new_database(encoding: str = "UTF8") -> str:
    """The URL of a fresh PostgreSQL database; skips the test where there is no server to start."""
    server = _start()
    if isinstance(server, str):
        pytest.skip(server)
    name = f"t{secrets.token_hex(6)}"
    import psycopg

    with psycopg.connect(f"{server[0]}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    return f"{server[0]}/{name}"


@cache
def _start() -> tuple[str, subprocess.Popen[bytes]] | str:
    """A running server, or the reason why there is none."""
    place = programs()
    if place is None:
        return "no PostgreSQL here: initdb is in neither PATH nor /usr/lib/postgresql/*/bin (apt-get install postgresql)"
    run_as = user()
    if run_as is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as"
    home = Path(tempfile.mkdtemp(prefix="recompress-postgres-"))
    password = secrets.token_hex(16)
    (home / "password").write_text(password)
    if run_as != "":
        for path in (home, home / "password"):
            shutil.chown(path, run_as)
    who = {"user": run_as} if run_as else {}
    quiet = {"cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    initdb = subprocess.run(
        [place / "initdb", "-D", home / "data", "-U", "recompress", "-E", "UTF8", "--no-locale", "-N", "--auth=md5", f"--pwfile={home}/password"],
        **quiet,
        **who,
        check=False,
    )
    if initdb.returncode:
        shutil.rmtree(home, ignore_errors=True)
        return f"PostgreSQL's initdb ended with {initdb.returncode} on this machine"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off", "max_connections": 300, "shared_buffers": "16MB"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = subprocess.Popen([place / "postgres", "-D", home / "data", *options], **quiet, **who)
    atexit.register(_stop, process, home)
    url = f"postgresql://recompress:{password}@127.0.0.1:{port}"
    return (url, process) if _answers(url, process) else "PostgreSQL did not answer within 30 s"


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    import psycopg

    for _ in range(300):
        try:
            psycopg.connect(f"{url}/postgres").close()
            return True
        except psycopg.OperationalError:
            if process.poll() is not None:
                return False
            time.sleep(0.1)
    return False


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; ``None`` where it is not installed."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb = shutil.which("initdb")
    return next((place for place in ([Path(initdb).parent] if initdb else []) + places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def user() -> str | None:
    """The user to run the server as: ourselves (``""``), unless we are root."""
    if os.geteuid() != 0:
        return ""
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
            return name
        except KeyError:
            continue
    return None


def _stop(process: subprocess.Popen[bytes], home: Path) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    shutil.rmtree(home, ignore_errors=True)
