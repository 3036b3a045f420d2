"""Repair without training: the matrices that read heads and neurons are fitted anew to those that stay, so that the residual stream is what it was.

    miss[t] = (r + y)[t] in the whole network - (r + y)[t] in the cut one
    D, d    = argmin sum over t ||miss[t] - D x[t] - d||^2 + damping * mean(diag X X^T) * ||D||_F^2                W <- W + D        b <- b + d

At each token t of calibration text, x is what a matrix receives in the cut network, y what it gives and r what the residual stream adds to that. Layer behind
layer, and in each the attention's output matrix before that of the neurons, so that each sees what those before it became. r makes a matrix mend, beside what
is gone from its own inputs, what is still missing from before it, dropped layers too; the last of these are out of reach. A matrix without bias gets none, and
then x is not centred. Where dimensions of the stream are cut, those that stay are compared.

Source: Kwon et al. 2022, arXiv:2204.09656 (mask tuning: layer-wise least squares on the stream, with one scale for each head and neuron); Kurtic et al. 2023
(ZipLM), arXiv:2302.04089 (all that stays in the matrix makes up for a structure that goes).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.layerwise.engine import ready
from recompress.layerwise.flow import PARTS, Flow, Part
from recompress.methods.probe import probe_features
from recompress.methods.pruning.cut import Cut, apply_cut
from recompress.methods.pruning.importance import check_finite
from recompress.methods.registry import Claim, Inputs
from recompress.models.architecture import Layer, Linear, layers_of, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of
from recompress.progress import bar
from recompress.runtimes.batches import Feature, batches_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 2048
"""Tokens that are computed together, padding included; one example at least."""
Tokens = Iterator[tuple[Float[Tensor, "tokens in"], Float[Tensor, "tokens out"]]]
"""x and miss, batch by batch, padding left out."""


class Sums(NamedTuple):
    """All that least squares needs to know of the tokens: multiplied as they come, added up in float64."""

    tokens: int
    given: Float[Tensor, " in"]
    missing: Float[Tensor, " out"]
    squares: Float[Tensor, "in in"]
    """X X^T."""
    products: Float[Tensor, "in out"]
    """X miss^T."""


def sums_of(shape: tuple[int, int], tokens: Tokens, device: torch.device) -> Sums:
    """``shape``: (outputs, inputs). Raises ``IntegrityError`` for activations that are not finite."""
    outputs, width = shape
    count = 0
    totals = [torch.zeros(size, dtype=torch.float64, device=device) for size in ((width,), (outputs,), (width, width), (width, outputs))]
    for x, miss in tokens:
        count += len(x)
        for total, more in zip(totals, (x.sum(0), miss.sum(0), x.T @ x, x.T @ miss), strict=True):
            total += more
    check_finite(*totals)
    return Sums(count, *totals)


def least_squares(sums: Sums, damping: float, *, biased: bool) -> tuple[Float[Tensor, "out in"], Float[Tensor, " out"]]:
    """D and d of the formula above; d is zero without a bias to add it to, and D is zero for inputs that are all constant."""
    squares, products = sums.squares, sums.products
    if biased:
        squares = squares - torch.outer(sums.given, sums.given) / sums.tokens
        products = products - torch.outer(sums.given, sums.missing) / sums.tokens
    ridge = damping * float(squares.diagonal().mean())
    change = torch.zeros_like(products.T)
    if ridge > 0:
        damped = squares + ridge * torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
        change = torch.cholesky_solve(products, torch.linalg.cholesky(damped)).T
    shift = (sums.missing - change @ sums.given) / sums.tokens
    return change, shift if biased else torch.zeros_like(shift)


def repair(network: PreTrainedModel, whole: PreTrainedModel, cut: Cut, features: Sequence[Feature], damping: float, workdir: Path, label: str) -> None:
    """Fit the output matrices of ``network``, which is what ``cut`` left of ``whole``, in place. What flows between layers lies in ``workdir`` meanwhile.

    Raises ``IntegrityError`` for activations that are not finite.
    """
    for linear, tokens in _each_matrix(network, whole, cut, features, workdir, label):
        change, shift = least_squares(sums_of(shape_of(linear), tokens, network.device), damping, biased=linear.bias is not None)
        weight_of(linear).add_(change)
        if linear.bias is not None:
            linear.bias.data.add_(shift)


def prove_repair(before: Checkpoint, after: Checkpoint, cut: Cut, inputs: Inputs) -> list[Claim]:
    """On a probe every matrix with something to mend brings the stream nearer to what it was before than the matrix that the cut alone leaves does in its
    place; and nothing but these matrices and their biases differs from the cut alone."""
    network, alone = after.torch_network, copy.deepcopy(before.torch_network)
    apply_cut(alone, cut)
    wanting, mending = 0, 0
    old = iter(_matrices(alone))
    for linear, tokens in _each_matrix(network, before.torch_network, cut, probe_features(before, inputs), inputs.workdir, "probe"):
        left = next(old)
        change = weight_of(linear) - weight_of(left)
        shift = 0 if linear.bias is None else linear.bias - left.bias
        errors = torch.zeros(2, dtype=torch.float64)
        for x, miss in tokens:
            errors += torch.stack([miss.square().sum(), (miss + x @ change.T + shift).square().sum()]).cpu()
        wanting += bool(errors[1] > 0)
        mending += bool(errors[0] < errors[1])
    fitted = {id(parameter) for linear in _matrices(network) for parameter in linear.parameters()}
    others = alone.state_dict()
    changed = sum(int((parameter != others[name]).sum()) for name, parameter in network.named_parameters() if id(parameter) not in fitted)
    return [Claim("matrices that bring the stream nearer to what it was", wanting, mending), Claim("other weights that repair changed", 0, changed)]


def _matrices(network: PreTrainedModel) -> list[Linear]:
    return [getattr(layer, part) for layer in layers_of(network) for part in PARTS]


def _each_matrix(
    network: PreTrainedModel, whole: PreTrainedModel, cut: Cut, features: Sequence[Feature], workdir: Path, label: str
) -> Iterator[tuple[Linear, Tokens]]:
    """The output matrices from the first layer to the last, each with its tokens, which are computed while they are read; the matrix may be changed then, and
    those behind it see what it became."""
    size = max(1, BATCH_TOKENS // max(len(feature["input_ids"]) for feature in features))
    batches = [batch for _, batch in batches_of(features, network.config.pad_token_id or 0, size)]
    old_layers, new_layers = layers_of(whole), layers_of(network)
    workdir.mkdir(parents=True, exist_ok=True)
    with ready(network), ready(whole), torch.no_grad(), TemporaryDirectory(dir=workdir) as folder, bar(label, 2 * len(new_layers), "matrix") as progress:
        old, new = Flow(whole, batches, Path(folder) / "whole"), Flow(network, batches, Path(folder) / "cut")
        passed = 0
        for i, layer in zip(cut.layers, new_layers, strict=True):
            for dropped in old_layers[passed:i]:
                old.pass_through(dropped)
            for part in PARTS:
                yield getattr(layer, part), _tokens(old, old_layers[i], new, layer, part, cut.hidden)
                progress.update(1)
            new.pass_through(layer)
            passed = i + 1


def _tokens(old: Flow, old_layer: Layer, new: Flow, layer: Layer, part: Part, hidden: Sequence[int]) -> Tokens:
    last = part == PARTS[-1]
    for batch, was, now in zip(new.batches, old.look(old_layer, part, and_pass=last), new.look(layer, part), strict=True):
        text = torch.from_numpy(batch["attention_mask"]).bool().to(now.given.device)
        # The two differences are exactly zero where nothing was cut, which a difference of two sums need not be.
        miss = (was.residual[..., hidden] - now.residual) + (was.answer[..., hidden] - now.answer)
        yield now.given[text].float(), miss[text].float()
