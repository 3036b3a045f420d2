"""What all tests share: telemetry off, few threads, the same draws everywhere, and no stores but their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tasks  # noqa: F401 - importing it switches every tool's telemetry off

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the processor, and threads that wait for each other spin
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("MLFLOW_TRACKING_URI", None)


settings.register_profile("steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")  # a busy machine is no defect, and what fails here fails everywhere


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
