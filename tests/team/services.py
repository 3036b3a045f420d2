"""The services of compose.yaml started on loopback without Docker: the same commands with the same environment, at ports that are free.

In the place of images that are not this project's own stand Debian's PostgreSQL and an S3 server for tests: s3rver (npm), which keeps its files on the disk and so
outlives being killed, or moto (PyPI), which keeps them in memory.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.ledger.stores import programs, user
from tests.servers import free_port
from tests.team.composed import REPOSITORY, command_of, environment_of, health_of, own_variables

PORTS = {"postgres": "5432", "s3": "7070", "mlflow": "5000", "prefect": "4200"}
"""Where the services listen, by their names in compose.yaml."""
NPM = REPOSITORY / ".cache" / "npm-s3rver"
"""npm's packages, fetched once for a checkout."""
OUTSIDE = ("MLFLOW_", "PREFECT_", "RECOMPRESS_", "AWS_", "PG", "HF_")
WITHIN_S = 120.0


class Service:
    """A process that can be killed with all that it has started, and started again."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], folder: Path, is_up: Callable[[], bool], run_as: str = "") -> None:
        self.name, self.command, self.environment, self.folder, self.is_up, self.run_as = name, command, environment, folder, is_up, run_as
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        who = {"user": self.run_as} if self.run_as else {}
        with self.log.open("ab") as lines:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=lines, stderr=lines, start_new_session=True, **who
            )

    def wait(self) -> None:
        until = time.monotonic() + WITHIN_S
        while not self.is_up():
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}: {self.said()}"
            assert time.monotonic() < until, f"{self.name} did not come up: {self.said()}"
            time.sleep(0.3)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """SIGKILL for it and for all that it has started, so that nobody is left to tell of it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGSTOP)
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.kill()
        self.process.wait()


class Team:
    """All services but the workers and the watcher, which belong to a project."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.databases = Path(tempfile.mkdtemp(prefix="recompress-postgres-"))  # the folders of a test are closed to the user that PostgreSQL runs as
        self.ports = {name: str(free_port()) for name in PORTS}
        self.variables = own_variables()
        self.store, keys = _object_store(home / "objects", self.ports["s3"])
        self.variables |= keys
        self.services = {"postgres": self._postgres(), "s3": self._s3()} | {name: self.service(name) for name in ("mlflow", "prefect")}

    @property
    def outlives_being_killed(self) -> bool:
        """Whether the object store does; the others always do."""
        return "s3rver" in " ".join(self.store)

    def environment(self, service: str, project: Path | None = None) -> dict[str, str]:
        """What compose.yaml gives a service, with this machine's addresses, over what any process needs."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OUTSIDE)}
        own = {name: self._here(value, project) for name, value in environment_of(service, self.variables).items()}
        if "PGHOST" in own:
            own |= {"PGHOST": "127.0.0.1", "PGPORT": self.ports[own["PGHOST"]]}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {"PREFECT_HOME": str(self.home / f"{service}-prefect"), "PYTHONPATH": str(REPOSITORY), "PATH": path}
        return inherited | kept | {name: value for name, value in own.items() if value}

    def service(self, name: str, project: Path | None = None, **more: str) -> Service:
        """A service whose image is the project's own."""
        command = [self._here(word, project) for word in command_of(name, self.variables)]
        address = self._here(health_of(name), project)
        folder = self.home if project is None else project
        service = Service(name, command, self.environment(name, project) | more, folder, lambda: not address or _answers(address))
        service.log = self.home / f"{name}.log"
        return service

    def _here(self, text: str, project: Path | None) -> str:
        """A command's word or a variable with the addresses and folders that hold here."""
        text = text.replace("=0.0.0.0", "=127.0.0.1")
        for name, port in PORTS.items():
            text = re.sub(rf"\b(?:{name}|127\.0\.0\.1|localhost):{port}\b", f"127.0.0.1:{self.ports[name]}", text)
            text = re.sub(rf"^--port={port}$", f"--port={self.ports[name]}", text)
        text = re.sub(r"^/deploy\b", str(REPOSITORY / "deploy"), text)
        return re.sub(r"^/project\b", str(project), text) if project is not None else text

    def start(self) -> None:
        for name in ("postgres", "s3"):
            self.services[name].start()
        self.services["postgres"].wait()
        self._make_databases()
        for name in ("mlflow", "prefect"):
            self.services[name].start()
        for service in self.services.values():
            service.wait()
        made = self.run_first()
        assert made.returncode == 0, made.stderr

    def run_first(self) -> subprocess.CompletedProcess[str]:
        """What compose.yaml does once, before anybody works."""
        command = [self._here(word, None) for word in command_of("first", self.variables)]
        return subprocess.run(command, cwd=self.home, env=self.environment("first"), capture_output=True, text=True, timeout=120, check=False)

    def end(self) -> None:
        for service in reversed(self.services.values()):
            service.kill()
        shutil.rmtree(self.databases, ignore_errors=True)

    def _postgres(self) -> Service:
        if programs() is None or user() is None:
            pytest.skip("no PostgreSQL here that can be started: apt-get install postgresql")
        run_as, folder = str(user()), self.databases
        (folder / "password").write_text(self.variables["POSTGRES_PASSWORD"])
        if run_as:
            for path in (folder, folder / "password"):
                shutil.chown(path, run_as)
        who = {"user": run_as} if run_as else {}
        options = ["-U", "postgres", "-E", "UTF8", "--no-locale", "-N", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run([_program("initdb"), "-D", folder / "data", *options], cwd=folder, check=True, capture_output=True, **who)
        settings = {"listen_addresses": "127.0.0.1", "port": self.ports["postgres"], "unix_socket_directories": "", "max_connections": "200"}
        command = [_program("postgres"), "-D", str(folder / "data"), *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]
        ready = [_program("pg_isready"), "--host", "127.0.0.1", "--port", self.ports["postgres"], "--username", "postgres"]
        service = Service("postgres", command, dict(os.environ), folder, lambda: not subprocess.run(ready, capture_output=True, check=False).returncode, run_as)
        service.log = self.home / "postgres.log"
        return service

    def _make_databases(self) -> None:
        own = self.environment("postgres") | {"PGPASSWORD": self.variables["POSTGRES_PASSWORD"]}
        where = ["--host", "127.0.0.1", "--port", self.ports["postgres"], "--username", "postgres"]
        command = [_program("psql"), *where, "--quiet", "--set", "ON_ERROR_STOP=1", "--file", REPOSITORY / "deploy" / "databases.sql"]
        made = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr

    def _s3(self) -> Service:
        (self.home / "objects").mkdir()
        return Service("s3", self.store, dict(os.environ), self.home, lambda: _answers(f"http://127.0.0.1:{self.ports['s3']}/", any_status=True))


def _program(name: str) -> str:
    """One of PostgreSQL's programs; links to some of them may lie in a folder of their own."""
    place = programs()
    assert place is not None
    return str((place / "initdb").resolve().parent / name)


def _object_store(folder: Path, port: str) -> tuple[list[str], dict[str, str]]:
    """The command of an S3 server, and the keys that it takes."""
    if not _has_s3rver():
        return [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", port], {}
    command = ["node", str(REPOSITORY / "tests" / "team" / "s3rver.js"), str(NPM / "node_modules"), str(folder), port]
    return command, {"S3_ACCESS_KEY": "S3RVER", "S3_SECRET_KEY": "S3RVER"}


def _has_s3rver() -> bool:
    """Whether s3rver is there: it is where node is and npm's registry answers."""
    package = NPM / "node_modules" / "s3rver" / "package.json"
    if not package.is_file() and shutil.which("npm") and shutil.which("node"):
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(NPM), "s3rver@3.7.1"]
        subprocess.run(command, capture_output=True, timeout=280, check=False, env=os.environ | {"npm_config_update_notifier": "false"})
    return package.is_file() and shutil.which("node") is not None


def _answers(address: str, *, any_status: bool = False) -> bool:
    try:
        answer = httpx2.get(address, timeout=5)
    except httpx2.HTTPError:
        return False
    return any_status or answer.is_success
