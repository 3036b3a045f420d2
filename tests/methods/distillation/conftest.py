"""Dozens of tiny trainings: one thread."""

import pytest


@pytest.fixture(autouse=True)
def _quick(one_thread: None) -> None: ...
