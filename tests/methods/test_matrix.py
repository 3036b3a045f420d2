"""Every method on every architecture, decoders that classify among them: it works, proves it, and answers the same in a new process; or it is declared
unsupported, and refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.errors import InputError
from recompress.methods.registry import Claim, all_methods
from recompress.methods.runner import run_step
from tests.methods.matrix import UNTIED, Sources, answers, inputs_for, paddings_seen, settings_of
from tests.six import CLASSIFIERS, KIN, KINDS, LATER, READERS, SIX, architecture_in, benchmark_of

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = all_methods()
LEARNS_ON = "llama-classifier"
"""Trainings take seconds, and all of them fill up batches in one place: of the decoders that classify, one is enough."""
EVERY = (*SIX, *KIN, *CLASSIFIERS, *READERS, *KINDS)
CELLS: list[tuple[str, str]] = [
    (name, family) for name, method in METHODS.items() for family in EVERY if family not in CLASSIFIERS or family == LEARNS_ON or "training" not in method.needs
]


def parameters(*, supported: bool) -> list[Any]:
    """Cells as parameters of a test. The likes of what is asked anyway wait for ``make prove``."""
    cells = (cell for cell in CELLS if is_supported(*cell) == supported)
    return [pytest.param(name, family, marks=pytest.mark.long if waits(name, family) else ()) for name, family in cells]


def waits(name: str, family: str) -> bool:
    """What trains, and graphs, take seconds for each family: one encoder and one decoder stand for the others."""
    return family in LATER or (family not in ("bert", "llama") and ("training" in METHODS[name].needs or METHODS[name].gives == "onnx"))


def is_supported(name: str, family: str) -> bool:
    return architecture_in(family) in METHODS[name].architectures and benchmark_of(family) in METHODS[name].benchmarks


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("name, family", parameters(supported=True))
def test_it_works_and_proves_it(name: str, family: str, sources: Sources, results: Path, tmp_path: Path) -> None:
    method, place = METHODS[name], results / name / family
    source = sources.of(family, "untied" if name in UNTIED else "packed" if method.takes == "packed" else "plain")
    inputs = inputs_for(method, family, source, tmp_path / "work")
    with paddings_seen() as wrong:
        report = run_step(name, settings_of(method), source, place / "model", inputs)
    assert not wrong, "batches were filled up with a token that is not the config's"
    assert report.claims
    assert all(Claim(**claim).kept for claim in report.claims)
    before, after = (answers(directory, family) for directory in (source, place / "model"))
    if name not in ANSWERS_THE_SAME:
        assert any(was.shape != now.shape or not np.array_equal(was, now) for was, now in zip(before, after, strict=True)), "it did nothing"
    np.savez(place / "once.npz", *after)
    if family in CLASSIFIERS and name not in ANSWERS_WITH_THE_BATCH:
        for alone, padded in zip(answers(place / "model", family, batch_size=1), after, strict=True):
            np.testing.assert_allclose(alone, padded, atol=1e-5, err_msg="a text alone is answered otherwise than among others")


ANSWERS_THE_SAME = {"onnx_fp32", "rotate", "trim_vocabulary"}
"""Methods whose promise is that the answers stay (``trim_vocabulary``: for text of the kept tokens)."""


ANSWERS_WITH_THE_BATCH = {"dynamic_int8"}
"""Methods that take one scale for all activations of a batch."""


@pytest.mark.parametrize("name, family", parameters(supported=False))
def test_what_is_not_supported_is_refused(name: str, family: str, sources: Sources, tmp_path: Path) -> None:
    method = METHODS[name]
    source = sources.of(family, "packed" if method.takes == "packed" else "plain")
    with pytest.raises(InputError, match=f"{name} does not support the (architecture|benchmark)"):
        run_step(name, settings_of(method), source, tmp_path / "model", inputs_for(method, family, source, tmp_path / "work"))
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
