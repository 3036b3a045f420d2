"""A graph is one protobuf message of less than 2 GiB: what is larger is refused in one line, and before anything is trained where that can be known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from recompress.errors import InputError
from recompress.models import onnx_graph
from recompress.models.base import numbers_of
from recompress.models.checkpoint import save
from recompress.models.onnx_graph import LARGEST, check_fits
from recompress.runtimes.export import export_graph
from tasks.steps.train import check_graphs_fit
from tests.tiny import tiny_checkpoint


def plan(*methods: str) -> SimpleNamespace:
    steps = tuple(SimpleNamespace(method=method, gives="onnx" if method == "dynamic_int8" else "torch") for method in methods)
    return SimpleNamespace(recipe=SimpleNamespace(benchmark="text-classification"), steps={"small": steps})


def test_two_gibibytes_are_the_limit() -> None:
    check_fits(LARGEST // 4, "it")
    with pytest.raises(InputError, match=r"it has 536,870,912 weights, 2\.00 GiB in 32 bits, .*make it smaller first .*or stay on torch"):
        check_fits(LARGEST // 4 + 1, "it")


def test_a_large_base_is_refused_before_anything_is_trained_and_a_large_network_before_it_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_checkpoint("text-classification")
    save(model, tmp_path / "base")
    numbers = sum(parameter.numel() for parameter in model.torch_network.parameters())
    assert numbers_of(tmp_path / "base", heads=False) == numbers
    check_graphs_fit(plan("dynamic_int8"), tmp_path / "base")  # type: ignore[arg-type]
    monkeypatch.setattr(onnx_graph, "LARGEST", 4 * numbers - 1)
    with pytest.raises(InputError, match="variant 'small' begins with dynamic_int8, but the base has"):
        check_graphs_fit(plan("dynamic_int8"), tmp_path / "base")  # type: ignore[arg-type]
    check_graphs_fit(plan("trim_vocabulary", "dynamic_int8"), tmp_path / "base")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the model has"):
        export_graph(model.torch_network)
