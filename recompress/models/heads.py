"""What stands on top of a network: a head for one label a text or pair of texts, for several labels, for a number, for one label a token, for the next token, or for
the ends of an answer. A benchmark names the one of its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recompress.errors import InputError
from recompress.settings.file import unknown

Answer = Literal["label", "tags", "labels", "number", "span", "text", "nothing"]
"""What a row of data says beside its text, and what a head's numbers mean: one label of several, such a label for each word, any number of labels, a number, a part
of the text (its beginning and its end), text that is right to be written, or nothing, because the text is its own."""


@dataclass(frozen=True)
class Head:
    """A kind of head."""

    auto_class: str
    """The transformers auto class of networks that have it."""
    answer: Answer
    pipeline: str
    """What hubs and transformers' pipelines call its work."""
    pretrained: bool = False
    """Whether the base model's own head is used, that of a model of language, or a fresh one is made for the labels."""
    reads_words: bool = False
    """Whether it is asked about text that is split into words."""
    outputs: tuple[str, ...] = ()
    """The names of its outputs, where these are the same whatever the data says; otherwise the data's labels."""
    problem_type: str | None = None
    """What the config of a network says of its numbers, for those who read it with transformers; left unsaid for one label of several, its default."""
    texts: int = 1
    """Texts of an example; of two, the tokenizer makes one sequence with a segment for each."""

    @property
    def tagged(self) -> bool:
        """Whether each word has a label of its own."""
        return self.answer == "tags"

    @property
    def asked(self) -> tuple[str, ...]:
        """What whoever asks such a model calls the texts that it reads."""
        return ("question", "context") if self.finds_spans else ("text", "text_pair")[: self.texts]

    @property
    def finds_spans(self) -> bool:
        """Whether the answer is a part of the text."""
        return self.answer == "span"

    @property
    def labelled(self) -> bool:
        """Whether the data says something beside the text."""
        return self.answer != "nothing"

    def auto_model(self) -> Any:
        """The class itself, e.g. ``AutoModelForTokenClassification``."""
        import transformers

        return getattr(transformers, self.auto_class)


SEQUENCE = Head("AutoModelForSequenceClassification", "label", "text-classification")
TOKENS = Head("AutoModelForTokenClassification", "tags", "token-classification", reads_words=True)
PAIR = Head("AutoModelForSequenceClassification", "label", "text-classification", texts=2)
MULTI_LABEL = Head("AutoModelForSequenceClassification", "labels", "text-classification", problem_type="multi_label_classification")
NUMBER = Head("AutoModelForSequenceClassification", "number", "text-classification", outputs=("value",), problem_type="regression")
CAUSAL = Head("AutoModelForCausalLM", "nothing", "text-generation", pretrained=True)
FEW_SHOT = Head("AutoModelForCausalLM", "label", "text-generation", pretrained=True)
WRITTEN = Head("AutoModelForCausalLM", "text", "text-generation", pretrained=True)
SPANS = Head("AutoModelForQuestionAnswering", "span", "question-answering", outputs=("start", "end"), texts=2)

HEADS: Mapping[str, Head] = {
    "token-classification": TOKENS,
    "text-classification": SEQUENCE,
    "pair-classification": PAIR,
    "multi-label-classification": MULTI_LABEL,
    "text-regression": NUMBER,
    "language-modelling": CAUSAL,
    "question-answering": SPANS,
    "few-shot-classification": FEW_SHOT,
    "text-generation": WRITTEN,
}
"""By the name of the benchmark, which is what a model directory notes."""


def head_of(benchmark: str) -> Head:
    """The head of models that were made for a benchmark. Raises ``InputError`` for a name that is not known."""
    if benchmark not in HEADS:
        raise InputError(unknown("benchmark", benchmark, HEADS, "benchmark"))
    return HEADS[benchmark]
