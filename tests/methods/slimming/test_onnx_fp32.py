"""The graph has to answer like the network on real text, not on random tokens alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import EffectMissing
from recompress.methods.slimming import onnx_fp32
from tests.methods.by_hand import saved_by
from tests.six import checkpoint_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_graph_that_is_wrong_where_only_text_is_long_enough_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = onnx_fp32.export_graph

    def other_places(network: Any, **named: Any) -> Any:
        wrong = copy.deepcopy(network)
        wrong.base_model.embeddings.position_embeddings.weight.data[12:] *= -1
        return usual(wrong, **named)

    monkeypatch.setattr(onnx_fp32, "export_graph", other_places)
    with pytest.raises(EffectMissing, match="largest change of an output"):
        saved_by("onnx_fp32", "bert", tmp_path, checkpoint_of("bert"))


def test_the_model_says_that_its_weights_are_floats(tmp_path: Path) -> None:
    _, exported, _ = saved_by("onnx_fp32", "bert", tmp_path, checkpoint_of("bert"))
    assert exported.info.onnx["int8"] is False
