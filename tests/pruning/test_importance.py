"""Scores against loops that anybody can follow."""

from __future__ import annotations

import math

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from recompress.architecture import layers_of
from recompress.errors import IntegrityError
from recompress.pruning import importance
from recompress.pruning.importance import by_activation, by_chance, by_magnitude, strongest, strongest_overall
from recompress.runtimes.batches import pad_batch
from tests.families import FAMILIES, HEADS, HIDDEN, checkpoint_of, features_of

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
    found = over_tokens(scores, text, how)
    torch.testing.assert_close(found, torch.tensor(rows, dtype=torch.float64))
    torch.testing.assert_close(over_examples(found, how), torch.tensor([fold([row[p] for row in rows]) for p in range(2)], dtype=torch.float64))


def test_influence_of_a_layer_that_does_nothing_turns_or_inverts() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    torch.testing.assert_close(influence(x, x * 3), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(influence(x, -x), torch.full((3,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(influence(x[:2], x[:2].flip(1)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_scores_equal_one_example_at_a_time(family: str) -> None:
    checkpoint = checkpoint_of(family)
    network, features = checkpoint.torch_network, features_of(checkpoint, 5)
    layers = layers_of(network)
    found = by_activation(network, layers, features, tokens="mean", examples="l2")
    caught: dict[str, torch.Tensor] = {}
    hooks = [layers[1].out.register_forward_pre_hook(lambda _, args: caught.update(heads=args[0][0]))]
    hooks += [layers[1].neurons_out.register_forward_pre_hook(lambda _, args: caught.update(neurons=args[0][0]))]
    hooks += [layers[1].module.register_forward_hook(lambda _, args, output: caught.update(given=args[0][0], came=output[0]))]
    heads, neurons, blocks = [], [], []
    for feature in features:
        with torch.no_grad():
            network(**{name: torch.from_numpy(values) for name, values in pad_batch([feature], 0).items()})
        heads.append([sum(float(token[h * 8 : h * 8 + 8].norm()) for token in caught["heads"]) / len(caught["heads"]) for h in range(HEADS)])
        neurons.append(caught["neurons"].double().abs().mean(0))
        came, given = caught["came"].reshape(-1, HIDDEN), caught["given"]
        blocks += [1 - float(torch.dot(a, b) / (a.norm() * b.norm())) for a, b in zip(given, came, strict=True)]
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found.heads[1], torch.tensor(heads, dtype=torch.float64).square().sum(0).sqrt(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.neurons[1], torch.stack(neurons).square().sum(0).sqrt(), rtol=1e-4, atol=1e-6)
    assert float(found.layers[1]) == pytest.approx(sum(blocks) / len(blocks), rel=1e-4)


def test_magnitude_scores_equal_loops() -> None:
    layer = layers_of(checkpoint_of("distilbert").torch_network.requires_grad_(False))[0]
    heads, neurons = by_magnitude(layer)
    size = layer.head_size
    parts = [layer.query.weight[size : 2 * size], layer.key.weight[size : 2 * size], layer.value.weight[size : 2 * size], layer.out.weight[:, size : 2 * size]]
    assert float(heads[1]) == pytest.approx(math.sqrt(sum(float(part.square().sum()) for part in parts)), rel=1e-5)
    [first] = layer.neurons_in
    expected = math.sqrt(float(first.weight[5].square().sum() + layer.neurons_out.weight[:, 5].square().sum()))
    assert float(neurons[5]) == pytest.approx(expected, rel=1e-5)


def test_chance_follows_the_seed() -> None:
    layers = layers_of(checkpoint_of("bert").torch_network)
    assert torch.equal(by_chance(layers, 3)[1][2], by_chance(layers, 3)[1][2])
    assert not torch.equal(by_chance(layers, 3)[1][2], by_chance(layers, 4)[1][2])


def test_activations_that_are_not_finite_are_refused() -> None:
    checkpoint = checkpoint_of("bert")
    checkpoint.torch_network.get_input_embeddings().weight.data[:] = float("nan")
    with pytest.raises(IntegrityError, match="not finite"):
        by_activation(checkpoint.torch_network, layers_of(checkpoint.torch_network), features_of(checkpoint), tokens="mean", examples="l2")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_the_strongest_are_as_many_as_asked_and_none_left_out_is_stronger(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    kept = strongest(torch.tensor(values, dtype=torch.float32), count)
    assert kept == sorted(set(kept))
    assert len(kept) == count
    left = [value for i, value in enumerate(values) if i not in kept]
    assert not kept or not left or min(values[i] for i in kept) >= max(left)


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(0, 9, width=32), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_every_layer_keeps_its_strongest_part(scores: list[list[float]], data: st.DataObject) -> None:
    count = data.draw(st.integers(len(scores), sum(map(len, scores))))
    kept = strongest_overall([torch.tensor(layer) for layer in scores], count)
    assert sum(map(len, kept)) == count
    for layer, stay in zip(scores, kept, strict=True):
        assert stay == sorted(set(stay))
        assert max(layer) in [layer[i] for i in stay]
        assert all(0 <= i < len(layer) for i in stay)
