from __future__ import annotations

from pathlib import Path

import pytest

from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.serving.loaded import Loaded, load_version
from tests.families import inputs_of, saved


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A tagger whose int8 graph takes its ranges from all that it is asked at once."""
    root = tmp_path_factory.mktemp("int8")
    saved("bert", root / "floats")
    run_step("dynamic_int8", get_method("dynamic_int8").config(), root / "floats", root / "int8", inputs_of(root / "work"))
    return load_version("toy", "1", "1" * 64, root / "int8")


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The same kind of model on torch."""
    root: Path = tmp_path_factory.mktemp("floats")
    saved("bert", root / "floats")
    return load_version("toy", "2", "2" * 64, root / "floats")
