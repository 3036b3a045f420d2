"""GPTQ: round column after column, and let the columns that are not yet rounded make up for what each rounding did.

    q_j = scale * (clamp(round(w_j / scale) + zero) - zero)         e = (w_j - q_j) / U[j, j]         W[:, j:] -= e U[j, j:]

with U of ``recompress.second_order`` and the steps of ``recompress.quantization.grid``. With ``act_order`` the columns with the largest inputs are rounded
first, while all others can still make up for them; steps then are those of the weights as they came. Weights that are zero, because they were pruned, stay so.
Layer after layer.
Source: Frantar et al. 2022, arXiv:2210.17323, eq. 2 and 3, algorithm 1; the order of columns is from the authors' later code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from recompress.architecture import SIX, encoder_linears
from recompress.benchmarks import ALL_BENCHMARKS
from recompress.calibration import calibration_features
from recompress.checkpoint import Checkpoint
from recompress.layerwise import Group, Statistics, each_layer
from recompress.method import Claim, Inputs, method
from recompress.packed import PackedLinear, Quantized, packed_linear
from recompress.quantization.grid import FewBits, Grid, codes_on, grid_of, pack_embeddings, prove_packed, quantized, refuse, values_of
from recompress.second_order import block_of, inverse_root, permute, sweep
from recompress.surgery import weight_of


class Gptq(FewBits):
    """How weights are stored, and what rounding is judged on."""

    act_order: bool = True
    """Round the columns with the largest inputs first. Llama-like models need it."""
    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the mean of the Hessian's diagonal that is added to it."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


def quantize_matrix(weight: Float[Tensor, "out in"], root: Float[Tensor, "in in"], config: FewBits, order: Int[Tensor, " in"] | None = None) -> Quantized:
    """The codes of ``weight``; of zeros those of zero. ``root`` is U of the columns in ``order``. Without an order, ``weight`` is overwritten."""
    columns = weight.shape[1]
    size = config.group_size or columns
    grid = grid_of(weight, config.bits, config.group_size, symmetric=config.symmetric)
    places = list(range(columns)) if order is None else order.tolist()
    codes = torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device)
    zero = weight == 0
    pruned = bool(zero.any())

    def settle(column: int, part: Float[Tensor, "out width"], j: int) -> Float[Tensor, " out"]:
        place = places[column]
        group = place // size
        if order is None and config.group_size and column % size == 0:  # steps for the weights as earlier columns have left them
            fresh = grid_of(part[:, j : j + size], config.bits, None, symmetric=config.symmetric)
            grid.scales[:, group], grid.zeros[:, group] = fresh.scales[:, 0], fresh.zeros[:, 0]
        one = Grid(grid.scales[:, group : group + 1], grid.zeros[:, group : group + 1])
        code = codes_on(part[:, j : j + 1], one, config.bits)
        if pruned:
            code = torch.where(zero[:, place : place + 1], one.zeros.to(torch.uint8), code)
        codes[:, place] = code[:, 0]
        return values_of(code, one)[:, 0]

    sweep(weight if order is None else weight[:, order], root, settle, block_of(config.group_size or 1))
    return quantized(codes, grid, config)


def prove(before: Checkpoint, after: Checkpoint, config: Gptq) -> list[Claim]:
    """Packed, in so many bits, and every zero still one."""
    pairs = [(weight_of(linear) == 0, after.torch_network.get_submodule(name)) for name, linear in encoder_linears(before.torch_network)]
    zeros = sum(int(zero.sum()) for zero, _ in pairs)
    kept = sum(int((module.weight[zero] == 0).sum()) for zero, module in pairs if isinstance(module, PackedLinear))
    return [*prove_packed(before, after, config), Claim("zeros that stayed zero", zeros, kept)]


@method(
    "gptq",
    Gptq,
    family="quantization",
    prove=prove,
    needs=("calibration",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Frantar et al. 2022, arXiv:2210.17323, eq. 2 and 3",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up="nothing: weights are unpacked when they are used",
)
def quantize_gptq(checkpoint: Checkpoint, config: Gptq, inputs: Inputs) -> Checkpoint:
    """Weights in few bits, the columns not yet rounded making up for those that are."""
    network = checkpoint.torch_network
    refuse(network, config)

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        hessian = statistics.hessian
        assert hessian is not None
        order = None
        if config.act_order:
            order = hessian.diagonal().argsort(descending=True, stable=True)
            permute(hessian, order)
        root = inverse_root(hessian, config.damping, next(iter(group)))
        return {name: packed_linear(quantize_matrix(weight_of(linear), root, config, order), linear) for name, linear in group.items()}

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    said = {"method": "gptq", **config.model_dump(mode="json")}
    each_layer(network, features, visit, hessian=True, said=said, workdir=inputs.workdir, label=inputs.label or "gptq")
    pack_embeddings(network, config)
    return checkpoint
