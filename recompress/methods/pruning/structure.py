"""Structure: cut out whole heads, neurons, hidden dimensions and layers, so that what is left is a smaller dense model that runs faster everywhere.

The least important parts go (``recompress.methods.pruning.importance``, ``recompress.methods.pruning.by_loss``); a network that has lost heads and neurons answers exactly
like one in which their outputs are multiplied by zero. Hidden dimensions go everywhere at once: in embeddings, positions, norms (which then take their mean
and variance over those that stay), all linear layers and the head; heads keep their size. Scores are taken once, on the whole network, before anything is cut.

Where query heads share keys and values in groups (Llama), ``heads`` is the share of query heads that every group loses, all equally many, and ``groups`` the
share of groups that go whole.

With ``repair`` the matrices that read heads and neurons are then fitted to those that stay (``recompress.methods.pruning.repair``).

Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 2.2 (heads, neurons, hidden); Men et al. 2024 (ShortGPT), arXiv:2403.03853, eq. 1
(layers); Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3 (evenly spread layers).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.calibration import calibration_features
from recompress.methods.probe import EXAMPLES
from recompress.methods.pruning.by_loss import by_taylor, without_each_layer
from recompress.methods.pruning.cut import Cut, apply_cut, pick, pick_heads, strongest
from recompress.methods.pruning.how_many import enough, is_grouped, left_of, removed
from recompress.methods.pruning.importance import Aggregation, Parts, by_activation, by_chance, by_magnitude
from recompress.methods.pruning.parts_left import parts_left, prove_choice, prove_parts
from recompress.methods.pruning.repair import prove_repair, repair
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES, Layer, layers_of, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import refuse_bound
from recompress.settings.base import Settings, Share
from recompress.training.losses import losses_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PruneStructure(Settings):
    """What goes, and how it is chosen."""

    heads: Share = 0.0
    """Share of the attention heads to remove, rounded down to whole heads; with grouped queries, of the query heads of each group."""
    groups: Share = 0.0
    """Share of the key and value heads to remove, each with all of its query heads; for models with grouped queries only."""
    neurons: Share = 0.0
    """Share of the neurons of the feed-forward parts to remove, rounded down to whole neurons."""
    hidden: Share = 0.0
    """Share of the hidden width to remove, rounded down to whole dimensions."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Number of layers to keep; all when left out."""
    importance: Literal["activation", "magnitude", "taylor", "random"] = "activation"
    """What makes a part worth keeping: what it does on training text, the size of its weights, what the labels' loss loses without it to first order, or
    nothing (for comparison)."""
    keep_layers: Literal["influence", "loss", "first", "last", "spread"] = "influence"
    """Which layers stay: those that change their input most, those without which (one at a time, a pass over the examples for each layer) the loss is highest,
    the first, the last, or evenly spread ones (every second, where half are kept)."""
    scope: Literal["layer", "global"] = "layer"
    """Take heads, groups and neurons from every layer, or from all together, so that a layer that matters less loses more (at least one part of each stays)."""
    over_tokens: Aggregation = "mean"
    """How a part's activations on the tokens of an example become one number."""
    over_examples: Aggregation = "l2"
    """How these become one score."""
    calibration_examples: Annotated[int, Field(ge=1)] = 256
    """Training examples that are looked at."""
    repair: bool = False
    """Fit the matrices that read heads and neurons anew on the calibration text, without training, so that those that stay make up for what is gone."""
    repair_examples: Annotated[int, Field(ge=1)] = 512
    """Training examples that the repair fits to: a matrix takes more of them than a score does."""
    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Of the repair: share of the mean square of a matrix's inputs that is added to each of their squares. More of it changes the matrices less."""


def check(config: PruneStructure) -> None:
    """Raises ``InputError`` where nothing is to go: a step which changes nothing is no step."""
    if config.layers is None and not any((config.heads, config.groups, config.neurons, config.hidden)):
        raise InputError("prune_structure is told to cut nothing; give heads, groups, neurons, hidden or layers, or leave the step out")


def prove(before: Checkpoint, after: Checkpoint, config: PruneStructure, inputs: Inputs) -> list[Claim]:
    """Layers, heads, neurons and the width, counted on the weights that were read back, each of them found among those that were there; and, with scores taken
    again on a part of the text, that what stayed matters more than what went."""
    old, new = layers_of(before.torch_network), layers_of(after.torch_network)
    layers = config.layers or len(old)
    # Where layers are dropped all have the same widths (others are refused), so that any of them can stand for those that stayed.
    remaining_layers = old if layers == len(old) else old[:layers]
    grouped = is_grouped(old)
    width = shape_of(old[0].out)[0]

    def left(counts: Sequence[int], share: float) -> int:
        remaining = left_of(counts, share, config.scope)
        return remaining if isinstance(remaining, int) else sum(remaining)

    asked = [("key and value heads" if grouped else "heads", left([layer.groups for layer in remaining_layers], config.groups if grouped else config.heads))]
    asked += [("query heads for each of them", left([layer.heads // layer.groups for layer in remaining_layers], config.heads if grouped else 0))]
    asked += [("neurons", left([layer.neurons for layer in remaining_layers], config.neurons)), ("hidden width", width - removed(config.hidden, width))]
    sums = [sum(layer.groups for layer in new), sum(layer.heads // layer.groups for layer in new), sum(layer.neurons for layer in new), shape_of(new[0].out)[0]]
    cut = parts_left(before.torch_network, after.torch_network, fitted=config.repair)
    claims = [
        Claim("layers", layers, len(new)),
        *(Claim(what, count, there) for (what, count), there in zip(asked, sums, strict=True)),
        Claim("width of the embeddings", asked[3][1], after.torch_network.get_input_embeddings().weight.shape[1]),
        Claim("head size", old[0].head_size, new[0].head_size),
        *prove_parts(before.torch_network, after.torch_network, cut),
        *(prove_repair(before, after, _cut(before, config, inputs), inputs) if config.repair else ()),
    ]
    if not all(claim.kept for claim in claims):
        return claims
    chosen_by_worth = config.keep_layers in ("influence", "loss")
    few = config.model_copy(update={"calibration_examples": min(config.calibration_examples, EXAMPLES)})
    parts, worth = _importance(before, old, few, inputs)
    if not chosen_by_worth:
        claims.append(Claim("layers that stand where they were asked for", len(new), len({*chosen_layers(config, worth)} & {*cut.layers})))
    return [*claims, *prove_choice(cut, parts, worth if chosen_by_worth else None, together=config.scope == "global")]


@method(
    "prune_structure",
    PruneStructure,
    family="pruning",
    prove=prove,
    check=check,
    needs=("calibration",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    not_after={"share_layers": "layers that share their weights cannot be cut one by one; cut structure first"},
    source="Muralidharan et al. 2024, arXiv:2407.14679, section 2.2; Men et al. 2024, arXiv:2403.03853, eq. 1; Michel et al. 2019, arXiv:1905.10650, eq. 2; "
    "Kwon et al. 2022, arXiv:2204.09656, and Kurtic et al. 2023, arXiv:2302.04089 (repair)",
    shrinks="parameters and bytes",
    speeds_up="CPU and GPU, about as much as it shrinks",
)
def prune_structure(checkpoint: Checkpoint, config: PruneStructure, inputs: Inputs) -> Checkpoint:
    """Cut out the heads, neurons, hidden dimensions and layers that matter least."""
    cut = _cut(checkpoint, config, inputs)
    whole = copy.deepcopy(checkpoint.torch_network) if config.repair else None
    apply_cut(checkpoint.torch_network, cut)
    if whole is not None:
        features = calibration_features(checkpoint, inputs, config.repair_examples)
        repair(checkpoint.torch_network, whole, cut, features, config.damping, inputs.workdir, inputs.label or "repair")
    return checkpoint


def _cut(checkpoint: Checkpoint, config: PruneStructure, inputs: Inputs) -> Cut:
    """What is to stay."""
    network = checkpoint.torch_network
    layers = layers_of(network)
    refuse_bound(layers, "prune_structure")
    _refuse(network, layers, config)
    parts, worth = _importance(checkpoint, layers, config, inputs)
    stay = chosen_layers(config, worth)
    remaining_layers = [layers[i] for i in stay]
    by_groups, of_each = (config.groups, config.heads) if is_grouped(layers) else (config.heads, 0.0)
    heads = pick_heads(
        [parts.heads[i] for i in stay],
        [layer.groups for layer in remaining_layers],
        enough("groups" if is_grouped(layers) else "heads", [layer.groups for layer in remaining_layers], by_groups, config.scope),
        enough("heads", [layer.heads // layer.groups for layer in remaining_layers], of_each, config.scope),
    )
    neurons = pick([parts.neurons[i] for i in stay], enough("neurons", [layer.neurons for layer in remaining_layers], config.neurons, config.scope))
    [hidden] = pick([parts.hidden], enough("hidden", [len(parts.hidden)], config.hidden, "layer"))
    return Cut(stay, heads, neurons, hidden)


def chosen_layers(config: PruneStructure, worth: Float[Tensor, " layers"]) -> list[int]:
    """The positions of the layers that stay, in order."""
    there = len(worth)
    count = config.layers or there
    if config.keep_layers in ("influence", "loss"):
        return strongest(worth, count)
    if config.keep_layers == "spread":
        return [i * there // count for i in range(count)]
    return list(range(count) if config.keep_layers == "first" else range(there - count, there))


def _refuse(network: PreTrainedModel, layers: Sequence[Layer], config: PruneStructure) -> None:
    wanted = config.layers or len(layers)
    if wanted > len(layers):
        raise InputError(f"prune_structure keeps {wanted} layers, but the model has {len(layers)}; ask for at most that many")
    if wanted == len(layers) and not any((config.heads, config.groups, config.neurons, config.hidden)):
        raise InputError(f"prune_structure keeps {wanted} layers, and the model has {len(layers)} already; ask for fewer, or leave the step out")
    if wanted < len(layers) and len({(layer.heads, layer.groups, layer.neurons) for layer in layers}) > 1:
        raise InputError("prune_structure cannot drop layers where they have different widths already; drop layers first")
    if wanted < len(layers) and getattr(network.config, "scale_attn_by_inverse_layer_idx", False):
        raise InputError("prune_structure cannot drop layers whose attention is scaled by their number (scale_attn_by_inverse_layer_idx); keep all of them")
    if config.groups and not is_grouped(layers):
        raise InputError(f"groups: {config.groups:g} of a model whose query heads have keys and values of their own; ask for heads instead")


def _importance(checkpoint: Checkpoint, layers: Sequence[Layer], config: PruneStructure, inputs: Inputs) -> tuple[Parts, Float[Tensor, " layers"]]:
    """Scores of everything that a choice depends on; the network runs only where one does."""
    network = checkpoint.torch_network
    cuts = max(config.heads, config.groups, config.neurons, config.hidden) > 0
    drops = config.layers is not None and config.layers < len(layers)
    worth = torch.zeros(len(layers))
    parts = by_chance(layers, inputs.seed) if config.importance == "random" else by_magnitude(layers)
    uses = {config.importance if cuts else "", config.keep_layers if drops else ""} & {"activation", "taylor", "influence", "loss"}
    features = calibration_features(checkpoint, inputs, config.calibration_examples) if uses else []
    if uses & {"activation", "influence"}:
        seen, influences = by_activation(network, layers, features, tokens=config.over_tokens, examples=config.over_examples)
        parts = seen if "activation" in uses else parts
        worth = influences if "influence" in uses else worth
    if "taylor" in uses:
        parts = by_taylor(network, layers, features, losses_of(checkpoint.info))
    if "loss" in uses:
        worth = without_each_layer(network, len(layers), features, losses_of(checkpoint.info))
    return parts, worth
