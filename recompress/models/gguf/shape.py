"""What a config says of a network, in the keys of a GGUF file, and back.

A file says one number of heads, of key and value heads and of neurons for all layers. Whatever a network has that it cannot say is refused by name: widths that
differ from layer to layer, GPT-2's heads that no longer fill the hidden width, other activations and rotations.
Source: the GGUF specification, "Standardized key-value pairs"; the loader of llama.cpp for the families ``llama``, ``qwen2``, ``qwen3`` and ``gpt2``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError
from recompress.models.architecture import architecture_of, check_whole_text, layers_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Values = Mapping[str, Any]
NAMES = {"gpt2": "gpt2", "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""What a file calls each family. A Mistral without a window of its own computes what a Llama does."""
FAMILIES = tuple(NAMES)
READ = tuple(dict.fromkeys(NAMES.values()))
ARCHITECTURE = "general.architecture"
ACTIVATIONS = {"gelu": ("gelu_new", "gelu_pytorch_tanh"), "silu": ("silu", "swish")}
"""What llama.cpp computes between the linear layers of neurons: the first of a GPT-2, the second of the others."""
UNUSUAL = ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention", "mlp_bias")
"""Settings of configs that a file has no key for, where they are true."""


def family_of(values: Values) -> str:
    """The architecture that a file names. Raises ``InputError`` for one that is not read here."""
    family = values.get(ARCHITECTURE)
    if family not in READ:
        raise InputError(f"it holds a model of the architecture {family!r}; read here are {', '.join(READ)}")
    return str(family)


def config_of(values: Values, tensors: Mapping[str, tuple[int, ...]]) -> PreTrainedConfig:
    """The transformers config of a file. ``tensors``: the shapes of its tensors, ``[out, in]``. Raises ``InputError`` for what is missing or not known here."""
    from transformers import AutoConfig

    family = family_of(values)
    told = _Told(values, family)
    if "token_embd.weight" not in tensors:
        raise InputError("it has no token_embd.weight, so that it is no whole model")
    every = {
        "vocab_size": tensors["token_embd.weight"][0],
        "tie_word_embeddings": "output.weight" not in tensors,
        **{f"{name}_token_id": values.get(f"tokenizer.ggml.{key}_token_id") for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))},
    }
    settings = every | (_gpt2(told) if family == "gpt2" else _rotated(told, tensors))
    config: PreTrainedConfig = AutoConfig.for_model(family, **settings)
    return config


class _Told:
    """The keys of one family."""

    def __init__(self, values: Values, family: str) -> None:
        self.values, self.family = values, family

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.values.get(f"{self.family}.{key}", default)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"its key {self.family}.{key} is {value!r}, and has to be one whole number for all layers")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(f"{self.family}.{key}", default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise InputError(f"its key {self.family}.{key} is {value!r}, and has to be a number above 0")
        return float(value)


def _rotated(told: _Told, tensors: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, heads = told.whole("embedding_length"), told.whole("attention.head_count")
    size = told.whole("attention.key_length", width // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (other := told.whole(key, size)) != size:
            raise InputError(f"its key {told.family}.{key} is {other}, and its heads have {size} channels; only whole heads are rotated here")
    if "rope_freqs.weight" in tensors:
        raise InputError("it holds rope_freqs.weight, a rotation of its own for each channel (Llama 3.1 and later), which is not known here")
    if experts := told.values.get(f"{told.family}.expert_count"):
        raise InputError(f"it is a mixture of {experts} experts, which is not known here")
    if window := told.values.get(f"{told.family}.attention.sliding_window"):
        raise InputError(f"its tokens see the last {window} before them alone (attention.sliding_window), which is not known here")
    biases = {name for name in tensors if name.endswith(".bias")}
    if biases and not any(name.endswith("attn_q.bias") for name in biases):
        raise InputError(f"it holds {min(biases)}, a bias that no {told.family} has that is known here")
    return {
        "hidden_size": width,
        "num_hidden_layers": told.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": told.whole("attention.head_count_kv", heads),
        "head_dim": size,
        "intermediate_size": told.whole("feed_forward_length"),
        "max_position_embeddings": told.whole("context_length"),
        "rms_norm_eps": round(told.number("attention.layer_norm_rms_epsilon"), 12),
        "rope_parameters": _rotation(told),
        **({} if told.family == "qwen2" else {"attention_bias": bool(biases)}),
    }


def _rotation(told: _Told) -> dict[str, Any]:
    kind = told.values.get(f"{told.family}.rope.scaling.type", "none")
    base = {"rope_theta": told.number("rope.freq_base", 10000.0)}
    if kind == "none":
        return base | {"rope_type": "default"}
    if kind == "linear":
        return base | {"rope_type": "linear", "factor": told.number("rope.scaling.factor")}
    raise InputError(f"it stretches its rotation by {kind!r}, which is not known here; known: none, linear")


def _gpt2(told: _Told) -> dict[str, Any]:
    return {
        "n_embd": told.whole("embedding_length"),
        "n_layer": told.whole("block_count"),
        "n_head": told.whole("attention.head_count"),
        "n_inner": told.whole("feed_forward_length"),
        "n_positions": told.whole("context_length"),
        "layer_norm_epsilon": round(told.number("attention.layer_norm_epsilon"), 12),
    }


def values_of(network: PreTrainedModel) -> dict[str, Any]:
    """The keys of a file that holds this network; whole numbers are ``int``, others ``float``. Raises ``InputError`` for a network that no file can say."""
    about = architecture_of(network)
    family = about.name
    check_family(family)
    config, layers = network.config, layers_of(network)
    activation, computed = getattr(config, about.activation_setting), ACTIVATIONS["silu" if about.grouped else "gelu"]
    if activation not in computed:
        raise InputError(f"GGUF has no key for the activation {activation!r} of a {family}; llama.cpp computes {computed[0]}")
    check_whole_text(network, "GGUF")
    for name in UNUSUAL:
        if getattr(config, name, False):
            raise InputError(f"GGUF has no key for {name}: true of a {family}")
    heads, size = _one_for_all("heads", [layer.heads for layer in layers]), layers[0].head_size
    groups = _one_for_all("key and value heads", [layer.groups for layer in layers])
    neurons = _one_for_all("neurons", [layer.neurons for layer in layers])
    common = {
        "embedding_length": int(config.hidden_size),
        "block_count": len(layers),
        "attention.head_count": heads,
        "feed_forward_length": neurons,
        "context_length": int(config.max_position_embeddings),
    }
    of_family: Callable[..., dict[str, Any]] = _values_of_rotated if about.grouped else _values_of_gpt2
    own, name = of_family(config, heads, groups, size), NAMES[family]
    return {ARCHITECTURE: name, **{f"{name}.{key}": value for key, value in (common | own).items()}}


def check_family(family: str) -> None:
    """Raises ``InputError`` for a family that no file is written of here."""
    if family not in FAMILIES:
        raise InputError(f"GGUF is read and written for {', '.join(FAMILIES)} here, and this is a {family}")


def _one_for_all(what: str, counts: list[int]) -> int:
    if len(set(counts)) > 1:
        raise InputError(f"GGUF says one number of {what} for all layers, and this network has {', '.join(map(str, counts))}; cut all layers alike")
    return counts[0]


def _values_of_rotated(config: Any, heads: int, groups: int, size: int) -> dict[str, Any]:
    rotation = dict(config.rope_parameters)
    kind = rotation.get("rope_type", "default")
    if kind not in ("default", "linear"):
        raise InputError(f"GGUF is written for rotations that are plain or linear here, and this {config.model_type} has rope_type {kind!r}")
    stretched = {"rope.scaling.type": "linear", "rope.scaling.factor": float(rotation["factor"])} if kind == "linear" else {}
    lengths = dict.fromkeys(("attention.key_length", "attention.value_length", "rope.dimension_count"), size)
    base, epsilon = float(rotation["rope_theta"]), float(config.rms_norm_eps)
    return (
        {"attention.head_count_kv": groups, "attention.layer_norm_rms_epsilon": epsilon, "rope.freq_base": base, "vocab_size": config.vocab_size}
        | lengths
        | stretched
    )


def _values_of_gpt2(config: Any, heads: int, groups: int, size: int) -> dict[str, Any]:
    if heads * size != config.hidden_size:
        raise InputError(f"GGUF wants the heads of a gpt2 to fill its hidden width, and here {heads} heads of {size} channels stand in {config.hidden_size}")
    if not config.scale_attn_weights:
        raise InputError("GGUF has no key for scale_attn_weights: false of a gpt2")
    return {"attention.layer_norm_epsilon": float(config.layer_norm_epsilon)}
