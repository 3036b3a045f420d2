"""Dozens of tiny trainings: one thread, no waiting for the disk, and no search for garbage among what the libraries brought."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _libraries_are_no_garbage() -> Iterator[None]:
    """After each training ``accelerate`` collects garbage, which takes longer than the training as long as all of torch is looked through."""
    import recompress.training.trainer  # noqa: F401 - all that is heavy comes with it

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quick(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote; only a power cut would, and none happens here."""
    monkeypatch.setattr(os, "fsync", lambda number: None)
