"""Where things sit in a transformer: embeddings, layers, heads (query, key, value, out), neurons (in, out), pooler and head.

One description for each family of models, as data. Methods ask ``layers_of(network)`` and never spell a module's name themselves. A family that is not
described here is refused, because a tool that looks in the wrong place does nothing and says "done".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from transformers import PreTrainedModel

Linear = Any
"""A ``torch.nn.Linear`` (weight ``[out, in]``) or GPT-2's ``Conv1D`` (weight ``[in, out]``); the two share no type of their own."""


@dataclass(frozen=True)
class Architecture:
    """The map of one family. Paths of parts are relative to a layer, others to the backbone (``network.base_model``)."""

    name: str
    """What the config calls it (``model_type``)."""
    layers: str
    attention: str
    """The module that knows the number of heads."""
    query: str
    key: str
    value: str
    out: str
    """Joins the heads: its inputs are the heads' outputs, one after another."""
    neurons_in: tuple[str, ...]
    """Linear layers whose outputs are the neurons; two where a gate multiplies."""
    neurons_out: str
    """The linear layer whose inputs are the neurons."""
    token_embedding: str
    pooler: str | None = None
    head: tuple[str, ...] = ("classifier", "qa_outputs")
    """Modules of the whole network that stand after the backbone."""
    neurons_setting: str = "intermediate_size"
    """The config's name for the number of neurons."""
    head_size_attribute: str = "attention_head_size"
    heads_attributes: tuple[str, ...] = ("num_attention_heads",)
    """Attributes of the attention module that hold the number of query heads."""
    width_attributes: tuple[str, ...] = ("all_head_size",)
    """Attributes of the attention module that hold heads * head size."""
    ratio_attributes: tuple[str, ...] = ()
    """Attributes of the attention module that hold query heads / key and value heads."""
    fused: bool = False
    """Query, key and value are one linear layer, in this order."""
    causal: bool = False
    """A decoder: each token sees those before it."""
    norms: tuple[str, ...] = ()
    """Norms of a layer that stand before its attention and before its neurons, while the residual stream runs past them; none where they stand behind the sums,
    in the stream."""
    last_norm: str = ""
    """Where norms stand before: the one behind the last layer."""
    head_norms: tuple[str, ...] = ()
    """Norms of each query and of each key head, over its channels."""
    activation_setting: str = "hidden_act"
    """The config's name for what stands between the linear layers of neurons."""
    positions_follow_padding: bool = False
    """The first position is the padding token's id + 1, so that this id must never move."""

    @property
    def norms_first(self) -> bool:
        return bool(self.norms)

    @property
    def grouped(self) -> bool:
        """Several query heads may share a key and value head."""
        return bool(self.ratio_attributes)


_BERT: dict[str, Any] = {
    "layers": "encoder.layer",
    "attention": "attention.self",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "neurons_in": ("intermediate.dense",),
    "neurons_out": "output.dense",
    "token_embedding": "embeddings.word_embeddings",
    "pooler": "pooler",
}
_LLAMA: dict[str, Any] = {
    "layers": "layers",
    "attention": "self_attn",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "neurons_in": ("mlp.gate_proj", "mlp.up_proj"),
    "neurons_out": "mlp.down_proj",
    "token_embedding": "embed_tokens",
    "head": ("lm_head", "score"),
    "head_size_attribute": "head_dim",
    "heads_attributes": (),
    "width_attributes": (),
    "ratio_attributes": ("num_key_value_groups",),
    "causal": True,
    "norms": ("input_layernorm", "post_attention_layernorm"),
    "last_norm": "norm",
}

ARCHITECTURES: Mapping[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(name="bert", **_BERT),
        Architecture(name="roberta", positions_follow_padding=True, **_BERT),
        Architecture(name="xlm-roberta", positions_follow_padding=True, **_BERT),
        Architecture(
            name="distilbert",
            layers="transformer.layer",
            attention="attention",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            out="attention.out_lin",
            neurons_in=("ffn.lin1",),
            neurons_out="ffn.lin2",
            token_embedding="embeddings.word_embeddings",
            head=("pre_classifier", "classifier", "qa_outputs"),
            neurons_setting="hidden_dim",
            heads_attributes=("n_heads",),
            width_attributes=("dim",),
        ),
        Architecture(
            name="gpt2",
            layers="h",
            attention="attn",
            query="attn.c_attn",
            key="attn.c_attn",
            value="attn.c_attn",
            out="attn.c_proj",
            neurons_in=("mlp.c_fc",),
            neurons_out="mlp.c_proj",
            token_embedding="wte",
            head=("lm_head", "score"),
            neurons_setting="n_inner",
            head_size_attribute="head_dim",
            heads_attributes=("num_heads",),
            width_attributes=("split_size", "embed_dim"),
            fused=True,
            causal=True,
            norms=("ln_1", "ln_2"),
            last_norm="ln_f",
            activation_setting="activation_function",
        ),
        Architecture(name="llama", **_LLAMA),
        Architecture(name="mistral", **_LLAMA),
        Architecture(name="qwen2", **_LLAMA),
        Architecture(name="qwen3", head_norms=("self_attn.q_norm", "self_attn.k_norm"), **_LLAMA),
    )
}

ALL_ARCHITECTURES = tuple(ARCHITECTURES)
"""For methods that work on all of them."""
DECODERS = tuple(a.name for a in ARCHITECTURES.values() if a.causal)
GROUPED = tuple(a.name for a in ARCHITECTURES.values() if a.grouped)
"""Decoders whose query heads may share key and value heads; their norms scale and move nothing (RMS), and their positions are rotations."""


@dataclass(frozen=True)
class Layer:
    """One layer of a network, with its parts at hand."""

    index: int
    module: nn.Module
    attention: nn.Module
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    neurons_in: tuple[Linear, ...]
    neurons_out: Linear
    architecture: Architecture

    @property
    def head_size(self) -> int:
        return int(getattr(self.attention, self.architecture.head_size_attribute))

    @property
    def heads(self) -> int:
        """Query heads; the inputs of ``out`` are as many times the head size."""
        return shape_of(self.out)[1] // self.head_size

    @property
    def groups(self) -> int:
        """Key and value heads, each with as many query heads as the others; as many as there are query heads, where each has its own."""
        return self.heads if self.architecture.fused else shape_of(self.key)[0] // self.head_size

    @property
    def neurons(self) -> int:
        return shape_of(self.neurons_out)[1]

    @property
    def norms(self) -> list[nn.Module]:
        """Of whole tokens; not those of single heads."""
        of_heads = [_at(self.module, path) for path in self.architecture.head_norms]
        return [module for module in self.module.modules() if is_norm(module) and module not in of_heads]


def architecture_of(network: PreTrainedModel) -> Architecture:
    """Raises ``InputError`` for a family that is not described."""
    return architecture_named(str(network.config.model_type))


def architecture_named(name: str) -> Architecture:
    """Raises ``InputError`` for a family that is not described."""
    if name not in ARCHITECTURES:
        raise InputError(f"architecture {name!r} is not known; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def layers_of(network: PreTrainedModel) -> list[Layer]:
    """The layers from the first to the last."""
    a = architecture_of(network)
    return [_layer(a, i, module) for i, module in enumerate(_at(network.base_model, a.layers))]


def check_described(network: PreTrainedModel, directory: Path) -> None:
    """Raises ``InputError`` where a layer of a freshly made network holds a linear layer that its description does not name, for example cross attention: what
    no method sees would be counted with the rest, and changed without any text that ever went through it."""
    if getattr(network.config, "is_decoder", False) and not architecture_of(network).causal:
        raise InputError(
            f"{directory} is a {network.config.model_type} that reads from left to right (is_decoder: true), which is not known here; take an encoder"
        )
    for layer in layers_of(network):
        described = {id(part) for part in (layer.query, layer.key, layer.value, layer.out, *layer.neurons_in, layer.neurons_out)}
        for name, module in layer.module.named_modules():
            if is_linear(module) and id(module) not in described:
                raise InputError(
                    f"{directory} has {name} in its layer {layer.index + 1}, which is no part of a {layer.architecture.name} that is known here; "
                    f"take a model without it{' (add_cross_attention: false in its config)' if 'cross' in name else ''}"
                )


def check_whole_text(network: PreTrainedModel, what: str) -> None:
    """Raises ``InputError`` for a network whose tokens see a window of the text alone, which ``what`` cannot say."""
    config: Any = network.config
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings and "sliding_attention" in getattr(config, "layer_types", ("sliding_attention",)):
        raise InputError(
            f"{what} cannot say here that tokens see the last {window:,} before them alone (sliding_window of this {config.model_type}); "
            f"keep texts to {window:,} tokens with max_position_embeddings in the base's config.json, or stay on torch"
        )


def encoder_linears(network: PreTrainedModel) -> Iterator[tuple[str, Linear]]:
    """Names and modules of all linear layers (``Linear`` and GPT-2's ``Conv1D``) inside the layers: no embeddings, no pooler, no head."""
    inside = {id(part) for layer in layers_of(network) for part in layer.module.modules()}
    return ((name, module) for name, module in network.named_modules() if id(module) in inside and is_linear(module))


def outer_linears(network: PreTrainedModel) -> list[Linear]:
    """The linear layers outside of the layers, in order: a decoder's output layer, or a head's middle layer (a pooler, for example) and its last one."""
    inside = {id(linear) for _, linear in encoder_linears(network)}
    return [module for module in network.modules() if is_linear(module) and id(module) not in inside]


def stream_norms(network: PreTrainedModel) -> list[nn.Module]:
    """The norms of the whole network whose vectors are as wide as the residual stream; not those of single heads."""
    of_heads = {id(_at(layer.module, path)) for layer in layers_of(network) for path in layer.architecture.head_norms}
    return [module for module in network.modules() if is_norm(module) and id(module) not in of_heads]


def is_norm(module: nn.Module) -> bool:
    """A ``LayerNorm``, or an RMS norm, of which each family has its own class."""
    return type(module).__name__.endswith(("LayerNorm", "RMSNorm"))


def is_linear(module: nn.Module) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def shape_of(linear: Linear) -> tuple[int, int]:
    """(outputs, inputs) of a ``Linear`` or of a ``Conv1D``, which stores its weight the other way round; also of one that is packed or factored."""
    from torch import nn

    if not is_linear(linear):
        return linear.out_features, linear.in_features
    rows, columns = linear.weight.shape
    return (rows, columns) if isinstance(linear, nn.Linear) else (columns, rows)


def _layer(a: Architecture, index: int, module: nn.Module) -> Layer:
    parts = {part: _at(module, getattr(a, part)) for part in ("attention", "query", "key", "value", "out", "neurons_out")}
    return Layer(index=index, module=module, neurons_in=tuple(_at(module, path) for path in a.neurons_in), architecture=a, **parts)


def _at(module: nn.Module, path: str) -> Any:
    return reduce(getattr, path.split("."), module)
