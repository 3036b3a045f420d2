"""A graph that keeps numbers in another file is refused, wherever in the graph they are named and wherever one stands when it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from recompress.errors import IntegrityError
from recompress.models.onnx_graph import read_graph

X, Y, Z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xyz")
WHICH = helper.make_tensor_value_info("which", TensorProto.BOOL, [1])


def graph_with(weight: TensorProto, where: str) -> onnx.GraphProto:
    """x + w, with w as an initializer, a constant, inside a branch, or sparse."""
    add = helper.make_node("Add", ["x", "w"], ["y"])
    if where == "initializer":
        return helper.make_graph([add], "g", [X], [Y], [weight])
    if where == "constant":
        return helper.make_graph([helper.make_node("Constant", [], ["w"], value=weight), add], "g", [X], [Y])
    if where == "branch":
        branch = helper.make_graph([helper.make_node("Add", ["x", "w"], ["z"])], "b", [], [Z], [weight])
        return helper.make_graph([helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch)], "g", [X, WHICH], [Y])
    sparse = onnx.SparseTensorProto(dims=[4], values=weight, indices=helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3]))
    return helper.make_graph([helper.make_node("Constant", [], ["w"], sparse_value=sparse), add], "g", [X], [Y])


@pytest.mark.parametrize("where", ["initializer", "constant", "branch", "sparse"])
def test_numbers_in_another_file_are_refused_also_where_that_file_is_at_hand(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX's own checker looks for the file from where one stands, and is content once it is there."""
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").write_bytes(np.zeros(4, np.float32).tobytes())
    inside = helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="weights.bin")
    for weight in (inside, outside):
        model = helper.make_model(graph_with(weight, where), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, "model.onnx")
        if weight is inside:
            assert read_graph(Path("model.onnx")) == model
        else:
            with pytest.raises(IntegrityError, match=r"model\.onnx keeps weights in other files; a model directory holds one file of weights"):
                read_graph(Path("model.onnx"))
