"""Which parts of a network a cut one still has, and whether they are those that matter: found by their weights alone, as no note of the method would prove it.

    share = s / (s + g)        s, g: mean squared score of the parts that stayed, and of those that went; in each layer, then the mean over layers

1/2 is what chance gives. A part is the vector of all weights that it has, on the hidden dimensions that stayed; where the matrices that read parts were fitted
anew, of those in the matrices that make them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.methods.pruning.cut import Cut
from recompress.methods.pruning.importance import Parts
from recompress.methods.registry import Claim
from recompress.models.architecture import Layer, layers_of, shape_of
from recompress.models.surgery import query_key_value, weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 4096
"""Tokens whose embeddings tell hidden dimensions apart."""


def places(left: Float[Tensor, "left width"], every: Float[Tensor, "all width"]) -> list[int]:
    """Where the rows of ``left`` stand among those of ``every``, in order; as many as are there."""
    numbers: dict[bytes, list[int]] = {}
    for i, row in enumerate(every):
        numbers.setdefault(row.numpy().tobytes(), []).append(i)
    return [numbers[key].pop(0) for row in left if numbers.get(key := row.numpy().tobytes())]


def parts_left(before: PreTrainedModel, after: PreTrainedModel, *, fitted: bool = False) -> Cut:
    """What of ``before`` is in ``after``; what cannot be found is left out. ``fitted``: the matrices that read heads and neurons are no longer what they were."""
    tables = [network.get_input_embeddings().weight.detach()[:ROWS].T.contiguous() for network in (after, before)]
    hidden = places(*tables)
    old, cut = layers_of(before), Cut([], [], [], hidden)
    for layer in layers_of(after):
        for i in range(cut.layers[-1] + 1 if cut.layers else 0, len(old)):
            neurons = places(_neurons(layer, fitted=fitted), _neurons(old[i], hidden, fitted=fitted))
            if len(neurons) == layer.neurons:
                cut.layers.append(i)
                cut.neurons.append(neurons)
                cut.heads.append(places(_heads(layer, fitted=fitted), _heads(old[i], hidden, fitted=fitted)))
                break
    return cut


def prove_parts(before: PreTrainedModel, after: PreTrainedModel, cut: Cut) -> list[Claim]:
    """Every part of ``after`` is one of those before, and its attentions are those of the heads that stayed."""
    layers = layers_of(after)
    there = shape_of(layers[0].out)[0] + sum(1 + layer.heads + layer.neurons for layer in layers)
    again = len(cut.hidden) + len(cut.layers) + sum(map(len, (*cut.heads, *cut.neurons)))
    claims = [Claim("dimensions, layers, heads and neurons that are some of those before", there, again)]
    return claims if there != again else [*claims, Claim("layers with other queries, keys or values", 0, _attentions_that_differ(before, after, cut))]


def prove_choice(cut: Cut, parts: Parts, worth: Float[Tensor, " layers"] | None, *, together: bool) -> list[Claim]:
    """Of each kind of which something went: what stayed matters more. ``worth``: of the layers, where they were chosen by it."""
    shares = {
        "heads": share_of_what_stayed([parts.heads[i] for i in cut.layers], cut.heads, together=together),
        "neurons": share_of_what_stayed([parts.neurons[i] for i in cut.layers], cut.neurons, together=together),
        "hidden dimensions": share_of_what_stayed([parts.hidden], [cut.hidden]),
        "layers": None if worth is None else share_of_what_stayed([worth], [cut.layers]),
    }
    return [
        Claim(f"importance of the {what} that stayed, beside those that went", 0.5, share, 0, "at least") for what, share in shares.items() if share is not None
    ]


def _attentions_that_differ(before: PreTrainedModel, after: PreTrainedModel, cut: Cut) -> int:
    old, differ = layers_of(before), 0
    for i, heads, layer in zip(cut.layers, cut.heads, layers_of(after), strict=True):
        ratio = old[i].heads // old[i].groups
        kept = (heads, *2 * [list(dict.fromkeys(head // ratio for head in heads))])
        for was, now, stay in zip(query_key_value(old[i]), query_key_value(layer), kept, strict=True):
            wanted = was.reshape(-1, old[i].head_size, was.shape[1])[stay].flatten(0, 1)[:, cut.hidden]
            if not (wanted.shape == now.shape and wanted.equal(now)):
                differ += 1
                break
    return differ


def share_of_what_stayed(scores: Sequence[Float[Tensor, " parts"]], stayed: Sequence[Sequence[int]], *, together: bool = False) -> float | None:
    """The formula at the head of this file; ``None`` where nothing went. ``together``: over all layers at once, each divided by its L2 norm."""
    squares = [layer.double().square() for layer in scores]
    marks = [
        torch.zeros(len(layer), dtype=torch.bool).index_fill(0, torch.tensor(parts, dtype=torch.long), 1) for layer, parts in zip(scores, stayed, strict=True)
    ]
    if together:
        squares, marks = [torch.cat([layer / layer.sum().clamp_min(1e-300) for layer in squares])], [torch.cat(marks)]
    pairs = [(float(layer[mark].mean()), float(layer[~mark].mean())) for layer, mark in zip(squares, marks, strict=True) if not mark.all()]
    shares = [here / (here + gone) if here + gone else 0.5 for here, gone in pairs]
    return sum(shares) / len(shares) if shares else None


def _neurons(layer: Layer, hidden: Sequence[int] | None = None, *, fitted: bool) -> Float[Tensor, "neurons width"]:
    columns = slice(None) if hidden is None else hidden
    inward = [weight_of(linear)[:, columns] for linear in layer.neurons_in]
    return torch.cat(inward if fitted else [*inward, weight_of(layer.neurons_out)[columns].T], dim=1).contiguous()


def _heads(layer: Layer, hidden: Sequence[int] | None = None, *, fitted: bool) -> Float[Tensor, "heads width"]:
    columns = slice(None) if hidden is None else hidden
    rows = query_key_value(layer)[0][:, columns] if fitted else weight_of(layer.out)[columns].T
    return rows.reshape(layer.heads, -1)
