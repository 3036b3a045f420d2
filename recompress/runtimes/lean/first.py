"""The first token alone: where a head reads nothing of the last layer but the first token, the layer is computed for no other.

    Gather(X, 0, axis)          nothing but the first place of X along this axis is read
    f(A, B) -> X                f that treats places alike (sums, norms, products with a matrix, activations): so of A and of B, where they have this axis
    MatMul(P, V) -> X           of the rows of P; V is read whole, and so are the keys
    a tensor that others read   is cut here: Slice(A, 0:1)

Nodes are passed from the head upwards, as long as everybody who reads a tensor reads its first place alone; where anybody reads more, the tensor is cut. So queries,
the attention's output, the neurons and their norms are computed for one token, keys and values for all. Graphs that answer for each token have no such Gather.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from recompress.runtimes.lean.wiring import Wiring, attribute, insert

if TYPE_CHECKING:
    import onnx

ELEMENTWISE = frozenset(
    (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Min",
        "Max",
        "Where",
        "Neg",
        "Sqrt",
        "Exp",
        "Erf",
        "Tanh",
        "Relu",
        "Sigmoid",
        "Gelu",
        "HardSigmoid",
        "Cast",
        "Identity",
    )
)
"""Each number of the output follows from one number of each input."""
NORMS = frozenset(("LayerNormalization", "RMSNormalization"))
Axes = list[int | None]
"""For each input of a node the axis of which the first place is read; None where the input is read whole."""


def first_token_alone(model: onnx.ModelProto) -> int:
    """Rewrite ``model`` in place, and give the number of nodes that compute with one token instead of all; 0 where the pattern is not there."""
    import onnx

    wiring = Wiring(model)
    passed = _passed(wiring)
    cuts: dict[tuple[str, int], str] = {}
    inserted: dict[int, list[onnx.NodeProto]] = {}
    for place, node in enumerate(wiring.graph.node):
        if node.output[0] not in passed:
            continue
        axis, axes = passed[node.output[0]]
        if node.op_type == "Reshape":
            _reshape(wiring, node, axis)
        for i, wanted in enumerate(axes):
            if wanted is not None and node.input[i] not in passed:
                key = (node.input[i], wanted)
                if key not in cuts:
                    cuts[key] = f"{node.input[i]}_first_{wanted}"
                    inserted.setdefault(place, []).append(_cut(wiring, *key, cuts[key]))
                node.input[i] = cuts[key]
    for value in wiring.graph.value_info:
        if value.name in passed:
            value.type.tensor_type.shape.dim[passed[value.name][0]].CopyFrom(onnx.TensorShapeProto.Dimension(dim_value=1))
    insert(wiring.graph, inserted)
    return len(passed)


def _passed(wiring: Wiring) -> dict[str, tuple[int, Axes]]:
    """The outputs of nodes of which the first place is read and nothing else, with the axis and what that means for the inputs; those behind a node that mixes
    places are not among them."""
    asked: defaultdict[str, set[int | None]] = defaultdict(set)
    for name in wiring.given_out:
        asked[name].add(None)
    passed: dict[str, tuple[int, Axes]] = {}
    for node in reversed(wiring.graph.node):
        wanted = [*asked[node.output[0]]] if len(node.output) == 1 else [None]
        axes: Axes | None = None
        if _takes_first(wiring, node):
            axes = [_axis(wiring, node.input[0], attribute(node, "axis", 0)), None]
        elif len(wanted) == 1 and wanted[0] is not None:
            axes = axes_read(wiring, node, wanted[0])
            if axes is not None:
                passed[node.output[0]] = (wanted[0], axes)
        for i, name in enumerate(node.input):
            asked[name].add(None if axes is None else axes[i])
    return passed


def _takes_first(wiring: Wiring, node: onnx.NodeProto) -> bool:
    if node.op_type != "Gather" or wiring.shape(node.input[0]) is None or node.input[0] in wiring.stored:
        return False
    index = wiring.constant(node.input[1])
    return index is not None and index.size == 1 and int(index.reshape(-1)[0]) == 0


def _axis(wiring: Wiring, name: str, axis: int) -> int:
    return axis % len(wiring.shape(name) or (0,))


def axes_read(wiring: Wiring, node: onnx.NodeProto, axis: int) -> Axes | None:
    """What the first place of a node's output along ``axis`` is made of; None where that is not known to be the first place of anything."""
    shapes, out = [wiring.shape(name) for name in node.input], wiring.shape(node.output[0])
    if out is None or any(shape is None for shape in shapes):
        return None
    ranks = [len(shape or ()) for shape in shapes]
    rest: Axes = [None] * (len(shapes) - 1)
    if node.op_type in ELEMENTWISE:
        places = [axis - (len(out) - rank) for rank in ranks]
        return [place if place >= 0 and (shape or ())[place] != 1 else None for place, shape in zip(places, shapes, strict=True)]
    if node.op_type in NORMS:
        return [axis, *rest] if axis < attribute(node, "axis", -1) % len(out) else None
    if node.op_type == "Softmax":
        return [axis] if axis != attribute(node, "axis", -1) % len(out) else None
    if node.op_type == "MatMul":
        return [ranks[0] - 2, None] if axis == len(out) - 2 and ranks[0] > 1 and ranks[1] > 1 else None
    if node.op_type == "Transpose":
        return [attribute(node, "perm", list(reversed(range(len(out)))))[axis]]
    if node.op_type == "Reshape":
        alike = (shapes[0] or ())[: axis + 1] == out[: axis + 1]
        return [axis, None] if alike and all(isinstance(size, int) for size in out[axis + 1 :]) else None
    return None


def _reshape(wiring: Wiring, node: onnx.NodeProto, axis: int) -> None:
    """Let it make what it made of a cut input: sizes up to the axis are those of the input, which a 0 says."""
    sizes = [0] * (axis + 1) + [int(size) for size in (wiring.shape(node.output[0]) or ())[axis + 1 :]]
    node.input[1] = wiring.store(f"shape_{'_'.join(map(str, sizes))}", sizes)
    del node.attribute[:]  # allowzero, which would make a 0 of it


def _cut(wiring: Wiring, name: str, axis: int, output: str) -> onnx.NodeProto:
    import onnx

    bounds = [wiring.store(f"first_{what}", [number]) for what, number in (("from", 0), ("to", 1))]
    return onnx.helper.make_node("Slice", [name, *bounds, wiring.store(f"first_axis_{axis}", [axis])], [output], output)
