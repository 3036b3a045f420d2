"""What all tests share: telemetry off, few threads, the same draws everywhere, and no stores but their own."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tasks  # noqa: F401 - importing it switches every tool's telemetry off

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the processor, and threads that wait for each other spin
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("MLFLOW_TRACKING_URI", None)
_looked_at: set[str] = set()


settings.register_profile("steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")  # a busy machine is no defect, and what fails here fails everywhere


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where time is limited, other files are the last ones after each commit, so that none is left out for ever."""
    if "RECOMPRESS_PROVE_UNTIL" in os.environ:
        files = list(dict.fromkeys(item.path for item in items))
        first = int(os.environ.get("RECOMPRESS_PROVE_FROM", 0)) % max(1, len(files))
        place = {path: number for number, path in enumerate(files[first:] + files[:first])}
        items.sort(key=lambda item: place[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    until = os.environ.get("RECOMPRESS_PROVE_UNTIL")
    if until and time.time() > float(until) and item.get_closest_marker("long"):
        pytest.skip("not proven here: the time given to `make prove` is over")
    _freeze_what_all_tests_share()


def _freeze_what_all_tests_share() -> None:
    """Each training ends with a collection of all garbage. What all tests have brought by then is none, and need not be looked at every time: neither the tests
    themselves nor, once they are there, the libraries that train."""
    for bringing in ("pytest", "transformers.trainer"):
        if bringing in sys.modules and bringing not in _looked_at:
            _looked_at.add(bringing)
            gc.collect()
            gc.freeze()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed loses nothing that it wrote; only a power cut would, and none happens here. Tests of durable writing watch ``os.fsync`` themselves."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def root() -> Path:
    """The project's folder."""
    return Path(__file__).parent.parent


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread: small tensors are quicker so, and sums come in one order."""
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture
def mirror() -> Path:
    """The folder of real data, where there is one."""
    place = os.environ.get("RECOMPRESS_DATA_MIRROR")
    if not place or not Path(place).is_dir():
        pytest.skip("no real data here: RECOMPRESS_DATA_MIRROR names no folder")
    return Path(place)
