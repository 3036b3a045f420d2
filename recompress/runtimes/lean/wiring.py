"""A graph as it is wired: who makes a tensor, who reads it, what shape it has; and what changes a rewrite may make to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

Size = int | str
"""A number, or the name of a size that is free; sizes with one name are the same size."""
SMALL = 64
"""Numbers of a constant that may be a shape, an index or a factor."""


class Wiring:
    """The main graph of a model. Rewrites change the model in place; after one that adds or drops nodes the next takes a new ``Wiring``."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.makers: dict[str, onnx.NodeProto] = {name: node for node in self.graph.node for name in node.output}
        self.readers: defaultdict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
        for node in self.graph.node:
            for place, name in enumerate(node.input):
                self.readers[name].append((node, place))
        self.stored: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in self.graph.initializer}
        self.given_out = {value.name for value in self.graph.output}
        self._shapes: dict[str, tuple[Size, ...]] = {tensor.name: tuple(tensor.dims) for tensor in self.graph.initializer}
        for value in (*self.graph.value_info, *self.graph.input, *self.graph.output):
            if value.type.tensor_type.HasField("shape"):
                sizes = value.type.tensor_type.shape.dim
                self._shapes[value.name] = tuple(
                    size.dim_value if size.HasField("dim_value") else size.dim_param or f"{value.name} {i}" for i, size in enumerate(sizes)
                )

    def shape(self, name: str) -> tuple[Size, ...] | None:
        """None where nobody noted it."""
        return self._shapes.get(name)

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The numbers of a small constant; None for what is no constant, or a large one."""
        import onnx

        tensor = self.stored.get(name)
        return None if tensor is None or int(np.prod(tensor.dims)) > SMALL else onnx.numpy_helper.to_array(tensor)

    def store(self, name: str, values: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """A constant of this name, which is made where it is not there; integers are 64 bits wide."""
        import onnx

        if name not in self.stored:
            array = values if isinstance(values, np.ndarray) else np.array(values, dtype=np.int64)
            self.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            self.stored[name] = self.graph.initializer[-1]
            self._shapes[name] = array.shape
        return name


def attribute(node: onnx.NodeProto, name: str, usual: Any = None) -> Any:
    """The value of an attribute; ``usual`` where the node has none of that name."""
    import onnx

    return next((onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name), usual)


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove, in place, nodes and constants that nobody reads any more."""
    graph = model.graph
    read = {value.name for value in graph.output}
    for i in range(len(graph.node) - 1, -1, -1):
        node = graph.node[i]
        if read.isdisjoint(node.output):
            del graph.node[i]
        else:
            read.update(node.input)
    for i in range(len(graph.initializer) - 1, -1, -1):
        if graph.initializer[i].name not in read:
            del graph.initializer[i]


def insert(graph: onnx.GraphProto, before: dict[int, list[onnx.NodeProto]]) -> None:
    """Put nodes before others, named by their place in the graph; those at -1 come first of all."""
    nodes = [new for place, node in enumerate((None, *graph.node), -1) for new in (*before.get(place, []), *([] if node is None else [node]))]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]  # they belong to the list that is emptied next
    del graph.node[:]
    graph.node.extend(copies)
