"""Students: new networks of a smaller shape, and some layers of a larger one."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.errors import InputError
from recompress.methods.distillation.dials import Shape
from recompress.methods.distillation.student import fresh_student, prove_shape, some_layers
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import load, save
from recompress.training.run import weights_sha256
from tests.six import LAYERS, SIX, checkpoint_of


@pytest.mark.parametrize("family", SIX)
def test_the_shape_is_what_was_asked_for_and_survives_the_disk(family: str, tmp_path: Path) -> None:
    source, shape = checkpoint_of(family), Shape(layers=1, hidden=24, heads=2, neurons=40)
    student = fresh_student(source, shape, 0)
    save(student, tmp_path / "student")
    after = load(tmp_path / "student")
    claims = prove_shape(source, after, shape)
    assert [(claim.what, claim.measured) for claim in claims] == [("layers", 1), ("width", 24), ("heads", 2), ("neurons", 40)]
    assert all(claim.kept for claim in claims)
    assert not all(claim.kept for claim in prove_shape(source, source, shape))
    assert after.info == source.info
    assert after.tokenizer.get_vocab() == source.tokenizer.get_vocab()
    assert all(claim.kept for claim in prove_shape(source, fresh_student(source, Shape(layers=1), 0), Shape(layers=1)))


def test_the_same_seed_gives_the_same_weights() -> None:
    digests = [weights_sha256(fresh_student(checkpoint_of("bert"), Shape(layers=1), seed).torch_network) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("heads, shared", [(4, 2), (2, 1), (1, 1)])
def test_queries_share_keys_as_before_where_that_divides(heads: int, shared: int) -> None:
    config = fresh_student(checkpoint_of("llama"), Shape(hidden=16, heads=heads), 0).torch_network.config
    assert (config.num_key_value_heads, config.head_dim) == (shared, 16 // heads)


@pytest.mark.parametrize(
    "shape, reason",
    [(Shape(heads=5), "32 is no multiple of 5 heads"), (Shape(hidden=30), "30 is no multiple of 4 heads"), (Shape(layers=3), "fewer layers, heads, neurons")],
)
def test_impossible_shapes_are_refused(shape: Shape, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fresh_student(checkpoint_of("bert"), shape, 0)


@pytest.mark.parametrize("family", SIX)
def test_some_layers_are_the_very_layers(family: str) -> None:
    whole, some = checkpoint_of(family, **_deep(family)), some_layers(checkpoint_of(family, **_deep(family)), 2)
    old, new = layers_of(whole.torch_network), layers_of(some.torch_network)
    assert [any(weights_sha256(layer.module) == weights_sha256(one.module) for one in new) for layer in old] == [True, False, True, False]
    assert some.torch_network.config.num_hidden_layers == 2
    with pytest.raises(InputError, match=f"layers is {LAYERS}, but the model has {LAYERS}"):
        some_layers(checkpoint_of(family), LAYERS)


def _deep(family: str) -> dict[str, int]:
    return {{"distilbert": "n_layers", "gpt2": "n_layer"}.get(family, "num_hidden_layers"): 4}
