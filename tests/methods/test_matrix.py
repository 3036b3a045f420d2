"""Every method on every architecture: it works, proves it, and answers the same in a new process; or it is declared unsupported, and refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recompress.errors import InputError
from recompress.methods.registry import Claim, all_methods
from recompress.methods.runner import run_step
from tests.families import remember_exports
from tests.methods.matrix import UNTIED, answers, inputs_for, make_source, settings_of
from tests.six import DECODERS, SIX, benchmark_of

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = all_methods()
CELLS = [(name, family) for name in METHODS for family in SIX]


def is_supported(name: str, family: str) -> bool:
    return family in METHODS[name].architectures and benchmark_of(family) in METHODS[name].benchmarks


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_exports(monkeypatch)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    untied = {f"untied {family}": make_source(family, folder / f"untied-{family}", tie_word_embeddings=False) for family in DECODERS}
    return {family: make_source(family, folder / family) for family in SIX} | untied


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("name, family", [cell for cell in CELLS if is_supported(*cell)])
def test_it_works_and_proves_it(name: str, family: str, sources: dict[str, Path], results: Path, tmp_path: Path) -> None:
    method, place = METHODS[name], results / name / family
    source = sources[f"untied {family}" if name in UNTIED else family]
    report = run_step(name, settings_of(method), source, place / "model", inputs_for(method, family, source, tmp_path / "work"))
    assert report.claims
    assert all(Claim(**claim).kept for claim in report.claims)
    before, after = (answers(directory, family) for directory in (source, place / "model"))
    if name not in ANSWERS_THE_SAME:
        assert any(was.shape != now.shape or not np.array_equal(was, now) for was, now in zip(before, after, strict=True)), "it did nothing"
    np.savez(place / "once.npz", *after)


ANSWERS_THE_SAME = {"onnx_fp32", "trim_vocabulary"}
"""Methods whose promise is that the answers stay (``trim_vocabulary``: for text of the kept tokens)."""


@pytest.mark.parametrize("name, family", [cell for cell in CELLS if not is_supported(*cell)])
def test_what_is_not_supported_is_refused(name: str, family: str, sources: dict[str, Path], tmp_path: Path) -> None:
    method = METHODS[name]
    with pytest.raises(InputError, match=f"{name} does not support the (architecture|benchmark)"):
        run_step(name, settings_of(method), sources[family], tmp_path / "model", inputs_for(method, family, sources[family], tmp_path / "work"))
    assert not (tmp_path / "model").exists()


def test_a_new_process_gets_the_same_answers(results: Path, root: Path) -> None:
    """Runs last: it reads what the tests before it have left."""
    archives = sorted(results.glob("*/*/once.npz"))
    subprocess.run([sys.executable, "-m", "tests.methods.matrix", str(results)], cwd=root, check=True)
    for once in archives:
        first, again = np.load(once), np.load(once.with_name("again.npz"))
        assert first.files == again.files
        for key in first.files:
            np.testing.assert_allclose(again[key], first[key], rtol=1e-5, atol=1e-5, err_msg=str(once))
