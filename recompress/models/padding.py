"""The token that fills up batches: one for a model, wherever it learns, teaches, is calibrated or answers.

Behind a mask any token would do, with one exception: a decoder that classifies gives, for each text, the logits at the last token that is not its *config's*
padding token. Batches that are filled up with another token are answered from inside the padding, and of a config that names none transformers answers
one text at a time only. So the config of such a model names the token that its tokenizer pads with; where the tokenizer has none, the one that ends a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recompress.errors import InputError, IntegrityError
from recompress.models.architecture import architecture_named
from recompress.models.heads import head_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def padding_of(network: PreTrainedModel) -> int:
    """The token that every batch of this network is filled up with: its config's, or 0, where the config names none that has an embedding."""
    number = network.config.pad_token_id
    return int(number) if number is not None and 0 <= number < network.config.vocab_size else 0


def reads_before_padding(config: PreTrainedConfig, benchmark: str) -> bool:
    """Whether models for ``benchmark`` find the place of their answer by the padding token: decoders that classify texts."""
    return architecture_named(config.model_type).causal and head_of(benchmark).auto_class.endswith("ForSequenceClassification")


def complete_padding(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, directory: Path) -> None:
    """Give the tokenizer of a decoder that has no padding token the one that ends a text. Raises ``InputError`` where there is none to be had."""
    if tokenizer.pad_token_id is None and architecture_named(config.model_type).causal:
        tokenizer.pad_token = tokenizer.eos_token  # stands behind the mask and behind the text, where no decoder looks
    if tokenizer.pad_token_id is None:
        raise InputError(f"the tokenizer of base model {directory} has no padding token")


def check_padding(directory: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, benchmark: str) -> None:
    """Raises ``IntegrityError`` for a decoder that classifies and whose config pads with another token than its tokenizer, or with none."""
    if reads_before_padding(config, benchmark) and (config.pad_token_id is None or config.pad_token_id != tokenizer.pad_token_id):
        raise IntegrityError(
            f"{directory} pads with token {config.pad_token_id} by its config and with {tokenizer.pad_token_id} by its tokenizer; a decoder that classifies reads "
            "its answer before the padding, so the two must be one: make the model again from its base"
        )
