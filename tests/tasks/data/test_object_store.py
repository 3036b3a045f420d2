"""Data in an object store: pushed once, brought into a clone by its hash, and refused in one line where the store holds other bytes or is not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from recompress.errors import DataRefused
from tasks.data.bring import bring
from tasks.data.pins import is_here, tracked
from tests.servers import free_port
from tests.tasks.data.projects import dvc, lose

KEYS = {"AWS_ACCESS_KEY_ID": "team", "AWS_SECRET_ACCESS_KEY": "secret-of-the-store", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server in memory with one bucket."""
    pytest.importorskip("dvc_s3", reason="an object store needs pip install '.[s3]'")
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log"
    with (
        log.open("w") as lines,
        subprocess.Popen([sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)], stdout=lines, stderr=lines) as server,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                try:
                    httpx2.put(f"{address}/recompress", timeout=5)
                    break
                except httpx2.HTTPError:
                    assert server.poll() is None, log.read_text()
                    time.sleep(0.25)
            yield address
        finally:
            server.terminate()


@pytest.fixture
def pushed(project: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose data is in the team's store, as the guide says it."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL_S3": store}).items():
        monkeypatch.setenv(name, value)
    dvc(project, "remote", "add", "--default", "team", f"s3://recompress/{project.parent.name}")
    dvc(project, "push")
    return project


@pytest.mark.long
@pytest.mark.slow
def test_a_clone_gets_its_data_from_the_team_s_store(pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(pushed, clone, ignore=shutil.ignore_patterns("cache", "prepared", "toy", "words"))
    shutil.copyfile(pushed / "raw" / "toy.dvc", clone / "raw" / "toy.dvc")
    assert not (clone / "raw" / "toy").exists()
    brought = bring(clone, "toy")
    assert brought.dataset.sha256 == bring(pushed, "toy").dataset.sha256
    assert is_here(clone, tracked(clone)["raw/toy"])


@pytest.mark.slow
def test_a_store_that_is_away_is_a_line_without_a_password(pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(pushed, "raw/toy", "prepared/toy", ".dvc/cache")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(DataRefused, match="the raw data of 'toy' is not here") as caught:
        bring(pushed, "toy")
    assert "\n" not in str(caught.value)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert not (pushed / "raw" / "toy").exists()
