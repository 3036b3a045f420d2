"""Search: the shape of a smaller network is searched, not given. Shapes of one size are cut from the whole, trained a little, and ranked; the best is trained.

    shapes      = {(layers, heads, neurons, hidden width): parameters, or time, within 5 % of the budget}, ``candidates`` of them drawn with the seed
    score       = the benchmark's metric on dev after a short training, then (where that is equal) the mean loss on dev
    result      = the shape with the best score, cut from the whole again, trained in full

Each shape is made by importance, as ``prune_structure`` does it: scores are taken once, on the whole network. Without the short training, shapes would rank
otherwise than they end (the source finds that ranks settle after some hundred steps).

What each shape scored is kept in the step's folder as soon as it is known (``ranking.json``, ``candidate-NN.json``): a search that was killed goes on with
the next shape, and, inside a training, with its last checkpoint.

Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 2.3 (lightweight neural architecture search).
"""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS, Example
from recompress.errors import InputError
from recompress.integrity.digest import sha256_json
from recompress.methods.calibration import calibration_features
from recompress.methods.pruning.by_loss import by_taylor
from recompress.methods.pruning.cut import Cut, apply_cut, pick, pick_heads, strongest
from recompress.methods.pruning.importance import Parts, by_activation, by_magnitude
from recompress.methods.registry import Claim, Inputs, method
from recompress.methods.slimming.shapes import Shape, every_shape, shape_now, shapes_within, sizes_of
from recompress.methods.slimming.time_share import shapes_in_time, time_share
from recompress.methods.slimming.trials import ranked, timed
from recompress.methods.training_step import was_pruned
from recompress.models.architecture import ALL_ARCHITECTURES, Layer, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import parameters_of, refuse_bound
from recompress.settings.base import Share
from recompress.training.losses import losses_of
from recompress.training.run import train, weights_sha256
from recompress.training.settings import Schedule

TOLERANCE = 0.05
"""How far from the budget a shape may be, as a share of it."""
AGAIN = 0.1
"""The same for a time that is measured a second time, while the machine does other things."""
AXES = ("layers", "heads", "neurons", "hidden")


class Search(Schedule):
    """The budget, the shapes that are tried, and how the winner is trained (the dials of every training)."""

    parameters: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The budget: parameters of the result as a share of those that are there, embeddings included. The result is within 5 % of it."""
    latency: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A budget of time in the place of that: what the result takes for a sequence of full length on one thread, as a share of what the model takes now."""
    candidates: Annotated[int, Field(ge=1, le=64)] = 8
    """Shapes that are tried."""
    trial_examples: Annotated[int, Field(ge=1)] = 2048
    """Training examples of a short training, drawn with the seed."""
    trial_epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes of a short training over these."""
    layers: bool = True
    """Whether shapes differ in their number of layers."""
    heads: bool = True
    """Whether they differ in heads; with grouped queries, in groups and in the query heads of each."""
    neurons: bool = True
    """Whether they differ in neurons."""
    hidden: bool = True
    """Whether they differ in the hidden width."""
    smallest: Share = 0.25
    """The least share of layers, of heads, of neurons and of the width that a shape may have."""
    importance: Literal["activation", "magnitude", "taylor"] = "activation"
    """What makes a head, a neuron or a dimension worth keeping; layers stay by their influence."""
    calibration_examples: Annotated[int, Field(ge=1)] = 256
    """Training examples that are looked at for this."""


def check(config: Search) -> None:
    """Raises ``InputError`` when nothing may vary, or there are two budgets."""
    if config.latency is not None and "parameters" in config.model_fields_set:
        raise InputError(f"search keeps to one budget, got parameters {config.parameters:g} and latency {config.latency:g}; leave one of them out")
    if not any(getattr(config, axis) for axis in AXES):
        raise InputError(f"search may vary nothing; let at least one of {', '.join(AXES)} be true")


def prove(before: Checkpoint, after: Checkpoint, config: Search, inputs: Inputs) -> list[Claim]:
    """The budget, counted on what was read back; what may not vary is what it was."""
    old, new = shape_now(before.torch_network), shape_now(after.torch_network)
    wanted = config.parameters * parameters_of(before.torch_network.state_dict().values())
    budget = Claim("parameters", wanted, parameters_of(after.torch_network.state_dict().values()), tolerance=TOLERANCE * wanted)
    if config.latency is not None:
        budget = Claim("share of the time", config.latency, time_share(before, after), tolerance=AGAIN * config.latency)
    fixed = [(axis, name) for axis in AXES for name in ((axis,) if axis != "heads" else ("groups", "heads_of_each")) if not getattr(config, axis)]
    return [
        budget,
        *(Claim(name.replace("_", " "), getattr(old, name), getattr(new, name)) for _, name in fixed),
        Claim("head size", layers_of(before.torch_network)[0].head_size, layers_of(after.torch_network)[0].head_size),
    ]


@method(
    "search",
    Search,
    family="slimming",
    prove=prove,
    check=check,
    needs=("calibration", "training"),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    not_after={
        **dict.fromkeys(("svd", "fisher_svd", "activation_svd", "factorize_embeddings"), "what it would cut is half of a product; search first"),
        "share_layers": "layers that share their weights cannot be cut one by one; search first",
    },
    source="Muralidharan et al. 2024, arXiv:2407.14679, section 2.3",
    shrinks="parameters and bytes",
    speeds_up="CPU and GPU, about as much as it shrinks",
)
def search(checkpoint: Checkpoint, config: Search, inputs: Inputs) -> Checkpoint:
    """Try shapes of one size, each cut by importance and trained a little, and train the best in full."""
    network = checkpoint.torch_network
    layers = layers_of(network)
    refuse_bound(layers, "search")
    parts, influences = _importance(checkpoint, layers, config, inputs)
    folder = inputs.workdir / f"search-{_stamp(checkpoint, config, inputs)[:16]}"  # another search has a folder of its own

    def make(shape: Shape) -> Checkpoint:
        cut = Checkpoint(copy.deepcopy(network), checkpoint.tokenizer, checkpoint.info)
        apply_cut(cut.torch_network, cut_to(shape, layers, parts, influences))
        return cut

    shapes = candidates(checkpoint, config, inputs.seed, lambda shape: timed(checkpoint, make, shape, folder))
    schedule = Schedule(**{name: getattr(config, name) for name in Schedule.model_fields} | {"epochs": config.trial_epochs, "patience": None})
    best, *_ = ranked(make, shapes, schedule, _some(inputs.train, config.trial_examples, inputs.seed), folder, inputs)
    apply_cut(network, cut_to(best, layers, parts, influences))
    return train(
        checkpoint,
        inputs.train,
        inputs.dev,
        config,
        inputs.seed,
        folder / "winner",
        curve=inputs.curve,
        label=inputs.label or "search",
        hold=was_pruned(checkpoint),
    )


def candidates(checkpoint: Checkpoint, config: Search, seed: int, time_of: Callable[[Shape], float]) -> list[Shape]:
    """Shapes within the budget: all of them, or as many as are wanted, drawn with the seed. Raises ``InputError`` where there are none."""
    network = checkpoint.torch_network
    vary = [axis for axis in AXES if getattr(config, axis)]
    if config.latency is not None:
        now = shape_now(network)
        every, sizes = every_shape(now, config.smallest, vary), sizes_of(network)
        return shapes_in_time(every, now, sizes, time_of, share=config.latency, tolerance=TOLERANCE, count=config.candidates, seed=seed)
    shapes = shapes_within(network, config.parameters, TOLERANCE, config.smallest, vary)
    drawn = np.random.default_rng(seed % 2**32).permutation(len(shapes))[: config.candidates]
    return [shapes[i] for i in sorted(drawn)]


def cut_to(shape: Shape, layers: Sequence[Layer], parts: Parts, influences: Tensor) -> Cut:
    """The most important parts, as many as the shape has."""
    stay = strongest(influences, shape.layers)
    heads = pick_heads([parts.heads[i] for i in stay], [layers[i].groups for i in stay], [shape.groups] * len(stay), [shape.heads_of_each] * len(stay))
    return Cut(stay, heads, pick([parts.neurons[i] for i in stay], [shape.neurons] * len(stay)), strongest(parts.hidden, shape.hidden))


def _importance(checkpoint: Checkpoint, layers: Sequence[Layer], config: Search, inputs: Inputs) -> tuple[Parts, Tensor]:
    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    seen, influences = by_activation(checkpoint.torch_network, layers, features, tokens="mean", examples="l2")
    if config.importance == "taylor":
        return by_taylor(checkpoint.torch_network, layers, features, losses_of(checkpoint.info)), influences
    return by_magnitude(layers) if config.importance == "magnitude" else seen, influences


def _some(examples: list[Example], count: int, seed: int) -> list[Example]:
    drawn = np.random.default_rng(seed % 2**32).permutation(len(examples))[:count]
    return [examples[i] for i in sorted(drawn)]


def _stamp(checkpoint: Checkpoint, config: Search, inputs: Inputs) -> str:
    """The digest of all that the ranking depends on."""
    rows = [[[*example.words], [*example.labels], example.slice] for example in (*inputs.train, *inputs.dev)]
    versions = [importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")]
    depends_on = {"weights": weights_sha256(checkpoint.torch_network), "config": config.model_dump(mode="json"), "seed": inputs.seed, "versions": versions}
    return sha256_json({**depends_on, "rows": rows, "train": len(inputs.train)})
