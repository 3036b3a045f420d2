"""First-order scores against the derivative by a gate and against weights times their gradients; losses without a layer against a network that lost it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from recompress.errors import IntegrityError
from recompress.methods.pruning import by_loss
from recompress.methods.pruning.by_loss import by_taylor, without_each_layer
from recompress.models.architecture import layers_of
from recompress.models.surgery import keep_layers, weight_of
from recompress.training.trainer import cross_entropy
from tests.six import HEADS, HIDDEN, LAYERS, NEURONS, SIX, checkpoint_of, features_of

pytestmark = pytest.mark.usefixtures("one_thread")
gates = jaxtyped(typechecker=beartype)(by_loss.gates)
example_losses = jaxtyped(typechecker=beartype)(by_loss.example_losses)


def loss_of(network: Any, feature: dict[str, list[int]]) -> torch.Tensor:
    logits = network(input_ids=torch.tensor([feature["input_ids"]])).logits
    labels = torch.tensor([feature["labels"]]).reshape(1, -1)
    return cross_entropy(logits if logits.ndim == 3 else logits[:, None], labels)


def test_a_gate_is_what_it_says() -> None:
    handed, wanted = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)
    gate = torch.ones(2, 1, 4, requires_grad=True)
    ((handed * gate) * wanted).square().sum().backward()
    torch.testing.assert_close(gates(handed, handed.grad), gate.grad[:, 0].double())


def test_examples_without_labels_cost_nothing() -> None:
    labels = torch.tensor([[1, -100], [-100, -100]])
    losses = example_losses(torch.randn(2, 2, 3), labels)
    assert losses[0] > 0
    assert losses[1] == 0


@pytest.mark.parametrize("family", SIX)
def test_taylor_scores_are_weights_times_gradients_one_example_at_a_time(family: str) -> None:
    """Sums of w * dL/dw over what reads a part: the output projection for heads, the second linear layer for neurons, what follows a norm for a dimension."""
    checkpoint = checkpoint_of(family)
    network, features = checkpoint.torch_network, features_of(checkpoint, family, 5)
    layers = layers_of(network)
    parts = by_taylor(network, layers, features)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    heads, neurons = torch.zeros(LAYERS, HEADS), torch.zeros(LAYERS, NEURONS)
    for feature in features:
        network.zero_grad()
        loss_of(network, feature).backward()
        for i, layer in enumerate(layers):
            for scores, linear in ((heads, layer.out), (neurons, layer.neurons_out)):
                gradient = linear.weight.grad if linear.weight.shape == weight_of(linear).shape and family != "gpt2" else linear.weight.grad.T
                scores[i] += (weight_of(linear) * gradient).sum(0).view(scores.shape[1], -1).sum(1).abs() / len(features)
    torch.testing.assert_close(torch.stack(parts.heads).float(), heads, rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(torch.stack(parts.neurons).float(), neurons, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_taylor_scores_of_dimensions_are_derivatives_by_gates_behind_the_norms(family: str) -> None:
    """A norm's own weights and biases multiply and add: scaling both is the gate."""
    checkpoint = checkpoint_of(family)
    network, features = checkpoint.torch_network, features_of(checkpoint, family, 4)
    norms = [module for layer in layers_of(network) for module in layer.module.modules() if "Norm" in type(module).__name__]
    expected = torch.zeros(HIDDEN)
    for feature in features:
        network.zero_grad()
        loss_of(network, feature).backward()
        for norm in norms:
            parameters = [norm.weight, norm.bias] if getattr(norm, "bias", None) is not None else [norm.weight]
            expected += torch.stack([parameter.detach() * parameter.grad for parameter in parameters]).sum(0).abs() / len(features)
    torch.testing.assert_close(by_taylor(network, layers_of(network), features).hidden.float(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("family", SIX)
def test_losses_without_a_layer_are_those_of_a_network_that_lost_it(family: str) -> None:
    checkpoint = checkpoint_of(family)
    features = features_of(checkpoint, family, 5)
    losses = without_each_layer(checkpoint.torch_network, LAYERS, features)
    assert len(layers_of(checkpoint.torch_network)) == LAYERS
    for i in range(LAYERS):
        lost: Any = copy.deepcopy(checkpoint.torch_network)
        keep_layers(lost, [j for j in range(LAYERS) if j != i])
        with torch.no_grad():
            expected = sum(float(loss_of(lost, feature)) for feature in features) / len(features)
        assert float(losses[i]) == pytest.approx(expected, rel=1e-4)


def test_losses_that_are_no_numbers_are_refused() -> None:
    checkpoint = checkpoint_of("bert")
    layers_of(checkpoint.torch_network)[0].out.weight.data[:] = float("nan")
    network, features = checkpoint.torch_network, features_of(checkpoint, "bert", 3)
    with pytest.raises(IntegrityError, match="not finite"):
        by_taylor(network, layers_of(network), features)
    with pytest.raises(IntegrityError, match="not finite"):
        without_each_layer(network, LAYERS, features)
