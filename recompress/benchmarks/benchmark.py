"""What all benchmarks speak: examples, and the verbs that training, methods, runtimes and measuring ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from recompress.models.heads import Head

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int, Num
    from transformers import PreTrainedTokenizerBase

    from recompress.runtimes import Runtime


NO_LABEL_HOLDS = ""
"""The only member of ``Example.labels`` where a row says that none of several possible labels holds. A row without labels says nothing."""


@dataclass(frozen=True)
class Example:
    """One example. For token classification ``words`` are the words and ``labels`` has one for each; elsewhere ``words`` holds the whole text as its only member,
    or the two texts of a pair, and ``labels`` one label, all labels that hold (sorted; ``NO_LABEL_HOLDS`` where none does), or a number as text; for question
    answering ``words`` are the question and the text, and ``labels`` all right answers. ``labels`` is empty for unlabelled text, and for language modelling, where
    the text is its own."""

    words: tuple[str, ...]
    labels: tuple[str, ...] = ()
    slice: str = "all"
    group: str = ""
    """What it belongs to (a document, an author, a conversation), where the data says so. Examples of a group rise and fall together."""


class Benchmark(Protocol):
    """The verbs. A *unit* is what carries one label: a word, or a whole text. Counts are what metrics add up over examples."""

    name: str
    primary: str
    """The metric that gates look at unless the policy says otherwise, e.g. ``f1`` or ``accuracy``."""

    head: Head
    """What stands on top of the networks that are measured on it."""

    def split(self, text: str) -> tuple[str, ...]:
        """Plain text as the ``words`` of an ``Example``, for text that no data set has split."""

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[dict[str, list[int]]]:
        """One feature dict for each example (several, where it is read ``InWindows``): ``input_ids``, ``attention_mask``, ``labels`` (-100 where a position carries none), and ``units``: for each
        unit the position in the sequence that speaks for it (text classification: ``[0]``), -1 when truncation cut it off."""

    def unit_logits(self, logits: Float[np.ndarray, "..."], feature: dict[str, list[int]]) -> Float[np.ndarray, "units labels"]:
        """The logits of each unit of one example from the model's output for it (``[length, labels]`` or ``[labels]``); zeros for units that were cut off."""

    def decide(self, unit_logits: Float[np.ndarray, "units labels"], labels: Sequence[str]) -> tuple[str, ...]:
        """The predicted label of each unit of one example."""

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples k"]:
        """For each example what the metrics add up, e.g. true positives, predicted and gold entities. Column names: ``count_names``."""

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]: ...

    def metrics(self, totals: Num[np.ndarray, "... k"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "..."]]:
        """Metrics from summed counts, for one sum or for a whole batch of bootstrap draws at once. Empty denominators give NaN, never 0 or 1."""

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Metrics for each label or entity type."""


@runtime_checkable
class ReadsOn(Protocol):
    """A benchmark whose examples are read on from one to the next, so that it makes its own questions of them."""

    def windows(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[dict[str, list[int]]]:
        """Features of exactly ``max_length`` tokens, for calibration."""

    def pieces(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[dict[str, list[int]]]:
        """Features, in the form of ``Benchmark.encode``, of all that ``read`` scores, for training."""

    def read(self, runtime: Runtime, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int, label: str) -> list[tuple[str, ...]]:
        """What ``Benchmark.decide`` gives for each example; ``label`` names the progress bar."""


@runtime_checkable
class ComparesWith(Protocol):
    """A benchmark whose models are compared with the baseline beyond their answers."""

    def beside(
        self, model: Any, baseline: Any, examples: Sequence[Example], written: Sequence[tuple[str, ...]], theirs: Sequence[tuple[str, ...]],
        max_length: int, label: str,
    ) -> list[tuple[str, ...]]:  # fmt: skip
        """``written``, what ``ReadsOn.read`` gave, with what is counted beside ``theirs``, the baseline's."""

    def with_itself(self, written: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The same of the baseline, beside itself."""


@runtime_checkable
class ShowsExamples(Protocol):
    """A benchmark that asks in words: its prompt is made of the data, training examples may stand in it, and models keep it."""

    def completed(self, train: Sequence[Example], labels: Sequence[str]) -> ShowsExamples:
        """With these examples, and whatever else its dials leave to the data."""

    @property
    def answering(self) -> dict[str, Any]:
        """The dials as plain values, for a model to name."""


def learned_as(benchmark: Benchmark) -> Benchmark:
    """What a training is judged by: the benchmark itself, or, where a model is asked in words, how well it foresees prompts with their answers."""
    judge: Benchmark = getattr(benchmark, "as_text", benchmark)
    return judge


def columns_of(benchmark: Benchmark) -> tuple[str, ...]:
    """What whoever asks a model calls the texts that it reads."""
    columns: tuple[str, ...] = getattr(benchmark, "columns", benchmark.head.asked)
    return columns


def reads_of(benchmark: Benchmark) -> tuple[str, ...]:
    """The benchmarks whose data it is measured on: its own, and others'."""
    return (benchmark.name, *getattr(benchmark, "reads", ()))


@runtime_checkable
class InWindows(Protocol):
    """A benchmark whose examples may be longer than what a model reads at once: ``encode`` gives several features of an example, one after the other, each with the
    number of its ``example``."""

    def answers(
        self, units: Sequence[Float[np.ndarray, "units labels"]], features: Sequence[dict[str, list[int]]], examples: Sequence[Example]
    ) -> list[tuple[str, ...]]:
        """What ``Benchmark.decide`` is for others: the answer to each example, from ``Benchmark.unit_logits`` of all features."""

    def by_example(
        self, units: Sequence[Float[np.ndarray, "units labels"]], features: Sequence[dict[str, list[int]]], examples: Sequence[Example]
    ) -> list[Float[np.ndarray, "pieces labels"]]:
        """What a teacher says about each example, for students that may read it in other windows."""

    def for_features(
        self, taught: Sequence[Float[np.ndarray, "pieces labels"]], features: Sequence[dict[str, list[int]]], examples: Sequence[Example]
    ) -> list[Float[np.ndarray, "length labels"]]:
        """What ``by_example`` gave, for each feature of a student."""


def answers_of(
    benchmark: Benchmark,
    units: Sequence[Float[np.ndarray, "units labels"]],
    features: Sequence[dict[str, list[int]]],
    examples: Sequence[Example],
    labels: Sequence[str],
) -> list[tuple[str, ...]]:
    """The answer to each example, in order, from the logits of the units of all features."""
    if isinstance(benchmark, InWindows):
        return benchmark.answers(units, features, examples)
    return [benchmark.decide(row, labels) for row in units]


def first_of_each(features: Sequence[dict[str, list[int]]]) -> list[dict[str, list[int]]]:
    """One feature for each example: of those that are read in windows the first."""
    first: dict[int, dict[str, list[int]]] = {}
    for i, feature in enumerate(features):
        first.setdefault(feature["example"][0] if "example" in feature else i, feature)
    return list(first.values())
