"""Language modelling: how surprised a decoder is by text, judged by perplexity and by bits per byte.

    NLL = - sum_t ln p(token_t | tokens before it in its window)
    perplexity = exp(NLL / tokens)        bits per byte = NLL / (ln 2 * bytes)

The rows of a slice are read on from one to the next, as they stand in the file; the text is cut into tokens once, and these into windows of ``max_length``
that do not overlap. The first token of a window has nothing before it and is not scored, nor are its bytes counted; the last window may be shorter.
What a row cost is what its tokens cost: so the examples are those of the data, whatever tokenizer a model has, and a bootstrap may draw them.

Perplexity depends on the tokenizer, bits per byte does not. Gates take more for better, so the primary metric is ``negative_bits_per_byte``: a margin of 0.02
lets 1.20 bits per byte rise to 1.22.

Source: Jelinek et al. 1977, JASA 62:S63 (perplexity); Gao et al. 2020 (The Pile), arXiv:2101.00027, section 3.1 (bits per byte).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Num

from recompress.benchmarks.scores import NO_LABEL, Feature, ratio
from recompress.errors import DataRefused, IntegrityError
from recompress.models.heads import CAUSAL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example
    from recompress.runtimes import Runtime

MICRO = 1e-6
"""Costs are added up as whole millionths of a nat, so that sums do not depend on their order."""
LOGITS = 1 << 26
"""Numbers of logits that are held at once."""


class LanguageModelling:
    """Plain text. The unit is the token, and its "logits" are two numbers: what it cost in nats, and its bytes."""

    name = "language-modelling"
    primary = "negative_bits_per_byte"
    head = CAUSAL

    def split(self, text: str) -> tuple[str, ...]:
        return (text,)

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """Each row alone, cut off at ``max_length``: ``labels`` are the next tokens, ``bytes`` what each of them stands for. ``read`` scores whole texts."""
        if not examples:
            return []
        texts = [" ".join(example.words) for example in examples]
        encoded = tokenizer(texts, truncation=True, max_length=max_length, return_offsets_mapping=True)
        return [
            _feature(ids, np.diff(_byte_places(text)[_ends(spans)[1]]).tolist())
            for ids, spans, text in zip(encoded["input_ids"], encoded["offset_mapping"], texts, strict=True)
        ]

    def windows(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[Feature]:
        """Windows of exactly ``max_length`` tokens over all rows, slice by slice; a last one that is shorter is left out.

        Raises ``DataRefused`` where no slice has so many tokens.
        """
        windows = []
        for _, rows in _by_slice(examples):
            ids = tokenizer(_joined([examples[i] for i in rows])[0], verbose=False)["input_ids"]
            windows += [ids[start : start + max_length] for start in range(0, len(ids) - max_length + 1, max_length)]
        if not windows:
            raise DataRefused(f"the text is shorter than a window of {max_length} tokens; give more text or a smaller max_length")
        return [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*ids[1:], NO_LABEL]} for ids in windows]

    def pieces(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[Feature]:
        """The windows that ``read`` scores, the last of each slice as short as it is, in the form of ``encode``. Raises ``DataRefused`` where there are none."""
        pieces = [feature for _, rows in _by_slice(examples) for feature in _Text(tokenizer, examples, rows, max_length).features()]
        if not pieces:
            raise DataRefused("the text is shorter than two tokens; give more text")
        return pieces

    def read(self, runtime: Runtime, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int, label: str) -> list[tuple[str, ...]]:
        """For each row what ``decide`` gives: millionths of a nat, tokens and bytes. Raises ``IntegrityError`` for logits that are not finite."""
        from recompress.progress import bar

        table = np.zeros((len(examples), 3), dtype=np.int64)
        texts = [_Text(tokenizer, examples, rows, max_length) for _, rows in _by_slice(examples)]
        batch = max(1, LOGITS // (max_length * len(tokenizer)))
        with bar(label, sum(len(text.windows) for text in texts), "window") as progress:
            for text in texts:
                for start in range(0, len(text.windows), batch):
                    windows = text.windows[start : start + batch]
                    for i, logits in enumerate(runtime.logits([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in windows], batch), start):
                        text.add(table, i, surprise(logits[:-1], np.asarray(text.windows[i][1:])))
                    progress.update(len(windows))
        return [tuple(map(str, row)) for row in table.tolist()]

    def unit_logits(self, logits: Float[np.ndarray, "length vocabulary"], feature: Feature) -> Float[np.ndarray, "units 2"]:
        """Cost in nats and bytes of each token but the first."""
        following = np.asarray(feature["input_ids"][1:], dtype=np.int64)
        return np.stack([surprise(np.asarray(logits)[: len(following)], following), np.asarray(feature["bytes"], dtype=np.float64)], axis=1)

    def decide(self, unit_logits: Float[np.ndarray, "units 2"], labels: Sequence[str]) -> tuple[str, ...]:
        """Millionths of a nat, tokens and bytes of a row, as whole numbers."""
        return (str(int(_whole(unit_logits[:, 0]).sum())), str(len(unit_logits)), str(int(unit_logits[:, 1].sum())))

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return ("micronats", "tokens", "bytes")

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples 3"]:
        """What ``decide`` or ``read`` said, as numbers. Raises ``DataRefused`` for anything else."""
        try:
            table = np.array([[int(number) for number in row] for row in predictions], dtype=np.int64).reshape(len(predictions), 3)
        except ValueError:
            raise DataRefused("language modelling counts three whole numbers for each example: micronats, tokens and bytes") from None
        if len(references) != len(predictions) or (table < 0).any():
            raise DataRefused(f"{len(references)} examples and {len(predictions)} predictions, or a negative count among these")
        return table

    def metrics(self, totals: Num[np.ndarray, "*draws 3"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        cost, tokens, size = (np.asarray(totals[..., i], dtype=np.float64) for i in range(3))
        bits = ratio(cost * MICRO / np.log(2), size)
        with np.errstate(over="ignore"):
            perplexity = np.exp(ratio(cost * MICRO, tokens))
        return {"negative_bits_per_byte": -bits, "bits_per_byte": bits, "perplexity": perplexity}

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return {}


def surprise(logits: Float[np.ndarray, "tokens vocabulary"], following: Int[np.ndarray, " tokens"]) -> Float[np.ndarray, " tokens"]:
    """- ln p of each following token, in 64-bit floats. Raises ``IntegrityError`` for logits that are not finite."""
    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf) if len(logits) else logits
    if not np.isfinite(logits).all():
        raise IntegrityError("the model gives logits that are not finite")
    with np.errstate(under="ignore"):
        total = np.log(np.exp((logits - highest).astype(np.float64)).sum(axis=-1))
    chosen = np.take_along_axis(logits, following[:, None], axis=-1) - highest
    return np.asarray(total - chosen[:, 0].astype(np.float64))


class _Text:
    """One slice as one text: its windows, and which row and how many bytes each token stands for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], rows: Sequence[int], max_length: int) -> None:
        text, starts = _joined([examples[i] for i in rows])
        encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids = encoded["input_ids"]
        begins, ends = _ends(encoded["offset_mapping"])
        place = _byte_places(text)
        self.bytes = place[ends] - place[begins]
        self.rows = np.asarray(rows)[np.searchsorted(starts, begins, side="right") - 1]
        self.length = max_length
        self.windows = [ids[start : start + max_length] for start in range(0, len(ids), max_length)]
        if self.windows and len(self.windows[-1]) < 2:
            self.windows.pop()

    def features(self) -> list[Feature]:
        starts = range(0, len(self.windows) * self.length, self.length)
        return [_feature(ids, self.bytes[start + 1 : start + len(ids)].tolist()) for ids, start in zip(self.windows, starts, strict=True)]

    def add(self, table: Int[np.ndarray, "examples 3"], window: int, costs: Float[np.ndarray, " tokens"]) -> None:
        first = window * self.length + 1
        rows = self.rows[first : first + len(costs)]
        np.add.at(table, rows, np.stack([_whole(costs), np.ones_like(rows), self.bytes[first : first + len(costs)]], axis=1))


def _by_slice(examples: Sequence[Example]) -> list[tuple[str, list[int]]]:
    slices: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        slices.setdefault(example.slice, []).append(i)
    return list(slices.items())


def _joined(examples: Sequence[Example]) -> tuple[str, Int[np.ndarray, " rows"]]:
    """The rows as a text with a line end after each, and the character at which each row starts."""
    lines = [" ".join(example.words) + "\n" for example in examples]
    return "".join(lines), np.cumsum([0, *map(len, lines[:-1])])


def _ends(spans: Sequence[tuple[int, int]]) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
    """Where the new characters of each token begin and end. What a tokenizer skips belongs to the token after it; a character in several tokens to the first."""
    ends = np.maximum.accumulate(np.array([end for _, end in spans], dtype=np.int64)) if spans else np.zeros(0, dtype=np.int64)
    return np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)], ends


def _byte_places(text: str) -> Int[np.ndarray, " places"]:
    """The number of UTF-8 bytes before each character, and before the end."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return np.concatenate([[0], np.cumsum(1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000))]).astype(np.int64)


def _whole(costs: Float[np.ndarray, " tokens"]) -> Int[np.ndarray, " tokens"]:
    return np.rint(costs / MICRO).astype(np.int64)


def _feature(ids: list[int], sizes: list[int]) -> Feature:
    """Tokens, and the bytes of each but the first."""
    return {
        "input_ids": list(ids),
        "attention_mask": [1] * len(ids),
        "labels": [*ids[1:], NO_LABEL][: len(ids)],
        "units": list(range(len(ids) - 1)),
        "bytes": sizes,
    }
