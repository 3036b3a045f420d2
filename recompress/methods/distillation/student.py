"""Where a student comes from: a network of a smaller shape, or some layers of a larger one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from recompress.errors import InputError
from recompress.methods.distillation.dials import Shape
from recompress.methods.registry import Claim
from recompress.models.architecture import architecture_of, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.heads import head_of
from recompress.models.number_head import complete_output, put_in
from recompress.models.surgery import keep_layers, note_kinds

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def fresh_student(checkpoint: Checkpoint, shape: Shape, seed: int) -> Checkpoint:
    """A new network of ``shape`` with the tokenizer, labels and vocabulary of ``checkpoint``. The same seed gives the same weights.

    Raises ``InputError`` when the shape is impossible or not smaller.
    """
    source = checkpoint.torch_network
    config = shaped(source, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        network: PreTrainedModel = head_of(checkpoint.info.benchmark).auto_model().from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    complete_output(network, checkpoint.info.benchmark)
    if checkpoint.info.standard is not None:
        put_in(network, checkpoint.info.standard)
    was, now = source.num_parameters(), network.num_parameters()
    if now >= was:
        raise InputError(f"student: a network of that shape has {now:,} parameters, the model has {was:,}; ask for fewer layers, heads, neurons or less width")
    return Checkpoint(network.eval(), checkpoint.tokenizer, replace(checkpoint.info, heads=(), neurons=()))


def shaped(network: PreTrainedModel, shape: Shape) -> PreTrainedConfig:
    """The network's config in another shape. Raises ``InputError`` when heads do not divide the width."""
    config = copy.deepcopy(network.config)
    hidden, heads = shape.hidden or config.hidden_size, shape.heads or config.num_attention_heads
    if hidden % heads:
        raise InputError(f"student: the width {hidden} is no multiple of {heads} heads; choose numbers that divide")
    queries = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    there, count = config.num_hidden_layers, shape.layers or config.num_hidden_layers
    note_kinds(config, [i * there // count for i in range(count)])
    config.num_hidden_layers = count
    config.hidden_size, config.num_attention_heads = hidden, heads
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = heads // queries if heads % queries == 0 else heads
    if hasattr(config, "head_dim"):
        config.head_dim = hidden // heads
    if shape.neurons is not None:
        setattr(config, architecture_of(network).neurons_setting, shape.neurons)
    return config


def some_layers(checkpoint: Checkpoint, count: int) -> Checkpoint:
    """The same model with ``count`` of its layers, evenly spread from the first on. Raises ``InputError`` when it has not so many."""
    there = len(layers_of(checkpoint.torch_network))
    if count >= there:
        raise InputError(f"layers is {count}, but the model has {there}; a student has fewer than its teacher")
    keep_layers(checkpoint.torch_network, [i * there // count for i in range(count)])
    return checkpoint


def prove_shape(before: Checkpoint, after: Checkpoint, shape: Shape) -> list[Claim]:
    """Layers, width, heads and neurons, counted on the weights that were read back; what the shape leaves out is as the config was before."""
    config, layers = before.torch_network.config, layers_of(after.torch_network)
    neurons = shape.neurons or getattr(config, architecture_of(before.torch_network).neurons_setting) or 4 * (shape.hidden or config.hidden_size)
    count = shape.layers or config.num_hidden_layers
    return [
        Claim("layers", count, len(layers)),
        Claim("width", shape.hidden or config.hidden_size, after.torch_network.get_input_embeddings().weight.shape[1]),
        Claim("heads", count * (shape.heads or config.num_attention_heads), sum(layer.heads for layer in layers)),
        Claim("neurons", count * neurons, sum(layer.neurons for layer in layers)),
    ]
