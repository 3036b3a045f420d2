from __future__ import annotations

from pathlib import Path

import pytest

from tests.evidence.people import people  # noqa: F401
from tests.flows.golden_project import unpack_project


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of an earlier version."""
    return unpack_project(tmp_path_factory.mktemp("golden") / "project")
