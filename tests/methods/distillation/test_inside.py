"""What hooks see inside each architecture is what the network itself computes there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recompress.methods.distillation.inside import PARTS, look_inside, relation_widths
from recompress.models.architecture import layers_of
from recompress.models.surgery import weight_of
from recompress.training.batches import collate
from tests.six import DECODERS, SIX, checkpoint_of, features_of

pytestmark = pytest.mark.usefixtures("one_thread")


def hooks_in(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@pytest.mark.parametrize("family", SIX)
def test_states_and_relations_are_the_networks_own(family: str) -> None:
    checkpoint = checkpoint_of(family)
    network = checkpoint.torch_network
    batch = collate(features_of(checkpoint, family), 0)
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        hidden_states = network(**given, output_hidden_states=True).hidden_states
    hooks = hooks_in(network)  # transformers has some of its own
    with torch.no_grad(), look_inside(network, hidden={0, 1}, relations={0, 1}, embeddings=True) as inside:
        network(input_ids=given["input_ids"][:, :1])
        network(**given)  # the second pass takes the place of the first
        assert inside.embeddings is not None
        assert inside.embeddings.equal(hidden_states[0])
        assert inside.hidden[0].equal(hidden_states[1])
        assert inside.hidden[1].shape == hidden_states[2].shape
        assert family in DECODERS or inside.hidden[1].equal(hidden_states[2]), "decoders put a norm behind the last layer"
        layer, states = layers_of(network)[1], {part: inside.relations[part] for part in PARTS}
        assert tuple(states[part][1].shape[-1] for part in PARTS) == relation_widths(layer)
        for part in PARTS:
            assert states[part].keys() == {0, 1}
            assert states[part][0].shape[:2] == batch["input_ids"].shape
        assert not states["query"][0].equal(states["key"][0][..., : states["query"][0].shape[-1]])
    assert hooks_in(network) == hooks, "nothing is left behind"


@pytest.mark.parametrize("family", SIX)
def test_queries_keys_and_values_are_told_apart(family: str) -> None:
    """Only the one whose weights were changed is another."""
    for changed in range(3):
        checkpoint = checkpoint_of(family)
        network, layer = checkpoint.torch_network, layers_of(checkpoint.torch_network)[0]
        batch = collate(features_of(checkpoint, family), 0)
        seen = []
        for times in (1.0, 3.0):
            widths = relation_widths(layer)
            linear = getattr(layer, PARTS[changed])
            start = sum(widths[:changed]) if layer.architecture.fused else 0
            weight_of(linear)[start : start + widths[changed]].mul_(times)
            with torch.no_grad(), look_inside(network, relations={0}) as inside:
                network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                seen.append([inside.relations[part][0].clone() for part in PARTS])
        assert [not old.equal(new) for old, new in zip(*seen, strict=True)] == [i == changed for i in range(3)]


def test_layers_that_are_one_module_are_seen_apart() -> None:
    checkpoint = checkpoint_of("bert")
    network = checkpoint.torch_network
    network.bert.encoder.layer[1] = network.bert.encoder.layer[0]
    batch = collate(features_of(checkpoint, "bert"), 0)
    with torch.no_grad(), look_inside(network, hidden={0, 1}, relations={1}, embeddings=True) as inside:
        hidden_states = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True).hidden_states
        assert inside.embeddings.equal(hidden_states[0])
        assert [inside.hidden[i].equal(hidden_states[i + 1]) for i in (0, 1)] == [True, True]
        assert inside.relations["query"][1].equal(layers_of(network)[0].query(hidden_states[1]))
