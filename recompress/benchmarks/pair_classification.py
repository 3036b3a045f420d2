"""Pair classification: one label for two texts, as in entailment and paraphrase; judged as text classification is.

The tokenizer is asked about both texts at once, so that what stands between them, and which segment a token belongs to (``token_type_ids``, where the network
has an embedding for it), is what the model was pretrained with. A pair that is too long loses tokens of its longer text first.

Source: Devlin et al. 2019, arXiv:1810.04805, section 3 (two texts in one sequence, told apart by a separator and by segment embeddings).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recompress.benchmarks.scores import Feature
from recompress.benchmarks.text_classification import TextClassification, number_of_label
from recompress.models.heads import PAIR
from recompress.models.tokenizer import SEGMENTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example


class PairClassification(TextClassification):
    """The unit is the pair. ``Example.words`` holds its two texts, or a single one, which stands alone."""

    name = "pair-classification"
    head = PAIR

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """See ``Benchmark.encode``; with ``token_type_ids`` where the tokenizer names them among its inputs. Raises ``DataRefused`` for an unknown label."""
        number = {label: i for i, label in enumerate(labels)}
        features: dict[int, Feature] = {}
        for several in (True, False):
            rows = [i for i, example in enumerate(examples) if (len(example.words) > 1) == several]
            if not rows:
                continue
            texts = [[examples[i].words[place] for i in rows] for place in range(1 + several)]
            encoded = tokenizer(*texts, truncation="longest_first", max_length=max_length, return_token_type_ids=SEGMENTS in tokenizer.model_input_names)
            features |= {i: self._feature(encoded, row, tokenizer.pad_token_id or 0) for row, i in enumerate(rows)}
        return [{**features[i], "labels": [number_of_label(number, example)]} for i, example in enumerate(examples)]

    def _feature(self, encoded: dict[str, list[list[int]]], row: int, nothing: int) -> Feature:
        ids = list(encoded["input_ids"][row])
        feature: Feature = {"input_ids": ids or [nothing], "attention_mask": [1] * len(ids) or [1], "units": [0]}
        if SEGMENTS in encoded:
            feature[SEGMENTS] = list(encoded[SEGMENTS][row]) or [0]
        return feature
