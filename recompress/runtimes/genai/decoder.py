"""The graph of a decoder with a cache of keys and values, written from the architecture's own description.

    given    input_ids [batch, tokens], attention_mask [batch, read], past_key_values.N.key and .value [batch, heads, read before, channels]
    told     logits [batch, tokens, vocabulary], present.N.key and .value [batch, heads, read, channels]           N: the number of a layer

Attention is one node, GroupQueryAttention, which keeps the cache, sees no later token, and rotates queries and keys by itself where heads have a multiple of 16 channels;
where they do not, they are rotated before it. Each layer says how many heads, key and value heads and neurons it has, so that they may differ from layer to layer.
Logits stand behind every token that is read: a window is judged by all of them.
Source: ONNX, opset 23 (RMSNormalization, RotaryEmbedding, Gelu); ONNX Runtime's contrib operators (com.microsoft, version 1): GroupQueryAttention, FusedMatMul, MatMulNBits;
Su et al. 2021, arXiv:2104.09864, section 3.4 (rotation).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recompress.models.architecture import Layer, architecture_of, layers_of
from recompress.models.gguf.tensors import POSITIONS, is_tied
from recompress.runtimes.genai.graph import MICROSOFT, Graph
from recompress.runtimes.genai.matrices import Coding, Matrices

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "relu": "relu"}
"""What a config may call what stands between the linear layers of neurons, and how it is computed; of GELUs, by which approximation."""
ROTATES = 16
"""Of how many channels a head must be a multiple for attention to rotate it by itself."""


def decoder_graph(network: PreTrainedModel, coding: Coding, level: int) -> onnx.ModelProto:
    """The graph of a network, its matrices stored as ``coding`` says. ``level``: what inputs of codes are multiplied as, 1 or 4."""
    return _Decoder(network, coding, level).model()


class _Decoder:
    def __init__(self, network: PreTrainedModel, coding: Coding, level: int) -> None:
        self.network, self.graph = network, Graph()
        self.about = architecture_of(network)
        self.family = self.about.name
        self.config: Any = network.config
        self.matrices = Matrices(self.graph, network, coding, level)
        self._rotates = self.about.grouped

    def model(self) -> onnx.ModelProto:
        import onnx

        kinds, network = onnx.TensorProto, self.network
        self.graph.given("input_ids", kinds.INT64, ["batch", "tokens"])
        self.graph.given("attention_mask", kinds.INT64, ["batch", "read"])
        self.graph.told("logits", kinds.FLOAT, ["batch", "tokens", int(network.get_input_embeddings().num_embeddings)])
        stream = self.matrices.rows("input_ids", network.get_input_embeddings())
        if self.family in POSITIONS:
            places = network.base_model.get_submodule(POSITIONS[self.family])
            stream = self.graph.add("Add", [stream, self.graph.add("Gather", [self._vector(places, "weight"), self.positions], axis=0)])
        for layer in layers_of(network):
            stream = self._layer(layer, stream)
        self._logits(self._norm(network.base_model.get_submodule(self.about.last_norm), stream))
        return self.graph.model(self.family)

    def _layer(self, layer: Layer, stream: str) -> str:
        received = self._norm(layer.module.get_submodule(self.about.norms[0]), stream)
        stream = self.graph.add("Add", [stream, self.matrices.linear(self._attention(layer, received), layer.out)])
        received = self._norm(layer.module.get_submodule(self.about.norms[1]), stream)
        return self.graph.add("Add", [stream, self.matrices.linear(self._neurons(layer, received), layer.neurons_out)])

    def _attention(self, layer: Layer, received: str) -> str:
        """What the heads give, one after another."""
        import onnx

        graph, before, after = self.graph, f"past_key_values.{layer.index}", f"present.{layer.index}"
        for part in ("key", "value"):
            graph.given(f"{before}.{part}", onnx.TensorProto.FLOAT, ["batch", layer.groups, "before", layer.head_size])
            graph.told(f"{after}.{part}", onnx.TensorProto.FLOAT, ["batch", layer.groups, "read", layer.head_size])
        inside = self._rotates and layer.head_size % ROTATES == 0
        if layer.architecture.fused:
            asked = [self.matrices.linear(received, layer.query), "", ""]
        else:
            asked = [self.matrices.linear(received, part) for part in (layer.query, layer.key, layer.value)]
            for number, path in enumerate(self.about.head_norms):
                asked[number] = self._normed_heads(layer.module.get_submodule(path), asked[number], layer.head_size)
            if self._rotates and not inside:
                asked = [self._rotated(asked[0], layer.heads), self._rotated(asked[1], layer.groups), asked[2]]
        return graph.add(
            "GroupQueryAttention",
            [*asked, f"{before}.key", f"{before}.value", *self.lengths, *(self.rotation if inside else ())],
            told=[f"attention.{layer.index}", f"{after}.key", f"{after}.value"],
            domain=MICROSOFT,
            num_heads=layer.heads,
            kv_num_heads=layer.groups,
            scale=float(layer.attention.scaling),  # type: ignore[arg-type]
            do_rotary=int(inside),
        )

    def _normed_heads(self, norm: Any, given: str, size: int) -> str:
        """Each head by itself."""
        heads = self.graph.add("Reshape", [given, self.graph.constant([0, 0, -1, size])])
        return self.graph.add("Reshape", [self._norm(norm, heads), self.graph.constant([0, 0, -1])])

    def _rotated(self, given: str, heads: int) -> str:
        return self.graph.add("RotaryEmbedding", [given, *self.rotation, self.positions], num_heads=heads)

    def _neurons(self, layer: Layer, received: str) -> str:
        """What the neurons give, by a gate where there is one."""
        first, *rest = (self.matrices.linear(received, part) for part in layer.neurons_in)
        gate = self._activated(first)
        return self.graph.add("Mul", [gate, *rest]) if rest else gate

    def _activated(self, given: str) -> str:
        kind = ACTIVATIONS[getattr(self.config, self.about.activation_setting)]
        if kind == "silu":
            return self.graph.add("Mul", [given, self.graph.add("Sigmoid", [given])])
        return self.graph.add("Relu", [given]) if kind == "relu" else self.graph.add("Gelu", [given], approximate=kind)

    def _norm(self, norm: Any, given: str) -> str:
        if getattr(norm, "bias", None) is not None:
            return self.graph.add("LayerNormalization", [given, self._vector(norm, "weight"), self._vector(norm, "bias")], axis=-1, epsilon=float(norm.eps))
        return self.graph.add("RMSNormalization", [given, self._vector(norm, "weight")], axis=-1, epsilon=float(norm.variance_epsilon))

    def _vector(self, module: Any, part: str) -> str:
        """Numbers of a module that are no matrix of a product, as they are."""
        return self.graph.tensor(f"{self.matrices.name_of(module)}.{part}", getattr(module, part).detach().float().numpy())

    def _logits(self, given: str) -> None:
        output, embedding = self.network.get_output_embeddings(), self.network.get_input_embeddings()
        answered = self.matrices.product(given, self.matrices.name_of(embedding if is_tied(self.network) else output), output)
        if getattr(output, "bias", None) is not None:
            answered = self.graph.add("Add", [answered, self._vector(output, "bias")])
        self.graph.add("Identity", [answered], told=["logits"])

    @cached_property
    def lengths(self) -> tuple[str, str]:
        """For each text the number of its last token, and the length of all."""
        import onnx

        graph, whole = self.graph, onnx.TensorProto.INT32
        read = graph.add("ReduceSum", ["attention_mask", graph.constant([1])], keepdims=0)
        last = graph.add("Cast", [graph.add("Sub", [read, graph.constant(1)])], to=whole)
        total = graph.add("Squeeze", [graph.add("Shape", ["attention_mask"], start=1, end=2), graph.constant([0])])
        return last, graph.add("Cast", [total], to=whole)

    @cached_property
    def positions(self) -> str:
        """The positions of the tokens that are read now: how many of the mask's ones stand before each."""
        graph = self.graph
        every = graph.add("Sub", [graph.add("CumSum", ["attention_mask", graph.constant(1)]), graph.constant(1)])
        count = graph.add("Neg", [graph.add("Shape", ["input_ids"], start=1, end=2)])
        ends = graph.constant([np.iinfo(np.int64).max])
        return graph.add("Max", [graph.add("Slice", [every, count, ends, graph.constant([1])]), graph.constant(0)])

    @cached_property
    def rotation(self) -> tuple[str, str]:
        """Cosines and sines, [positions, channels / 2], computed from the network's frequencies when the graph is opened."""
        graph, rotary = self.graph, self.network.base_model.rotary_emb
        count = int(self.config.max_position_embeddings)
        places = graph.add("Range", [graph.constant(number, np.float32) for number in (0, count, 1)])
        angles = graph.add("Mul", [graph.add("Unsqueeze", [places, graph.constant([1])]), graph.constant(rotary.inv_freq.numpy()[None], np.float32)])
        stretch = graph.constant(float(rotary.attention_scaling), np.float32)
        cosines, sines = (graph.add("Mul", [graph.add(part, [angles]), stretch]) for part in ("Cos", "Sin"))
        return cosines, sines
