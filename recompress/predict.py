"""Ask a model directory about plain text, as it is served.

predictor = Predictor(directory)
predictor(["habari za leo"])      # [{"label": "news", "score": 0.93}]  or  [{"words": […], "tags": […], "entities": […]}]
                                  # or, of a model of language, [{"tokens": 5, "bytes": 14, "bits_per_byte": 2.31, "perplexity": 88.4}]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recompress.benchmarks import Example, ReadsOn, get_benchmark
from recompress.errors import DataRefused
from recompress.models.checkpoint import read_info
from recompress.models.tokenizer import load_tokenizer
from recompress.runtimes import Feature, open_runtime

Answer = dict[str, Any]
OUTSIDE = "O"


class Predictor:
    """A model directory, ready to answer. ``threads`` are the processor threads it may use.

    Raises ``InputError`` and ``IntegrityError`` as ``recompress.runtimes.open_runtime`` does. It does not hash anything: whoever opens a model checks it first.
    """

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self.info = read_info(directory)
        self.benchmark = get_benchmark(self.info.benchmark)
        self.tokenizer = load_tokenizer(directory)
        self.runtime = open_runtime(directory, threads)

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """An answer for each text, in order: label and score of a text, or words, tags and entities, or how well a model of language foresees it."""
        labels = self.info.labels
        if isinstance(self.benchmark, ReadsOn):
            return [self._foreseen(self.benchmark.pieces, text) for text in texts]
        examples = [Example(self.benchmark.split(text)) for text in texts]
        features = self.benchmark.encode(self.tokenizer, examples, labels, self.info.max_length)
        answers = []
        for example, feature, logits in zip(examples, features, self.runtime.logits(features), strict=True):
            units = self.benchmark.unit_logits(logits, feature)
            scores = softmax(units).max(axis=-1) if len(units) else np.zeros(0)
            decided = self.benchmark.decide(units, labels)
            answers.append(_of_words(example, decided, scores) if self.info.benchmark == "token-classification" else _of_text(decided, scores))
        return answers

    def _foreseen(self, pieces: Callable[..., list[Feature]], text: str) -> Answer:
        """What the text costs a model of language, in windows as its benchmark makes them; nothing is known of a text without a second token."""
        try:
            features = pieces(self.tokenizer, [Example(self.benchmark.split(text))], self.info.max_length)
        except DataRefused:
            features = []
        units = [self.benchmark.unit_logits(logits, feature) for logits, feature in zip(self.runtime.logits(features), features, strict=True)]
        decided = [self.benchmark.decide(rows, ()) for rows in units]
        totals = self.benchmark.counts([()] * len(decided), decided, ()).sum(axis=0)
        metrics = self.benchmark.metrics(totals, ())
        costs = {name: round(float(metrics[name]), 6) if features else None for name in ("bits_per_byte", "perplexity")}
        return {"tokens": int(totals[1]), "bytes": int(totals[2]), **costs}


def summary(answer: Answer) -> str:
    """An answer in one line: ``news 0.93``, ``PER Asha Juma · LOC Nairobi``, or ``2.31 bits per byte, perplexity 88.4``."""
    if "perplexity" in answer:
        known = answer["perplexity"] is not None
        return f"{answer['bits_per_byte']:.2f} bits per byte, perplexity {answer['perplexity']:.4g}" if known else "too short to be foreseen"
    if "label" in answer:
        return f"{answer['label']} {answer['score']:.2f}"
    return " · ".join(f"{entity['type']} {entity['text']}" for entity in answer["entities"]) or "no entity"


def softmax(logits: Float[np.ndarray, "units labels"]) -> Float[np.ndarray, "units labels"]:
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: Float[np.ndarray, "units labels"] = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def _of_text(decided: Sequence[str], scores: Float[np.ndarray, " units"]) -> Answer:
    return {"label": decided[0], "score": round(float(scores[0]), 6)}


def _of_words(example: Example, tags: Sequence[str], scores: Float[np.ndarray, " units"]) -> Answer:
    """Entities are what their benchmark counts: ``B-X`` and every ``I-X`` directly after it. An entity's score is that of its least certain word."""
    from recompress.benchmarks.token_classification import entities

    spans = [
        {"type": kind, "text": " ".join(example.words[start:end]), "start": start, "end": end, "score": round(float(scores[start:end].min()), 6)}
        for kind, start, end in sorted(entities(tags), key=lambda entity: entity[1])
    ]
    return {"words": list(example.words), "tags": list(tags), "entities": spans}
