"""Magnitude: zero the weights that are smallest, one by one, n of each m, or whole blocks; at once, or in rounds with training between; of the fine-tuned
model, or of the base model before it is fine-tuned.

    score[o, i] = |W[o, i]|                         score of a block B: ||B||_2, or the mean of |B|
    share of zeros after round k of r: 1 - (1 - sparsity)^(k / r), so that each round takes the same share of what is left

Source: Han et al. 2015, arXiv:1506.02626, section 3 (by layer or over all; prune, train, prune again); Mishra et al. 2021, arXiv:2104.08378, section 3 (n of m);
Narang, Undersander and Diamos 2017, arXiv:1711.02782, section 3 (whole blocks, judged there by their largest weight).
Zeros are stored like other numbers: alone, this method saves neither bytes nor time. It keeps quality in fewer weights, for what comes after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.pruning.rows import Amount, numbers, prove_rows, refuse, smallest_in_rows
from recompress.methods.pruning.rows import check as check_amount
from recompress.methods.pruning.scope import Scope, least_zeros, out_of_order, smallest_masks
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.pretrained import from_base
from recompress.models.surgery import weight_of
from recompress.training.run import train
from recompress.training.settings import Schedule

Side = Annotated[int, Field(ge=1, le=4096)]


class Magnitude(Amount):
    """How many weights of the encoder's linear layers become zero, and among which they compete."""

    scope: Scope = "layer"
    """The smallest of all weights, of each matrix, or of each row of a matrix (the weights of one output). A pattern stands in its place."""
    block: tuple[Side, Side] | None = None
    """``[outputs, inputs]``: blocks of so many rows and columns are zeroed whole, and compete with each other as single weights would."""
    block_norm: Literal["l2", "mean"] = "l2"
    """What a block is judged by: the L2 norm of its weights, or the mean of their sizes."""
    start: Literal["model", "base"] = "model"
    """What is pruned: the model as it comes, or the base model with an untrained head, as the first step, to be fine-tuned afterwards."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    """In how many rounds. Between two rounds the network is trained; after the last one it is not."""
    retrain: Schedule | None = None
    """How the network is trained between two rounds; one epoch with the usual dials when left out."""


def check(config: Magnitude) -> None:
    """Raises ``InputError`` for settings that contradict each other."""
    check_amount(config)
    if config.block is None:
        if config.block_norm != "l2":
            raise InputError(f"block_norm {config.block_norm} judges blocks, and there are none; say block: [4, 4], or leave it out")
    elif config.pattern is not None:
        raise InputError(f"pattern {config.pattern} chooses single weights and block {list(config.block)} whole blocks; leave one of them out")
    if config.rounds == 1 and config.retrain is not None:
        raise InputError("retrain says how the network is trained between rounds, and there is only 1; raise rounds, or add the step finetune")
    if config.pattern is not None and config.rounds > (most := int(numbers(config.pattern)[1] - numbers(config.pattern)[0])):
        raise InputError(f"pattern {config.pattern} zeroes {most} of each group, which can be done in at most {most} rounds, got {config.rounds}")


def block_scores(weight: Float[Tensor, "out in"], block: tuple[int, int], norm: Literal["l2", "mean"]) -> Float[Tensor, "out_blocks in_blocks"]:
    """What each block is worth. The block's sides must divide the matrix."""
    rows, columns = block
    grid = weight.reshape(weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    return grid.square().sum((1, 3)).sqrt() if norm == "l2" else grid.abs().mean((1, 3))


def spread(mask: Bool[Tensor, "out_blocks in_blocks"], block: tuple[int, int]) -> Bool[Tensor, "out in"]:
    """A mask of blocks as a mask of weights."""
    return mask.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)


def masks_of(weights: Sequence[Float[Tensor, "_ _"]], config: Magnitude) -> list[Bool[Tensor, "_ _"]]:
    """True where a weight is to become zero."""
    if config.pattern is not None:
        return [smallest_in_rows(weight.abs(), config.sparsity, config.pattern) for weight in weights]
    if config.block is None:
        return smallest_masks([weight.abs() for weight in weights], config.sparsity, config.scope)
    scores = [block_scores(weight, config.block, config.block_norm) for weight in weights]
    return [spread(mask, config.block) for mask in smallest_masks(scores, config.sparsity, config.scope)]


def stage(config: Magnitude, number: int) -> Magnitude:
    """What round ``number`` of all rounds (the first is 1) asks for; the last one asks for what the settings say."""
    if number == config.rounds:
        return config
    if config.pattern is None:
        return config.model_copy(update={"sparsity": 1 - (1 - config.sparsity) ** (number / config.rounds)})
    n, m = numbers(config.pattern)
    return config.model_copy(update={"pattern": f"{m - (m - n) * number // config.rounds}:{m}"})


def prove(before: Checkpoint, after: Checkpoint, config: Magnitude, inputs: Inputs) -> list[Claim]:
    """The share of zeros, or of blocks of zeros: in each group of competitors as many as were asked for, or as many as there were before, where these are more.
    In one round, these are the smallest, and weights that stay are not changed; in several, they are trained; those of the base model are others."""
    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True)
    weights = [(weight_of(old), weight_of(new)) for (_, old), (_, new) in pairs]
    if config.block is None:
        scores, was, now = ([old.abs() for old, _ in weights], [old == 0 for old, _ in weights], [new == 0 for _, new in weights])
    else:
        block = config.block
        scores = [block_scores(old, block, config.block_norm) for old, _ in weights]
        was, now = ([block_scores((pair[i] != 0).float(), block, "mean") == 0 for pair in weights] for i in (0, 1))
    changed = sum(int(((new != 0) & (new != old)).sum()) for old, new in weights)
    claims = [Claim("zeros that became something else", 0, sum(int(((old == 0) & (new != 0)).sum()) for old, new in weights))]
    if config.rounds == 1 and config.start == "model":
        group = int(numbers(config.pattern)[1]) if config.pattern is not None else 0
        claims += [
            Claim("weights that stayed and changed", 0, changed),
            Claim("groups in which a smaller one stayed than one that went", 0, out_of_order(scores, was, now, config.scope, group)),
        ]
    else:
        claims.append(Claim("weights that stayed are others", 1, float(changed > 0)))
    if config.pattern is not None:
        return [*prove_rows(before, after, config), *claims]
    total = sum(mark.numel() for mark in was)
    asked = least_zeros(was, config.sparsity, config.scope)
    what = "sparsity" if config.block is None else f"share of blocks of {config.block[0]} x {config.block[1]} that are zero"
    return [Claim(what, asked / total, sum(int(mark.sum()) for mark in now) / total), *claims]


@method(
    "magnitude",
    Magnitude,
    family="pruning",
    prove=prove,
    check=check,
    source="Han et al. 2015, arXiv:1506.02626, section 3",
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    needs=("base",),
    loses=lambda config, step: config.start == "base",
    shrinks="nothing by itself",
    speeds_up="nothing by itself; 2:4 on GPUs that know it",
)
def prune_magnitude(checkpoint: Checkpoint, config: Magnitude, inputs: Inputs) -> Checkpoint:
    """Zero the smallest weights or blocks of the encoder's linear layers, at once or in rounds with training between.

    Raises ``InputError`` for blocks or patterns that do not divide a matrix, for fewer zeros than there are, and without the base model where it is to begin.
    """
    if config.start == "base":
        if inputs.base is None:
            raise InputError("magnitude with start: base needs the base model, and was given none")
        info = checkpoint.info
        checkpoint = from_base(inputs.base, info.benchmark, info.labels, info.max_length, inputs.seed)
        checkpoint.info = replace(checkpoint.info, answering=info.answering)
    _refuse(checkpoint, config)
    for number in range(1, config.rounds + 1):
        weights = [weight_of(linear) for _, linear in encoder_linears(checkpoint.torch_network)]
        for weight, mask in zip(weights, masks_of(weights, stage(config, number)), strict=True):
            weight.masked_fill_(mask, 0)
        if number < config.rounds:
            place, label = inputs.workdir / f"round-{number}", f"{inputs.label or 'magnitude'}, round {number}"
            checkpoint = train(
                checkpoint, inputs.train, inputs.dev, config.retrain or Schedule(epochs=1), inputs.seed, place, curve=inputs.curve, label=label, hold=True
            )
    return checkpoint


def _refuse(checkpoint: Checkpoint, config: Magnitude) -> None:
    if config.block is None:
        refuse(checkpoint.torch_network, config, "magnitude")
        return
    linears = [(name, weight_of(linear)) for name, linear in encoder_linears(checkpoint.torch_network)]
    for name, weight in linears:
        if weight.shape[0] % config.block[0] or weight.shape[1] % config.block[1]:
            shape = " x ".join(map(str, weight.shape))
            raise InputError(f"block {list(config.block)} does not divide {name}, which is {shape}; choose sides that divide every matrix")
    zero = [block_scores((weight != 0).float(), config.block, "mean") == 0 for _, weight in linears]
    there = sum(int(mark.sum()) for mark in zero) / sum(mark.numel() for mark in zero)
    if config.sparsity < there:
        raise InputError(
            f"magnitude: sparsity {config.sparsity:g} is less than the {there:g} of all blocks that are zero already; ask for more, or leave the step out"
        )
