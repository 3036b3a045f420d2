"""A schedule fires: Prefect's server really creates the runs that a deployment's interval asks for.

With SQLAlchemy 2.1 Prefect 3.8 creates none while its health page stays green, which no version check and no ``pip check`` shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers import prefect_server

pytestmark = pytest.mark.timeout(240)

DEPLOY = """
import asyncio, sys
from datetime import timedelta
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule

async def deploy():
    async with PrefectClient(api=sys.argv[1]) as client:
        flow = await client.create_flow_from_name("nightly")
        every = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(seconds=3)), active=True)
        print(await client.create_deployment(flow_id=flow, name="every-three-seconds", schedules=[every]))

asyncio.run(deploy())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A Prefect server with a new database: its API's address."""
    with prefect_server(tmp_path, PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="2") as address:
        yield address


def test_an_interval_of_seconds_becomes_scheduled_runs(server: str, tmp_path: Path) -> None:
    completed = subprocess.run([sys.executable, "-c", DEPLOY, server], capture_output=True, text=True, timeout=120, check=False, env=os.environ.copy())
    assert completed.returncode == 0, completed.stderr[-2000:]
    deployment = completed.stdout.split()[-1]
    runs: list[dict[str, Any]] = []
    for _ in range(60):
        runs = httpx2.post(f"{server}/flow_runs/filter", json={"deployments": {"id": {"any_": [deployment]}}}, timeout=20).json()
        if len(runs) >= 2:
            break
        time.sleep(0.5)
    assert len(runs) >= 2, (tmp_path / "prefect-server.log").read_text()[-2000:]
    assert {run["auto_scheduled"] for run in runs} == {True}
    assert {run["state_type"] for run in runs} <= {"SCHEDULED", "PENDING", "RUNNING"}
