"""Half precision: weights are stored in 16 bits, each rounded to the nearest number there, and computed with as 32-bit floats.

    float16:   11 binary digits from 6.1e-5 to 65,504, fewer below           |w' - w| <= 2^-11 |w| + 2^-25
    bfloat16:  8 binary digits over the range of 32-bit floats               |w' - w| <= 2^-8 |w|

Half the bytes, at next to no cost in quality. A step that packs the layers takes it along: before ``rtn`` or ``gptq`` it halves what these leave in floats, which in a
small decoder are its embeddings. What trains, cuts or factors comes before it, and graphs and files store numbers in their own ways.
Source: IEEE 754-2019, section 3.6 (binary16); Kalamkar et al. 2019, arXiv:1905.12322, section 2 (bfloat16).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.quantization.kv_cache import FILES
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import Checkpoint
from recompress.models.files import HalfPrecision, as_stored, distinct_tensors
from recompress.settings.base import Settings

ROUNDS: dict[str, tuple[float, float]] = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}
"""The farthest that a number is from the nearest in 16 bits: as a share of it, and, where it is tiny, in all."""
CHANGES = "it changes weights, which would be rounded a second time; put half_precision behind it"
OWN = "it stores numbers in a way of its own; leave half_precision out"
TRAINS = ("distill", "distill_base", "finetune", "gradual", "dynamic_sparse", "lora", "movement", "platon", "qat")
CUTS = (
    "activation_svd",
    "factorize_embeddings",
    "fisher_svd",
    "group_queries",
    "magnitude",
    "prune_structure",
    "rotate",
    "search",
    "share_layers",
    "sparsegpt",
    "svd",
    "tie_embeddings",
    "trim_vocabulary",
    "wanda",
)


class Half(Settings):
    """How weights are stored."""

    dtype: HalfPrecision = "float16"
    """Nearer with float16; with bfloat16 for models that were trained in it, or hold weights above 65,504."""


def rounded(tensor: Float[Tensor, "..."], dtype: HalfPrecision) -> Float[Tensor, "..."]:
    """The nearest numbers that 16 bits hold, in 32-bit floats."""
    return tensor.to(getattr(torch, dtype)).float()


def prove(before: Checkpoint, after: Checkpoint, config: Half, inputs: Inputs) -> list[Claim]:
    """Every number that is stored takes two bytes, and none is further from what it was than the nearest in 16 bits can be."""
    was, network = distinct_tensors(before.torch_network), after.torch_network
    parameters = {name for name, _ in network.named_parameters()}
    stored = {name: tensor for name, tensor in as_stored(network, after.info.floats).items() if name in parameters}
    share, least = ROUNDS[config.dtype]
    far = max(float(((tensor.float() - was[name]).abs() / (share * was[name].abs() + least)).max()) for name, tensor in stored.items())
    return [
        Claim("bytes of a number", 2, sum(tensor.nbytes for tensor in stored.values()) / sum(tensor.numel() for tensor in stored.values())),
        Claim(
            "numbers that are otherwise in the file than in memory",
            0,
            sum(int((tensor.float() != network.get_parameter(name)).sum()) for name, tensor in stored.items()),
        ),
        Claim("largest rounding of a number, as a share of the farthest that the nearest can be", 1, far, bound="at most"),
    ]


@method(
    "half_precision",
    Half,
    family="quantization",
    prove=prove,
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="IEEE 754-2019, section 3.6; Kalamkar et al. 2019, arXiv:1905.12322, section 2",
    shrinks="bytes, to a half; behind a step that packs the layers, those of what it leaves in floats",
    speeds_up="nothing: numbers are 32-bit floats in memory",
    not_after={"half_precision": "weights are stored in 16 bits already; one such step is enough"},
    not_before=dict.fromkeys((*TRAINS, *CUTS), CHANGES) | dict.fromkeys(FILES, OWN),
)
def store_in_half(checkpoint: Checkpoint, config: Half, inputs: Inputs) -> Checkpoint:
    """Weights in 16 bits on disk, floats in memory.

    Raises ``InputError`` for weights that float16 cannot hold.
    """
    largest = torch.finfo(getattr(torch, config.dtype)).max
    with torch.no_grad():
        for name, parameter in checkpoint.torch_network.named_parameters():
            if float(parameter.abs().max()) > largest:
                raise InputError(
                    f"{name} holds a weight of {float(parameter.abs().max()):g}, above the {largest:,.0f} of {config.dtype}; set dtype to bfloat16"
                )
            parameter.copy_(rounded(parameter, config.dtype))
    checkpoint.info = replace(checkpoint.info, floats=config.dtype)
    return checkpoint
