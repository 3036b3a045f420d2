"""A graph of ONNX in the making: nodes in the order in which they are computed, and tensors, each under one name and stored once.

What the graph computes from nothing but its own numbers (positions of rotations, shapes) are constants of nodes; tensors are the weights, so that whoever counts
numbers in a graph counts these.
Source: ONNX, opset 23; com.microsoft, version 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET, CONTRIB, IR = 23, 1, 10
"""The operators that are spoken, those of com.microsoft, and the form of the file."""
MICROSOFT = "com.microsoft"


class Graph:
    """Nodes, tensors, inputs and outputs."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}
        self._given: list[onnx.ValueInfoProto] = []
        self._told: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}

    def add(self, operator: str, given: Sequence[str], *, told: Sequence[str] = (), domain: str = "", **attributes: Any) -> str:
        """A node; its first output is named by its place where ``told`` names none. Gives that name."""
        import onnx

        name = f"{operator}_{len(self.nodes)}"
        node = onnx.helper.make_node(operator, list(given), list(told) or [f"{name}_output"], name, domain=domain, **attributes)
        self.nodes.append(node)
        return str(node.output[0])

    def extend(self, nodes: Iterable[onnx.NodeProto]) -> None:
        self.nodes.extend(nodes)

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """Numbers that belong to no weight, the same ones once."""
        import onnx

        array = np.asarray(values, dtype=dtype)
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self.add("Constant", [], value=onnx.numpy_helper.from_array(array))
        return self._constants[key]

    def tensor(self, name: str, values: np.ndarray[Any, Any]) -> str:
        """Weights, stored once under this name."""
        import onnx

        if name not in self.tensors:
            self.tensors[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def given(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """An input; names of dimensions stand for any number."""
        import onnx

        self._given.append(onnx.helper.make_tensor_value_info(name, kind, shape))

    def told(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """An output."""
        import onnx

        self._told.append(onnx.helper.make_tensor_value_info(name, kind, shape))

    def model(self, name: str) -> onnx.ModelProto:
        """All of it, but tensors that no node takes. Raises what the checker of ONNX raises."""
        import onnx

        taken = {given for node in self.nodes for given in node.input}
        tensors = [tensor for tensor in self.tensors.values() if tensor.name in taken]
        graph = onnx.helper.make_graph(self.nodes, name, self._given, self._told, tensors)
        opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(MICROSOFT, CONTRIB)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="recompress")
        onnx.checker.check_model(model)
        return model
