"""A matrix of a network in a graph: as 32-bit floats, or as codes in blocks that ONNX Runtime multiplies (``MatMulNBits``) and looks up in.

    y = x W^T + b       floats: FusedMatMul(x, W), W as torch has it, [out, in]       codes: MatMulNBits(x, codes, scales, zeros)
    rows of W           floats: Gather(W, numbers)                                    codes: GatherBlockQuantized(codes, numbers, scales, zeros)

A matrix is called what the network calls it, the first of the names where several modules share it, and stands in the file once: an output layer that is tied to the
token embeddings, and layers that share their weights, take the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recompress.models.factored import FactoredLinear
from recompress.models.packed import Packed
from recompress.models.surgery import weight_of
from recompress.runtimes.blocks import Blocks
from recompress.runtimes.genai.graph import MICROSOFT, Graph
from recompress.runtimes.nbits import look_up, product, tensors_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Coding = Callable[[str, Any], Blocks | None]
"""What the matrix of a module is stored as, by its name and the module: blocks, or floats where it gives none."""


class Matrices:
    """The matrices of one network in one graph. ``level``: what inputs of codes are multiplied as (``recompress.methods.quantization.onnx_nbits``)."""

    def __init__(self, graph: Graph, network: PreTrainedModel, coding: Coding, level: int) -> None:
        self.graph, self._coding, self._level = graph, coding, level
        self._names = {id(module): name for name, module in network.named_modules()}
        self._blocks: dict[str, Blocks | None] = {}

    def name_of(self, module: nn.Module) -> str:
        """The first name of a module in the network."""
        return str(self._names[id(module)])

    def linear(self, received: str, module: Any) -> str:
        """The outputs of a linear layer; of one that is a product of two, of both."""
        if isinstance(module, FactoredLinear):
            return self.linear(self.linear(received, module.first), module.second)
        name = self.name_of(module)
        answered = self.product(received, name, module)
        if module.bias is None:
            return answered
        return self.graph.add("Add", [answered, self.graph.tensor(f"{name}.bias", module.bias.detach().float().numpy())])

    def product(self, received: str, name: str, module: Any) -> str:
        """``received`` times the matrix called ``name``, which ``module`` has."""
        import onnx

        blocks = self._blocks_of(name, module)
        if blocks is None:
            return self.graph.add("FusedMatMul", [received, self._floats(name, module)], domain=MICROSOFT, transB=1)
        place = f"product_{len(self.graph.nodes)}"
        stand_in = onnx.helper.make_node("MatMul", [received, name], [f"{place}_output"], place)
        self.graph.extend(product(stand_in, name, blocks, self._level))
        return f"{place}_output"

    def rows(self, numbers: str, module: Any) -> str:
        """The rows of a table of embeddings."""
        import onnx

        name = self.name_of(module)
        blocks = self._blocks_of(name, module)
        if blocks is None:
            return self.graph.add("Gather", [self._floats(name, module), numbers], axis=0)
        place = f"rows_{len(self.graph.nodes)}"
        self.graph.extend(look_up(onnx.helper.make_node("Gather", [name, numbers], [f"{place}_output"], place), name, blocks))
        return f"{place}_output"

    def _blocks_of(self, name: str, module: Any) -> Blocks | None:
        if name not in self._blocks:
            self._blocks[name] = blocks = self._coding(name, module)
            if blocks is not None:
                self.graph.tensors.update({tensor.name: tensor for tensor in tensors_of(name, blocks)})
        return self._blocks[name]

    def _floats(self, name: str, module: Any) -> str:
        weight = module.matrix() if isinstance(module, Packed) else weight_of(module)
        return self.graph.tensor(f"{name}.weight", weight.detach().float().numpy())
