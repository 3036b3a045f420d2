"""Vocabulary trimming: leave out the tokens that the text at hand never uses, in the embeddings, in the tokenizer, and in a decoder's output layer.

    kept = {token: used at least min_count times in the training and unlabelled text} + special tokens + bytes + single characters

On text whose tokens are all kept, tokens and outputs are exactly what they were: a row of the embeddings that is never read cannot matter. Other text is
cut into smaller pieces that are known. A decoder gives the kept tokens the logits that it gave them before; its probabilities are shared among fewer.

Source: Abdaoui et al. 2020, "Load What You Need", arXiv:2010.05609, section 3; Ushio et al. 2023, arXiv:2305.15020, section 3 (vocabulary trimming).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import nn

from recompress.benchmarks import ALL_BENCHMARKS, ReadsOn
from recompress.errors import DataRefused, InputError
from recompress.methods.registry import Claim, Inputs, method
from recompress.methods.slimming.kept_text import NO_LIMIT, cut_otherwise, has_output, kept_text, output_change
from recompress.methods.slimming.vocabulary import check_trimmed, needed, tokens_of, trimmed
from recompress.models.architecture import ALL_ARCHITECTURES, architecture_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.tokenizer import with_backend
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 1000
CLOSE = 1e-6
"""The largest difference of a logit, relative to the largest one."""


class TrimVocabulary(Settings):
    """Which tokens stay."""

    min_count: Annotated[int, Field(ge=1)] = 1
    """Keep a token that the training and unlabelled text uses at least so often."""
    keep_characters: bool = True
    """Keep all single characters too, so that words which were never seen can still be spelled. Byte-level tokenizers always keep their 256 bytes."""


def prove(before: Checkpoint, after: Checkpoint, config: TrimVocabulary, inputs: Inputs) -> list[Claim]:
    """One row for each token, each row what it was, and the same tokens and outputs on training text of kept tokens and on text made of these."""
    was, now = before.tokenizer.get_vocab(), after.tokenizer.get_vocab()
    old_rows, rows = (checkpoint.torch_network.get_input_embeddings().weight for checkpoint in (before, after))
    pairs = torch.tensor([(was[token], number) for token, number in now.items()])
    moved = int((old_rows[pairs[:, 0]] != rows[pairs[:, 1]]).any(-1).sum())
    text = kept_text(before, after, inputs)
    change, size = output_change(before, after, text)
    claims = [
        Claim("embedding rows", len(now), rows.shape[0]),
        Claim("vocabulary in the config", len(now), after.torch_network.config.vocab_size),
        Claim("embedding rows that changed", 0, moved),
        Claim("training texts of kept tokens to look at", float(config.min_count == 1), len(text), bound="at least"),
        Claim("texts of kept tokens that are cut otherwise", 0, cut_otherwise(before, after) + sum(old != new for old, new in text)),
        # A product with fewer columns may take its sums in another order.
        Claim("largest change of an output on kept tokens", 0, change, tolerance=CLOSE * size if has_output(after) else 0),
    ]
    if not has_output(after):
        return claims
    old_output, output = (checkpoint.torch_network.get_output_embeddings() for checkpoint in (before, after))
    changed = int((old_output.weight[pairs[:, 0]] != output.weight[pairs[:, 1]]).any(-1).sum())
    return [
        *claims,
        Claim("rows of the output layer", len(now), output.weight.shape[0]),
        Claim("rows of the output layer that changed", 0, changed),
        Claim("output layer is the embeddings", float(old_output.weight is old_rows), float(output.weight is rows)),
    ]


@method(
    "trim_vocabulary",
    TrimVocabulary,
    family="slimming",
    prove=prove,
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="Abdaoui et al. 2020, arXiv:2010.05609, section 3; Ushio et al. 2023, arXiv:2305.15020, section 3",
    shrinks="embeddings, which are most of a small multilingual encoder",
    speeds_up="loading",
)
def trim_vocabulary(checkpoint: Checkpoint, config: TrimVocabulary, inputs: Inputs) -> Checkpoint:
    """Leave out the tokens that the training text never uses; outputs on kept tokens stay exactly what they were."""
    network = checkpoint.torch_network
    backend = checkpoint.tokenizer.backend_tokenizer
    definition = json.loads(backend.to_str())
    tokens = tokens_of(definition)
    counts = _counts(checkpoint, inputs)
    used = {number for number, count in counts.items() if count >= config.min_count}
    named = {number for number in (*_special_numbers(network), *checkpoint.tokenizer.all_special_ids) if number in tokens}
    order = _order(network, needed(definition, used | named, characters=config.keep_characters), tokens)
    if len(order) == network.get_input_embeddings().weight.shape[0]:
        raise InputError(f"trim_vocabulary finds nothing to leave out: all {len(order):,} tokens are used or needed; raise min_count, or leave the step out")
    smaller = with_backend(checkpoint.tokenizer, json.dumps(trimmed(definition, order)))
    check_trimmed(backend, smaller.backend_tokenizer, order)
    _cut_embeddings(network, order)
    return Checkpoint(network, smaller, checkpoint.info)


def _counts(checkpoint: Checkpoint, inputs: Inputs) -> Counter[int]:
    """How often the text uses each token: row by row, and as it is read on from row to row, where the benchmark does so; whatever is more."""
    examples = [*inputs.train, *inputs.unlabelled]
    if not examples:
        raise DataRefused("trim_vocabulary needs training text to see which tokens are used, got none")
    benchmark, tokenizer = inputs.benchmark, checkpoint.tokenizer
    counts: Counter[int] = Counter()
    for start in range(0, len(examples), CHUNK):
        for feature in benchmark.encode(tokenizer, examples[start : start + CHUNK], checkpoint.info.labels, NO_LIMIT):
            counts.update(feature["input_ids"])
    if isinstance(benchmark, ReadsOn):
        counts |= Counter(number for feature in benchmark.pieces(tokenizer, examples, NO_LIMIT) for number in feature["input_ids"])
    return counts


def _order(network: PreTrainedModel, stay: set[int], tokens: dict[int, str]) -> list[int]:
    """Kept tokens in their old order. Where positions follow the padding token's number it must not move, so that all before it stay as well."""
    if architecture_of(network).positions_follow_padding:
        stay = stay | {number for number in tokens if number < network.config.pad_token_id}
    order = sorted(stay)
    rows = network.get_input_embeddings().weight.shape[0]
    if order[-1] >= rows:
        raise InputError(f"the tokenizer numbers a token {order[-1]:,}, the model has {rows:,} embeddings; the two do not belong together")
    return order


def _cut_embeddings(network: PreTrainedModel, order: list[int]) -> None:
    """Keep these rows of the embeddings, of the output layer where there is one, and of all numbers of tokens in the config."""
    new = {old: i for i, old in enumerate(order)}
    embedding: Any = network.get_input_embeddings()
    output: Any = network.get_output_embeddings()
    tied = output is not None and output.weight is embedding.weight
    embedding.weight = nn.Parameter(embedding.weight.data[order].clone())
    embedding.num_embeddings = len(order)
    if embedding.padding_idx is not None:
        embedding.padding_idx = new.get(embedding.padding_idx)
    if output is not None:
        output.weight = embedding.weight if tied else nn.Parameter(output.weight.data[order].clone())
        output.out_features = len(order)
        if output.bias is not None:
            output.bias = nn.Parameter(output.bias.data[order].clone())
    network.config.vocab_size = len(order)
    for config in (network.config, getattr(network, "generation_config", None)):
        for name, value in _special_settings(config):
            setattr(config, name, [new[number] for number in value if number in new] if isinstance(value, list) else new.get(value))


def _special_settings(config: Any) -> list[tuple[str, Any]]:
    """Settings of a config that number a token."""
    every = config.to_dict() if config is not None else {}
    return [(name, value) for name, value in every.items() if name.endswith("_token_id") and value is not None]


def _special_numbers(network: PreTrainedModel) -> list[int]:
    return [number for _, value in _special_settings(network.config) for number in (value if isinstance(value, list) else [value])]
