"""What structured pruning keeps is what its scores say, taken a second time from plain forward passes; and a choice of the weakest is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recompress.errors import EffectMissing
from recompress.methods.pruning import cut, structure
from recompress.methods.pruning.parts_left import parts_left, places, share_of_what_stayed
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import keep_heads, keep_hidden, keep_layers, keep_neurons
from tests.methods.by_hand import COUNT, ENCODER_AND_DECODER, LAYERS_AT, drawn, matrix, saved_by, uneven
from tests.six import HEADS, SIX, checkpoint_of

pytestmark = pytest.mark.usefixtures("one_thread")
JOINS = {"bert": "attention.output.dense", "gpt2": "attn.c_proj"}
SECOND = {"bert": "output.dense", "gpt2": "mlp.c_proj"}
NORMS = {"bert": ("attention.output.LayerNorm", "output.LayerNorm"), "gpt2": ("ln_1", "ln_2")}
AGGREGATIONS = list(itertools.product(("mean", "l2"), repeat=2))
Seen = dict[str, Tensor]
Features = list[dict[str, list[int]]]


def modules_of(network: Any, family: str, layers: int = 2) -> dict[str, Any]:
    names = [f"{LAYERS_AT[family]}.{i}.{part}" for i in range(layers) for part in (JOINS[family], SECOND[family], *NORMS[family])]
    return {name: network.get_submodule(name) for name in names}


def watched(checkpoint: Checkpoint, family: str, features: Features, learn: Callable[[Any, dict[str, list[int]]], Any], layers: int = 2) -> list[Seen]:
    """For each example what each linear layer receives and each norm gives, as ``[tokens, width]``."""
    network: Any = checkpoint.torch_network.eval()
    seen: dict[str, Any] = {}

    def hook_of(name: str, norm: bool) -> Callable[..., None]:
        def look(_: Any, given: Any, came: Any) -> None:
            seen[name] = came if norm else given[0]
            if seen[name].requires_grad:
                seen[name].retain_grad()

        return look

    hooks = [
        module.register_forward_hook(hook_of(name, not name.endswith((JOINS[family], SECOND[family]))))
        for name, module in modules_of(network, family, layers).items()
    ]
    every = []
    for feature in features:
        seen.clear()
        every.append(
            learn(network(input_ids=torch.tensor([feature["input_ids"]])), feature) or {name: rows[0].detach().double() for name, rows in seen.items()}
        )
        if seen and next(iter(seen.values())).grad is not None:
            every[-1] = {name: (rows * rows.grad)[0].detach().double() for name, rows in seen.items()}
    for hook in hooks:
        hook.remove()
    return every


def fold(scores: Tensor, how: str) -> Tensor:
    """Over the first dimension."""
    return scores.abs().mean(0) if how == "mean" else scores.square().sum(0).sqrt()


def best(scores: Tensor, count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: -float(scores[i]))[:count])


def compare(before: Checkpoint, after: Checkpoint, family: str, heads: list[Tensor], neurons: list[Tensor], hidden: Tensor) -> list[tuple[int, ...]]:
    """Half of the heads, neurons and dimensions: as the scores say."""
    dimensions = best(hidden, 16)
    chosen = [tuple(dimensions)]
    for i in range(2):
        prefix, channels = f"{LAYERS_AT[family]}.{i}.", [head * 8 + c for head in best(heads[i], 2) for c in range(8)]
        for part, columns in ((JOINS[family], channels), (SECOND[family], best(neurons[i], 32))):
            was, now = (matrix(one.torch_network.get_submodule(prefix + part)) for one in (before, after))
            assert torch.equal(now, was[dimensions][:, columns]), prefix + part
            chosen.append(tuple(columns))
    return chosen


HALF = {"heads": 0.5, "neurons": 0.5, "hidden": 0.5, "calibration_examples": COUNT}


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_activations_are_folded_over_tokens_and_over_examples_as_the_dials_say(family: str, tmp_path: Path) -> None:
    choices = []
    for tokens, examples in AGGREGATIONS:
        place = tmp_path / f"{tokens}-{examples}"
        before, after, inputs = saved_by("prune_structure", family, place, checkpoint_of(family), over_tokens=tokens, over_examples=examples, **HALF)
        with torch.no_grad():
            every = watched(before, family, drawn(before, family, inputs), lambda *_: None)

        def score(name: str, parts: int, tokens: str = tokens, examples: str = examples, every: list[Seen] = every) -> Tensor:
            rows = [seen[name].unflatten(1, (parts, -1)).norm(dim=2) for seen in every]
            return fold(torch.stack([fold(one, tokens) for one in rows]), examples)

        prefixes = [f"{LAYERS_AT[family]}.{i}." for i in range(2)]
        hidden = torch.stack([score(prefix + norm, 32) for prefix in prefixes for norm in NORMS[family]]).sum(0)
        heads, neurons = ([score(prefix + part[family], count) for prefix in prefixes] for part, count in ((JOINS, HEADS), (SECOND, 64)))
        choices.append(tuple(compare(before, after, family, heads, neurons, hidden)))
    assert len(set(choices)) >= (4 if family == "bert" else 2), "the dials make no difference here, so that this proves nothing"


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_taylor_scores_are_means_over_examples_of_what_each_derivative_sums_to(family: str, tmp_path: Path) -> None:
    before, after, inputs = saved_by("prune_structure", family, tmp_path, importance="taylor", **HALF)

    def learn(answer: Any, feature: dict[str, list[int]]) -> None:
        nn.functional.cross_entropy(answer.logits[0], torch.tensor(feature["labels"])).backward()

    every = watched(before, family, drawn(before, family, inputs), learn)

    def score(name: str, parts: int) -> Tensor:
        return torch.stack([seen[name].sum(0).unflatten(0, (parts, -1)).sum(1).abs() for seen in every]).mean(0)

    prefixes = [f"{LAYERS_AT[family]}.{i}." for i in range(2)]
    hidden = torch.stack([score(prefix + norm, 32) for prefix in prefixes for norm in NORMS[family]]).sum(0)
    compare(before, after, family, *([score(prefix + part[family], n) for prefix in prefixes] for part, n in ((JOINS, HEADS), (SECOND, 64))), hidden)


@pytest.mark.parametrize("family", ENCODER_AND_DECODER)
def test_the_layer_that_turns_its_input_least_goes(family: str, tmp_path: Path) -> None:
    whole = uneven(family, **{"n_layer" if family == "gpt2" else "num_hidden_layers": 3})
    before, after, inputs = saved_by("prune_structure", family, tmp_path, whole, layers=2, calibration_examples=COUNT)
    turned = [list[float]() for _ in range(3)]

    def hook_of(i: int) -> Callable[..., None]:
        def look(_: Any, given: Any, came: Any) -> None:
            rows, new = given[0][0].double(), (came[0] if isinstance(came, tuple) else came)[0].double()
            turned[i].extend(1 - float(a @ b / a.norm() / b.norm()) for a, b in zip(rows, new, strict=True))

        return look

    network: Any = before.torch_network.eval()
    hooks = [network.get_submodule(f"{LAYERS_AT[family]}.{i}").register_forward_hook(hook_of(i)) for i in range(3)]
    for feature in drawn(before, family, inputs):
        with torch.no_grad():
            network(input_ids=torch.tensor([feature["input_ids"]]))
    for hook in hooks:
        hook.remove()
    stay = best(torch.tensor([sum(values) / len(values) for values in turned]), 2)
    for new, old in enumerate(stay):
        weights = (matrix(one.torch_network.get_submodule(f"{LAYERS_AT[family]}.{i}.{SECOND[family]}")) for one, i in ((before, old), (after, new)))
        assert torch.equal(*weights)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("importance", ["activation", "magnitude", "taylor"])
def test_the_weakest_kept_are_refused(importance: str, scope: str, tmp_path: Path, monkeypatch: Any) -> None:
    usual = cut.strongest
    monkeypatch.setattr(cut, "strongest", lambda scores, count: usual(-scores.nan_to_num(posinf=1e-9), count))
    with pytest.raises(EffectMissing, match="importance of the (heads|neurons|hidden dimensions) that stayed"):
        saved_by("prune_structure", "bert", tmp_path, importance=importance, scope=scope, **HALF)


@pytest.mark.parametrize("dials", [{"keep_layers": "influence"}, {"keep_layers": "loss"}, {"keep_layers": "spread"}], ids=str)
def test_the_wrong_layers_are_refused(dials: dict[str, str], tmp_path: Path, monkeypatch: Any) -> None:
    usual, calls = structure.chosen_layers, list[int]()

    def others(config: Any, worth: Tensor) -> list[int]:
        calls.append(1)
        return usual(config, worth) if len(calls) > 1 else usual(config, -worth) if worth.any() else [2]

    monkeypatch.setattr(structure, "chosen_layers", others)
    with pytest.raises(EffectMissing, match="layers that"):
        saved_by("prune_structure", "bert", tmp_path, uneven("bert", num_hidden_layers=3), layers=1, keep_layers=dials["keep_layers"], calibration_examples=4)


def test_weights_that_are_none_of_those_before_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    usual = structure.apply_cut

    def and_turn(network: Any, parts: Any) -> None:
        usual(network, parts)
        layers_of(network)[1].query.weight.data.mul_(-1)

    monkeypatch.setattr(structure, "apply_cut", and_turn)
    with pytest.raises(EffectMissing, match="layers with other queries, keys or values: asked for 0, measured 1"):
        saved_by("prune_structure", "bert", tmp_path, **HALF)


@pytest.mark.parametrize("family", SIX)
def test_what_is_left_is_found_by_its_weights(family: str) -> None:
    changes = {{"distilbert": "n_layers", "gpt2": "n_layer"}.get(family, "num_hidden_layers"): 3}
    whole, small = (checkpoint_of(family, **changes).torch_network for _ in range(2))
    for layer in layers_of(small):
        keep_heads(layer, [0, 1] if family == "llama" else [1, 3])
        keep_neurons(layer, [2, 3, 40])
    keep_layers(small, [0, 2])
    keep_hidden(small, [0, 5, 6, 30], [0, 1, 2, 3])
    heads = [0, 1] if family == "llama" else [1, 3]
    assert parts_left(whole, small) == cut.Cut([0, 2], [heads, heads], [[2, 3, 40]] * 2, [0, 5, 6, 30])
    assert places(torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([[2.0], [1.0], [3.0], [1.0]])) == [1, 0, 3]
    assert share_of_what_stayed([torch.tensor([3.0, 1.0])], [[0]]) == pytest.approx(0.9)
    assert share_of_what_stayed([torch.tensor([3.0, 1.0])], [[0, 1]]) is None
