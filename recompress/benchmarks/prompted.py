"""What benchmarks share that ask a model of language in words: the prompt, made by a template from a row of data, as long as the model reads.

Such a benchmark judges what a model answers or writes. What its models *learn* and are calibrated with is text all the same, prompts with their right answers, read on
from row to row as ``language-modelling`` reads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import regex
from jaxtyping import Float

from recompress.benchmarks.language_modelling import LanguageModelling
from recompress.benchmarks.scores import Feature
from recompress.errors import DataRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example
    from recompress.runtimes import Runtime

_PLACE = regex.compile(r"\{([a-z_]+)\}")
Tokens = Callable[[tuple[str, ...]], list[int]]
"""The tokens of a prompt, of the texts that it asks about."""


class Prompted(ABC):
    """The verbs of ``Benchmark`` and ``ReadsOn`` that ask for text to be learned; who inherits says the rest."""

    as_text = LanguageModelling()
    """The benchmark that a training is judged by."""

    def split(self, text: str) -> tuple[str, ...]:
        return (text,)

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """What whoever asks such a model calls the texts of a prompt."""

    @abstractmethod
    def served(self, runtime: Runtime, tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[dict[str, Any]]:
        """What a served model answers to each."""

    @abstractmethod
    def as_learned(self, example: Example) -> Example:
        """Prompt and right answer, as one text."""

    @abstractmethod
    def asked(self, example: Example) -> Example:
        """What the model is asked about an example, as one text."""

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """Each prompt alone, as it is asked, cut off at ``max_length``; in the form of ``LanguageModelling.encode``."""
        return self.as_text.encode(tokenizer, [self.asked(example) for example in examples], (), max_length)

    def windows(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[Feature]:
        """See ``LanguageModelling.windows``, of prompts with their answers."""
        return self.as_text.windows(tokenizer, [self.as_learned(example) for example in examples], max_length)

    def pieces(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[Feature]:
        """See ``LanguageModelling.pieces``, of prompts with their answers."""
        return self.as_text.pieces(tokenizer, [self.as_learned(example) for example in examples], max_length)

    def unit_logits(self, logits: Float[np.ndarray, "length vocabulary"], feature: Feature) -> Float[np.ndarray, "units 2"]:
        return self.as_text.unit_logits(logits, feature)


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with each ``{name}`` replaced by its value, once: what stands in a value stays as it is, and so does a name that has none."""
    return str(_PLACE.sub(lambda match: values.get(match[1], match[0]), template))


def places_in(template: str) -> list[str]:
    """The names that stand in a template, in order."""
    return [match[1] for match in _PLACE.finditer(template)]


def fitted(words: tuple[str, ...], tokens_of: Tokens, tokenizer: Any, room: int, what: str) -> tuple[tuple[str, ...], list[int]]:
    """The texts of a prompt, and its tokens, so that these are no more than ``room``: the longest text is cut at its end, by as much as is too much.

    Raises ``DataRefused`` where the prompt is too long without any text; ``what`` names it.
    """
    tokens = tokens_of(words)
    while (over := len(tokens) - room) > 0:
        longest = max(range(len(words)), key=lambda i: len(words[i]))
        offsets = tokenizer.backend_tokenizer.encode(words[longest], add_special_tokens=False).offsets
        if not words[longest]:
            raise DataRefused(
                f"{what} has {len(tokens):,} tokens without any text, and there is room for {room:,}; give fewer or shorter examples, or a longer max_length"
            )
        kept = words[longest][: offsets[len(offsets) - over - 1][1]] if over < len(offsets) else ""
        words = (*words[:longest], kept if len(kept) < len(words[longest]) else words[longest][:-1], *words[longest + 1 :])
        tokens = tokens_of(words)
    return words, tokens
