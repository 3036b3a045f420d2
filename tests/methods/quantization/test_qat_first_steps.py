"""The first steps of training with rounding in place, against plain torch over the same batches: straight through, and scales that are learned, not decayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recompress.methods.quantization.grid import FewBits, rounded
from recompress.methods.quantization.qat import Qat
from recompress.methods.registry import get_method
from recompress.models.architecture import encoder_linears
from recompress.models.packed import packed_linear
from recompress.models.surgery import weight_of
from tests.by_hand import FEW_STEPS, Tensors, still, train_by_hand
from tests.six import inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


def values_by_hand(family: str, weight: Tensor, config: FewBits) -> Tensor:
    """What a matrix is rounded to."""
    matrix = weight.detach().T if family == "gpt2" else weight.detach()
    values = packed_linear(rounded(matrix, config), torch.nn.Linear(matrix.shape[1], matrix.shape[0])).weight
    return values.T if family == "gpt2" else values


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_gradient_of_the_rounded_network_moves_the_weights_as_if_nothing_were_rounded(family: str, tmp_path: Path) -> None:
    config, inputs = Qat(**FEW_STEPS, bits=3, group_size=16), inputs_of(family, tmp_path, 24, seed=3)
    source = still(family)
    names = [f"{name}.weight" for name, _ in encoder_linears(source.torch_network)]

    def weights(theta: Tensors) -> Tensors:
        return theta | {name: theta[name] + (values_by_hand(family, theta[name], config) - theta[name]).detach() for name in names}

    expected = train_by_hand(source, inputs, config, weights=weights)
    done = get_method("qat").run(still(family), config, inputs).torch_network
    for name, linear in encoder_linears(still(family).torch_network):
        wanted = expected[f"{name}.weight"].T if family == "gpt2" else expected[f"{name}.weight"]
        given = done.get_submodule(name).weight
        differs = ((given - wanted).abs() > 1e-4).float().mean()  # a weight between two codes may fall to either side
        assert float(differs) < 0.01, name
        plain = packed_linear(rounded(weight_of(linear), config), torch.nn.Linear(wanted.shape[1], wanted.shape[0])).weight
        assert float(((plain - wanted).abs() > 1e-4).float().mean()) > 0.05, "training moved it to other codes"


def lsq(weight: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Esser et al. 2020, written so that autograd finds eq. 3 by itself: straight through the rounding, and through the clamp as it is."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    slowed = scales * (weight.shape[1] * high) ** -0.5
    steps = (scales - slowed).detach() + slowed  # the value of the scales with a gradient of 1 / sqrt(N Q)
    steps = steps + (steps.half().float() - steps).detach()
    places = (weight / steps).clamp(low, high)
    return (places + (places.round() - places).detach()) * steps


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_learned_scales_are_trained_and_not_decayed(family: str, tmp_path: Path) -> None:
    config: Any = Qat(**FEW_STEPS | {"weight_decay": 1.0}, bits=3, symmetric=True, scales="learned")
    inputs, source = inputs_of(family, tmp_path, 24, seed=3), still(family)
    linears = dict(encoder_linears(source.torch_network))
    trained = dict(source.torch_network.named_parameters())
    trained |= {f"{name}.scales": 2 * weight_of(linear).abs().mean(1, keepdim=True) / 3**0.5 for name, linear in linears.items()}

    def weights(theta: Tensors) -> Tensors:
        plain = {name: tensor for name, tensor in theta.items() if not name.endswith(".scales")}
        for name in linears:
            matrix = theta[f"{name}.weight"].T if family == "gpt2" else theta[f"{name}.weight"]
            values = lsq(matrix, theta[f"{name}.scales"], 3)
            plain[f"{name}.weight"] = values.T if family == "gpt2" else values
        return plain

    ends: Tensors = {}

    def after(step: int, steps: int, theta: Tensors) -> None:
        ends.update({name: tensor.clone() for name, tensor in theta.items() if name.endswith(".scales")})

    train_by_hand(source, inputs, config, trained=trained, weights=weights, after=after, undecayed=("scales",))
    done: Any = get_method("qat").run(still(family), config, inputs).torch_network
    for name in linears:
        torch.testing.assert_close(done.get_submodule(name).scales.float(), ends[f"{name}.scales"], rtol=5e-3, atol=1e-5)
        assert not torch.allclose(done.get_submodule(name).scales.float(), trained[f"{name}.scales"].detach(), rtol=5e-3), "they were learned"
