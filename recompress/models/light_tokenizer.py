"""The tokenizer of a model directory without transformers, whose import costs more than all else that a question to an ONNX model needs.

It is called like the other, as far as benchmarks call it, and gives the same tokens, places and cuts; ``recompress.models.tokenizer`` writes the whole of a
tokenizer into ``tokenizer.json``, so that nothing is left that only transformers would know.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.models.tokenizer import CHAT, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding

SEGMENTS = "token_type_ids"
STRATEGIES = {True: "longest_first"}
"""What ``truncation`` may be besides the name of a strategy."""


class Encoded(dict[str, Any]):
    """Lists for each text, by the names that transformers gives them."""

    encodings: list[Encoding]

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of one text the word that it belongs to."""
        return list(self.encodings[batch_index].word_ids)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of one text whether it is of the first or of the second of a pair."""
        return list(self.encodings[batch_index].sequence_ids)


class LightTokenizer:
    """A tokenizer that reads text. Raises ``InputError`` for a directory without its files and ``IntegrityError`` for broken ones."""

    def __init__(self, directory: Path) -> None:
        self.backend_tokenizer, settings = read_tokenizer(directory)
        self.bos_token, self.eos_token = settings.get("bos_token"), settings.get("eos_token")
        self.chat_template = settings.get(CHAT)
        self.pad_token_id = self._number(settings.get("pad_token"))
        self.eos_token_id = self._number(settings.get("eos_token"))
        self.truncation_side = settings.get("truncation_side", "right")
        self.model_input_names = settings.get("model_input_names", ["input_ids", "token_type_ids", "attention_mask"])

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        *,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        return_overflowing_tokens: bool = False,
        return_offsets_mapping: bool = False,
        return_token_type_ids: bool | None = None,
        verbose: bool = False,
    ) -> Encoded:
        """Tokens of one text, or of each text of a list; ``text_pair`` is like ``text``. What is cut off is given too where ``return_overflowing_tokens`` says so."""
        alone = isinstance(text, str) or (is_split_into_words and bool(text) and isinstance(text[0], str))
        texts, pairs = ([text], None if text_pair is None else [text_pair]) if alone else (text, text_pair)
        backend = self.backend_tokenizer
        if truncation and max_length is not None:
            strategy = STRATEGIES.get(truncation, truncation) if isinstance(truncation, bool) else truncation
            backend.enable_truncation(max_length, stride=stride, strategy=str(strategy), direction=self.truncation_side)
        encoded = backend.encode_batch(list(texts if pairs is None else zip(texts, pairs, strict=True)), is_pretokenized=is_split_into_words)
        backend.no_truncation()  # whoever asks the backend itself gets all
        rows = [(i, one) for i, first in enumerate(encoded) for one in (first, *(first.overflowing if return_overflowing_tokens else ()))]
        result = Encoded(input_ids=[row.ids for _, row in rows])
        result.encodings = [row for _, row in rows]
        if SEGMENTS in self.model_input_names if return_token_type_ids is None else return_token_type_ids:
            result[SEGMENTS] = [row.type_ids for _, row in rows]
        if "attention_mask" in self.model_input_names:
            result["attention_mask"] = [row.attention_mask for _, row in rows]
        if return_offsets_mapping:
            result["offset_mapping"] = [row.offsets for _, row in rows]
        if alone and not return_overflowing_tokens:
            result.update({name: values[0] for name, values in result.items()})
        elif return_overflowing_tokens:
            result["overflow_to_sample_mapping"] = [i for i, _ in rows]
        return result

    def _number(self, token: str | None) -> int | None:
        return None if token is None else self.backend_tokenizer.token_to_id(token)
