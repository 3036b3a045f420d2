"""Scores against loops that anybody can follow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from recompress.errors import IntegrityError
from recompress.methods.pruning import importance
from recompress.methods.pruning.importance import by_activation, by_chance, by_magnitude
from recompress.models.architecture import layers_of
from recompress.models.surgery import weight_of
from recompress.runtimes.batches import pad_batch
from tests.six import HEADS, HIDDEN, LAYERS, SIX, checkpoint_of, features_of

pytestmark = pytest.mark.usefixtures("one_thread")
over_tokens = jaxtyped(typechecker=beartype)(importance.over_tokens)
over_examples = jaxtyped(typechecker=beartype)(importance.over_examples)
influence = jaxtyped(typechecker=beartype)(importance.influence)


@pytest.mark.parametrize("how", ["mean", "l2"])
def test_over_tokens_and_examples_equal_loops(how: str) -> None:
    scores = torch.randn(3, 4, 2)
    text = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()

    def fold(values: list[float]) -> float:
        return sum(map(abs, values)) / len(values) if how == "mean" else math.sqrt(sum(value * value for value in values))

    rows = [[fold([float(scores[e, t, p]) for t in range(4) if text[e, t]]) for p in range(2)] for e in range(3)]
    per_example = over_tokens(scores, text, how)
    torch.testing.assert_close(per_example, torch.tensor(rows, dtype=torch.float64))
    torch.testing.assert_close(over_examples(per_example, how), torch.tensor([fold([row[p] for row in rows]) for p in range(2)], dtype=torch.float64))


def test_influence_of_a_layer_that_does_nothing_turns_or_inverts() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    torch.testing.assert_close(influence(x, x * 3), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(influence(x, -x), torch.full((3,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(influence(x[:2], x[:2].flip(1)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("family", SIX)
def test_activation_scores_equal_one_example_at_a_time(family: str) -> None:
    checkpoint = checkpoint_of(family)
    network, features = checkpoint.torch_network, features_of(checkpoint, family, 5)
    layers = layers_of(network)
    parts, influences = by_activation(network, layers, features, tokens="mean", examples="l2")
    caught: dict[str, Any] = {"norms": {}}
    hooks = [layers[1].out.register_forward_pre_hook(lambda _, args: caught.update(heads=args[0][0]))]
    hooks += [layers[1].neurons_out.register_forward_pre_hook(lambda _, args: caught.update(neurons=args[0][0]))]
    hooks += [layers[1].module.register_forward_hook(lambda _, args, output: caught.update(given=args[0][0], came=output[0]))]
    norms = [module for layer in layers for module in layer.module.modules() if "Norm" in type(module).__name__]
    assert len(norms) == 2 * LAYERS
    hooks += [norm.register_forward_hook(lambda norm, _, output: caught["norms"].update({norm: output[0].double().abs().mean(0)})) for norm in norms]
    heads, neurons, blocks, hidden = [], [], [], []
    for feature in features:
        with torch.no_grad():
            network(**{name: torch.from_numpy(values) for name, values in pad_batch([feature], 0).items()})
        heads.append([sum(float(token[h * 8 : h * 8 + 8].norm()) for token in caught["heads"]) / len(caught["heads"]) for h in range(HEADS)])
        neurons.append(caught["neurons"].double().abs().mean(0))
        hidden.append(torch.stack([caught["norms"][norm] for norm in norms]))
        came, given = caught["came"].reshape(-1, HIDDEN), caught["given"]
        blocks += [1 - float(torch.dot(a, b) / (a.norm() * b.norm())) for a, b in zip(given, came, strict=True)]
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(parts.heads[1], torch.tensor(heads, dtype=torch.float64).square().sum(0).sqrt(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts.neurons[1], torch.stack(neurons).square().sum(0).sqrt(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts.hidden, torch.stack(hidden).square().sum(0).sqrt().sum(0), rtol=1e-4, atol=1e-6)
    assert float(influences[1]) == pytest.approx(sum(blocks) / len(blocks), rel=1e-4)


@pytest.mark.parametrize("family", SIX)
def test_magnitude_scores_equal_loops(family: str) -> None:
    """The second head and the sixth neuron of the first layer; the fourth dimension, in all layers."""
    network = checkpoint_of(family).torch_network.requires_grad_(False)
    layers = layers_of(network)
    layer, size = layers[0], layers[0].head_size
    scores = by_magnitude(layers)
    query, key, value = (weight_of(one) for one in (layer.query, layer.key, layer.value))
    if family == "gpt2":
        query, key, value = query[:HIDDEN], key[HIDDEN : 2 * HIDDEN], value[2 * HIDDEN :]
    second, its_group, owners = slice(size, 2 * size), slice(0, size) if family == "llama" else slice(size, 2 * size), 2 if family == "llama" else 1
    parts = [query[second], weight_of(layer.out)[:, second], key[its_group] / owners**0.5, value[its_group] / owners**0.5]
    assert float(scores.heads[0][1]) == pytest.approx(math.sqrt(sum(float(part.square().sum()) for part in parts)), rel=1e-5)
    vectors = [weight_of(linear)[5] for linear in layer.neurons_in] + [weight_of(layer.neurons_out)[:, 5]]
    assert float(scores.neurons[0][5]) == pytest.approx(math.sqrt(sum(float(vector.square().sum()) for vector in vectors)), rel=1e-5)
    ins = [weight_of(linear)[:, 3] for one in layers for linear in {one.query, one.key, one.value, *one.neurons_in}]
    outs = [weight_of(linear)[3] for one in layers for linear in (one.out, one.neurons_out)]
    assert float(scores.hidden[3]) == pytest.approx(math.sqrt(sum(float(vector.square().sum()) for vector in (*ins, *outs))), rel=1e-5)


def test_chance_follows_the_seed() -> None:
    layers = layers_of(checkpoint_of("bert").torch_network)
    assert torch.equal(by_chance(layers, 3).neurons[1], by_chance(layers, 3).neurons[1])
    assert not torch.equal(by_chance(layers, 3).neurons[1], by_chance(layers, 4).neurons[1])


def test_activations_that_are_not_finite_are_refused() -> None:
    checkpoint = checkpoint_of("bert")
    checkpoint.torch_network.get_input_embeddings().weight.data[:] = float("nan")
    with pytest.raises(IntegrityError, match="not finite"):
        by_activation(checkpoint.torch_network, layers_of(checkpoint.torch_network), features_of(checkpoint, "bert"), tokens="mean", examples="l2")
