"""Which Prefect server a run would use, and what is found out about it before the run begins."""

from __future__ import annotations

import http.server
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import StorageError
from tasks.running.prefect_server import Named, _known_versions, check_server, named_server, put_unusable_aside, start_temporary_server, unusable

SOURCES = {
    ".env": "PREFECT_API_URL=http://127.0.0.1:9/api\n",
    "prefect.toml": '[api]\nurl = "http://127.0.0.1:9/api"\n',
    "home/profiles.toml": 'active = "team"\n\n[profiles.team]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n',
}


def database(file: Path, version: str) -> Path:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (version,))
    return file


def test_a_database_of_another_version_or_a_damaged_one_is_put_aside(tmp_path: Path) -> None:
    known = sorted(_known_versions())
    assert len(known) > 50
    assert unusable(database(tmp_path / "good.db", known[0])) == ""
    lines: list[str] = []
    for content, reason in ((None, r"is of another version of Prefect \(ffffffffffff\)"), (b"no database at all, but long enough" * 9, "is damaged")):
        file = tmp_path / "prefect.db"
        if content is None:
            database(file, "ffffffffffff")
        else:
            file.write_bytes(content)
        with pytest.raises(StorageError, match=f"{reason}.*move it away"):
            put_unusable_aside(tmp_path, own=False, say=lines.append)
        assert file.exists()
        put_unusable_aside(tmp_path, own=True, say=lines.append)
        assert not file.exists()
        [aside] = tmp_path.glob("prefect.db.2*")
        assert aside.name in lines[-1]
        aside.unlink()
        put_unusable_aside(tmp_path, own=True, say=lines.append)
    assert len(lines) == 2


def test_a_database_that_another_process_holds_stays(tmp_path: Path) -> None:
    with closing(sqlite3.connect(database(tmp_path / "prefect.db", "ffffffffffff"), isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        assert unusable(tmp_path / "prefect.db") == ""


@pytest.mark.parametrize("name", [".env", pytest.param("prefect.toml", marks=pytest.mark.long), pytest.param("home/profiles.toml", marks=pytest.mark.long)])
def test_a_server_is_known_by_whatever_prefect_reads(tmp_path: Path, name: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / name).write_text(SOURCES[name])
    code = "from tasks.running.prefect_server import named_server; print(*named_server(), sep='\\n')"
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "PREFECT_HOME": str(tmp_path / "home"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    url, where = done.stdout.splitlines()
    assert url == "http://127.0.0.1:9/api"
    assert str(tmp_path / name) in where


def test_the_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:7/api")
    assert named_server() == Named("http://127.0.0.1:7/api", "PREFECT_API_URL")


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code = 200 if self.path.endswith("health") else status
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_asks_for_a_login_or_is_not_there_is_one_line() -> None:
    with answering(200) as url:
        check_server(Named(url, "PREFECT_API_URL"))
    with answering(401) as url, pytest.raises(StorageError, match=r"asks for a login \(401\); set PREFECT_API_AUTH_STRING, or PREFECT_API_KEY"):
        check_server(Named(url, "PREFECT_API_URL"))
    gone = "http://alice:S3cret@127.0.0.1:9/api"
    with pytest.raises(StorageError, match="does not answer .*; start it, or take it out of /x/.env$") as refused:
        check_server(Named(gone, "PREFECT_API_URL in /x/.env"))
    assert "S3cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_temporary_server_is_not_in_the_group_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to the group (``timeout``, a terminal, systemd) would end it before the run, which waits for it then."""
    from prefect.server.api import server  # before Popen is another: some of what it imports asks for versions

    begun: list[dict[str, Any]] = []

    class Begun(Exception):
        pass

    def begin(*_: object, **options: Any) -> None:
        begun.append(options)
        raise Begun

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", begin)
        with pytest.raises(Begun):
            start_temporary_server()
    assert [options["start_new_session"] for options in begun] == [True]
    assert server.subprocess is subprocess
