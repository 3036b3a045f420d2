"""Ask a model directory about plain text, as it is served.

predictor = Predictor(directory)
predictor(["habari za leo"])      # [{"label": "news", "score": 0.93}]  or  [{"words": […], "tags": […], "entities": […]}]
                                  # or, where several labels may hold, [{"labels": ["news"], "scores": {"news": 0.93, "sport": 0.2}}], or [{"value": 3.7}]
                                  # or, of a model of language, [{"tokens": 5, "bytes": 14, "bits_per_byte": 2.31, "perplexity": 88.4}]
predictor.continue_text(["Who was Ada Lovelace?"], tokens=64)      # and what it writes: [{"completion": "A mathematician.", "tokens": 4, "prompt_tokens": 31, "ended": True}]
predictor([("it rains", "it is wet")])      # of a pair of texts; {"text": …, "text_pair": …} says the same
predictor([{"question": "Who won?", "context": "The Broncos won."}])      # [{"answer": "The Broncos", "score": 0.83, "start": 0, "end": 11}], or no answer: None

A text is read as data preparation would have left it, because that is what the model was trained and measured on: composed characters (NFC), nothing hidden,
no wrong decodings, and single spaces where the text is no running text. Of what is longer than the model reads, the answer says so: ``truncated`` is true, and words that were not read
have the tag ``None``.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Float

from recompress.benchmarks import Example, ReadsOn, benchmark_of, columns_of
from recompress.benchmarks.answers import Span
from recompress.benchmarks.prompted import Prompted
from recompress.benchmarks.question_answering import QuestionAnswering
from recompress.benchmarks.windows import question_is_cut
from recompress.data.characters import HALF, LOST, repaired, to_nfc, without_hidden
from recompress.errors import DataRefused, InputError
from recompress.models.chat import prompts_of, stops_of
from recompress.models.checkpoint import read_info
from recompress.models.light_tokenizer import LightTokenizer
from recompress.models.one_file import FILES
from recompress.models.tokenizer import load_tokenizer
from recompress.runtimes import Feature, open_runtime
from recompress.runtimes.batches import in_order
from recompress.runtimes.generation import can_continue, check_prompt, continued

Answer = dict[str, Any]
Text = str | Sequence[str] | Mapping[str, str]
"""A text, or what else is asked: by its names (``text`` and ``text_pair``, ``question`` and ``context``), or in their order."""
WRITTEN = 128
"""Tokens that a model of language writes at most, where nobody says how many."""
NO_LIMIT = 1 << 30
"""Tokens."""


class Predictor:
    """A model directory, ready to answer. ``threads`` are the processor threads it may use.

    Raises ``InputError`` and ``IntegrityError`` as ``recompress.runtimes.open_runtime`` does. It does not hash anything: whoever opens a model checks it first.
    """

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self.info = read_info(directory)
        self.benchmark = benchmark_of(self.info)
        # asked once: looking whether a class has all methods of a protocol takes as long as tokenizing a text
        self._pieces = self.benchmark.pieces if isinstance(self.benchmark, ReadsOn) else None
        # on ONNX Runtime and llama.cpp nothing else needs transformers, whose import takes longer than most questions
        self.tokenizer: Any = LightTokenizer(directory) if self.info.runtime in FILES else load_tokenizer(directory)
        self.runtime = open_runtime(directory, threads)
        self._tokenizing = Lock()
        """A tokenizer is told how long a text may be and then asked; in between nobody else may."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What each row has to name: nothing but a text, the two texts of a pair, or a question and its context."""
        return columns_of(self.benchmark)

    @property
    def writes(self) -> bool:
        """Whether it is a model of language on a runtime that keeps what was read, and was not made to be asked in one way."""
        return isinstance(self.benchmark, ReadsOn) and hasattr(self.runtime, "prefill") and not isinstance(self.benchmark, Prompted)

    @property
    def in_parallel(self) -> bool:
        """Whether several threads may ask it at the same time. torch's number of threads belongs to the whole process, and llama.cpp remembers what it read last."""
        return self.info.runtime == "onnx"

    def __call__(self, texts: Sequence[Text]) -> list[Answer]:
        """An answer for each text or pair, in order: label and score, all labels that hold with the score of each, a number, words, tags and entities, or how well a
        model of language foresees it; label or text, where it is asked in words; or, of a model that finds answers, for each question and context the part that answers. Raises ``InputError`` for rows of
        another kind."""
        return in_order(self.in_parts(texts))

    def in_parts(self, texts: Sequence[Text]) -> Iterator[tuple[list[int], list[Answer]]]:
        """The same as it is computed: the numbers of some texts, and their answers. Which texts share a call is the runtime's own choice."""
        if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):  # a text would be asked letter by letter
            raise InputError(f"what is asked should be a list, got {texts!r:.60}; give [{WANTED[self.columns[-1]]}, …] ({', '.join(self.columns)})")
        rows = [_row(text, self.columns, number) for number, text in enumerate(texts, 1)]
        if isinstance(self.benchmark, QuestionAnswering):
            benchmark = self.benchmark
            return (([i], [self._found(benchmark, row["question"], row["context"])]) for i, row in enumerate(rows))
        texts_of_rows = [tuple(row[name] for name in self.columns) for row in rows]
        if isinstance(self.benchmark, Prompted):
            return iter(
                [(list(range(len(rows))), self.benchmark.served(self.runtime, self.tokenizer, [*map(self._example, texts_of_rows)], self.info.max_length))]
            )
        return self._about(texts_of_rows)

    def continue_text(self, prompts: Sequence[str], tokens: int, *, plain: bool = False) -> list[Answer]:
        """What a model of language writes behind each prompt, at most ``tokens``, each the likeliest: in the form of a chat, where the model has one and ``plain``
        does not say otherwise. ``ended``: whether the model ended it, and not the number.

        Raises ``InputError`` for a model of another kind, one whose runtime keeps no cache, and a prompt that leaves no room in what the model reads.
        """
        if not isinstance(self.benchmark, ReadsOn):
            raise InputError(f"this model was made for {self.info.benchmark} and writes nothing; leave --tokens out")
        runtime, stops = can_continue(self.runtime), stops_of(self.tokenizer)
        asked = prompts_of(self.tokenizer, [as_prepared(prompt, running=True) for prompt in prompts], plain=plain)
        for prompt in asked:
            check_prompt(runtime, prompt)
        written = [continued(runtime, prompt, tokens, stops) for prompt in asked]
        decode = self.tokenizer.backend_tokenizer.decode
        return [
            {"completion": decode(list(done.tokens)), "tokens": len(done.tokens), "prompt_tokens": len(prompt), "ended": done.stopped}
            for prompt, done in zip(asked, written, strict=True)
        ]

    def _about(self, texts: Sequence[tuple[str, ...]]) -> Iterator[tuple[list[int], list[Answer]]]:
        labels = self.info.labels
        if (pieces := self._pieces) is not None:
            yield from (([i], [self._foreseen(pieces, text)]) for i, text in enumerate(texts))
            return
        examples = [self._example(text) for text in texts]
        with self._tokenizing:
            features = self.benchmark.encode(self.tokenizer, examples, labels, self.info.max_length)
        for rows, part in self.runtime.in_parts(features):
            answers = []
            for row, logits in zip(rows, part, strict=True):
                example, feature = examples[row], features[row]
                units = self.benchmark.unit_logits(logits, feature)
                answer = self._answer(example, units, self.benchmark.decide(units, labels), feature)
                answers.append(answer | ({"truncated": True} if self._is_cut(example, feature) else {}))
            yield rows, answers

    def _answer(self, example: Example, units: Float[np.ndarray, "units labels"], decided: Sequence[str], feature: Feature) -> Answer:
        """By what the head's numbers mean."""
        kind = self.benchmark.head.answer
        if kind == "number":
            return {"value": float(decided[0])}
        if kind == "labels":
            scores = 1 / (1 + np.exp(-units[0].astype(np.float64)))
            return {"labels": list(decided), "scores": {label: round(float(score), 6) for label, score in zip(self.info.labels, scores, strict=True)}}
        likeliest = softmax(units).max(axis=-1) if len(units) else np.zeros(0)
        return _of_words(example, decided, likeliest, feature["units"]) if kind == "tags" else _of_text(decided, likeliest)

    def _example(self, texts: tuple[str, ...]) -> Example:
        prepared = tuple(as_prepared(text, running=self.benchmark.head.answer in ("text", "nothing")) for text in texts)
        return Example(self.benchmark.split(*prepared) if len(prepared) == 1 else prepared)

    def _is_cut(self, example: Example, feature: Feature) -> bool:
        """Whether the text has more tokens than the model reads; looked at again only where it fills all of them."""
        if len(feature["input_ids"]) < self.info.max_length:
            return False
        with self._tokenizing:
            [whole] = self.benchmark.encode(self.tokenizer, [example], self.info.labels, NO_LIMIT)
        return len(whole["input_ids"]) > len(feature["input_ids"])

    def _found(self, benchmark: QuestionAnswering, question: str, context: str) -> Answer:
        """The part of the context that answers the question, over all of its windows, with its place in the context as it was given."""
        example = Example((as_prepared(question), as_prepared(context, running=True)))
        with self._tokenizing:
            features = benchmark.encode(self.tokenizer, [example], self.info.labels, self.info.max_length)
            is_cut = question_is_cut(self.tokenizer, example.words[0], self.info.max_length)
        units = [benchmark.unit_logits(logits, feature) for logits, feature in zip(self.runtime.logits(features), features, strict=True)]
        [found] = benchmark.best_answers(units, features, [example])
        return {**_place(found.span, context, example.words[1]), "score": round(found.probability, 6), **({"truncated": True} if is_cut else {})}

    def _foreseen(self, pieces: Callable[..., list[Feature]], text: tuple[str, ...]) -> Answer:
        """What the text costs a model of language, in windows as its benchmark makes them; nothing is known of a text without a second token."""
        try:
            with self._tokenizing:
                features = pieces(self.tokenizer, [self._example(text)], self.info.max_length)
        except DataRefused:
            features = []
        units = [self.benchmark.unit_logits(logits, feature) for logits, feature in zip(self.runtime.logits(features), features, strict=True)]
        decided = [self.benchmark.decide(rows, ()) for rows in units]
        totals = self.benchmark.counts([()] * len(decided), decided, ()).sum(axis=0)
        metrics = self.benchmark.metrics(totals, ())
        costs = {name: round(float(metrics[name]), 6) if features else None for name in ("bits_per_byte", "perplexity")}
        return {"tokens": int(totals[1]), "bytes": int(totals[2]), **costs}


def rows_of(lines: Sequence[str], columns: Sequence[str], context: str | None) -> list[str | dict[str, str]]:
    """What a person wrote in lines, as a model is asked: as they are, with the context that all are asked about, as two texts with a tab between them, or as the JSON
    that they are.

    Raises ``InputError`` for a context that a model does not read, and for lines that are none of these.
    """
    if context is not None and "context" not in columns:
        raise InputError("this model reads texts alone; leave --context out" if len(columns) == 1 else "this model reads pairs of texts; leave --context out")
    if len(columns) == 1:
        return [*lines]
    if context is not None:
        return [{"question": line, "context": context} for line in lines]
    return [_of_line(line, columns, number) for number, line in enumerate(lines, 1)]


def _of_line(line: str, columns: Sequence[str], number: int) -> dict[str, str]:
    first, tab, second = line.partition("\t")
    if tab and "context" not in columns:
        return dict(zip(columns, (first, second), strict=True))
    try:
        row: dict[str, str] = json.loads(line)
        return row
    except ValueError:
        example = ", ".join(f'"{name}": …' for name in columns)
        way_out = f"give --context, or {{{example}}} on each line" if "context" in columns else f"put a tab between the two, or write {{{example}}}"
        what = "question with its context" if "context" in columns else "pair of texts"
        raise InputError(f"line {number} is no {what}; {way_out}") from None


WANTED = {"text": "a text alone", "text_pair": "the two texts of a pair", "context": "a question and the context that it is asked about"}
"""What a model is asked with, by the last thing that it reads."""


def _row(text: Text, columns: Sequence[str], number: int) -> Mapping[str, str]:
    if isinstance(text, Mapping):
        row = dict(text)
    elif not isinstance(text, Sequence):
        raise InputError(f"row {number} is {text!r:.60}; this model is asked with {WANTED[columns[-1]]} ({', '.join(columns)})")
    else:
        row = {"text": text} if isinstance(text, str) else dict(zip(columns, text, strict=True)) if len(text) == len(columns) else {}
    if set(row) != set(columns) or not all(isinstance(value, str) for value in row.values()):
        wanted = WANTED[columns[-1]]
        raise InputError(f"row {number} has {', '.join(map(str, row)) or 'nothing'}; this model is asked with {wanted} ({', '.join(columns)})")
    return row


def _place(span: Span | None, context: str, prepared: str) -> Answer:
    """An answer with its characters in the context as it was given, where preparation left out or joined some before it."""
    if span is None:
        return {"answer": None, "start": None, "end": None}
    start, end = span.start, span.end
    if context != prepared:
        places = range(len(context) + 1)
        start = bisect_right(places, span.start, key=lambda i: len(as_prepared(context[:i], running=True))) - 1
        end = bisect_left(places, True, key=lambda i: as_prepared(context[:i], running=True)[: span.end] == prepared[: span.end])
    return {"answer": span.text, "start": start, "end": end}


def as_prepared(text: str, *, running: bool = False) -> str:
    """The text as ``recompress.data.clean`` would have left it; ``running`` text keeps its spaces. What preparation would leave out as a row is answered all the same."""
    text = HALF.sub(LOST, text)
    if not (text.isascii() and text.isprintable()):
        text = to_nfc(without_hidden(to_nfc(repaired(text))))
    return text if running else " ".join(text.split())


def summary(answer: Answer) -> str:
    """An answer in one line (what a model of language wrote, in as many as it wrote): ``news 0.93``, ``PER Asha Juma · LOC Nairobi``, ``news 0.93, sport 0.71``, ``3.7``, ``The Broncos 0.83``, or ``2.31 bits per byte,
    perplexity 88.4``."""
    cut = "the question is longer than half of what the model reads" if "answer" in answer else "the rest of the text is longer than the model reads"
    return _summary(answer) + (f" (truncated: {cut})" if answer.get("truncated") else "")


def _summary(answer: Answer) -> str:
    if "completion" in answer:
        return str(answer["completion"])
    if "perplexity" in answer:
        known = answer["perplexity"] is not None
        return f"{answer['bits_per_byte']:.2f} bits per byte, perplexity {answer['perplexity']:.4g}" if known else "too short to be foreseen"
    if "answer" in answer:
        return "no answer" if answer["answer"] is None else f"{answer['answer']} {answer['score']:.2f}"
    if "value" in answer:
        return f"{answer['value']:.6g}"
    if "labels" in answer:
        return ", ".join(f"{label} {answer['scores'][label]:.2f}" for label in answer["labels"]) or "no label"
    if "label" in answer:
        return f"{answer['label']} {answer['score']:.2f}"
    return " · ".join(f"{entity['type']} {entity['text']}" for entity in answer["entities"]) or "no entity"


def softmax(logits: Float[np.ndarray, "units labels"]) -> Float[np.ndarray, "units labels"]:
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: Float[np.ndarray, "units labels"] = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def _of_text(decided: Sequence[str], scores: Float[np.ndarray, " units"]) -> Answer:
    return {"label": decided[0], "score": round(float(scores[0]), 6)}


def _of_words(example: Example, tags: Sequence[str], scores: Float[np.ndarray, " units"], places: Sequence[int]) -> Answer:
    """Entities are what their benchmark counts: ``B-X`` and every ``I-X`` directly after it. An entity's score is that of its least certain word. A word whose
    place in the sequence is -1 was not read."""
    from recompress.benchmarks.token_classification import entities

    spans = [
        {"type": kind, "text": " ".join(example.words[start:end]), "start": start, "end": end, "score": round(float(scores[start:end].min()), 6)}
        for kind, start, end in sorted(entities(tags), key=lambda entity: entity[1])
    ]
    return {"words": list(example.words), "tags": [tag if place >= 0 else None for tag, place in zip(tags, places, strict=True)], "entities": spans}
