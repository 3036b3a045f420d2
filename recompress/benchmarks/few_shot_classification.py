"""Few-shot classification: a model of language is shown some texts with their labels, and names the label of another; judged as text classification is.

    prompt      instruction, the examples filled into the template, and the text in question, up to where its label would stand
    answer      argmax over labels of ln p(label | prompt), summed, or by token or byte, or calibrated (``recompress.benchmarks.choices``)

The data is that of text or pair classification. Which examples are shown is drawn from the training split by a seed, label by label in turn, once: the model keeps
them, so that it is served with the very prompt that it was judged with. Beside the answer, what the three plain likelihoods would have answered is counted too.

Source: Brown et al. 2020, arXiv:2005.14165, section 2.4; Zhao et al. 2021, arXiv:2102.09690 (calibration).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Num

from recompress.benchmarks.benchmark import Example
from recompress.benchmarks.choices import SCORED, Scored, calibrated, likelihoods, normalised, shares
from recompress.benchmarks.few_shot_prompt import PROMPTS, TEXTS, FewShotPrompt, Prompting, drawn
from recompress.benchmarks.prompted import Prompted
from recompress.benchmarks.scores import ratio
from recompress.benchmarks.text_classification import TextClassification
from recompress.errors import DataRefused, InputError
from recompress.models.heads import FEW_SHOT
from recompress.progress import bar
from recompress.runtimes.rereading import as_continuing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.runtimes import Runtime


class FewShotClassification(Prompted):
    """Topics, sentiment and the like, named by a model of language that was not trained for them."""

    name = "few-shot-classification"
    primary = "accuracy"
    head = FEW_SHOT
    Dials = Prompting
    reads = ("text-classification", "pair-classification")
    """Data of other benchmarks that it is measured on."""

    def __init__(self, dials: Prompting | None = None) -> None:
        self.dials = dials or Prompting()
        self.prompt = FewShotPrompt(self.dials)
        self._labelled = TextClassification()

    @property
    def answering(self) -> dict[str, Any]:
        """The dials as plain values, for a model to name."""
        return self.dials.model_dump(mode="json")

    def completed(self, train: Sequence[Example], labels: Sequence[str]) -> FewShotClassification:
        """With the examples that are shown, drawn from ``train``, and a way of writing for each of ``labels``. Raises ``InputError`` for labels that are none, or
        are written alike, and ``DataRefused`` where there are too few examples."""
        strange = [label for label in (*self.dials.choices, *(shown.label for shown in self.dials.examples)) if label not in labels]
        if strange:
            raise InputError(f"{strange[0]!r} is none of the labels of the data: {', '.join(labels)} (answering)")
        choices = {label: self.dials.choices.get(label, label) for label in labels}
        if len({*map(str.strip, choices.values())}) < len(choices) or not all(map(str.strip, choices.values())):
            raise InputError(f"labels are written alike, or with nothing: {', '.join(choices.values())}; give each its own under answering.choices")
        shown = self.dials.examples or drawn(train, labels, self.dials)
        texts = len(train[0].words) if train else 1
        kept = {"choices": choices, "examples": tuple(shown), "shots": len(shown), "template": self.dials.template or PROMPTS[texts]}
        return FewShotClassification(self.dials.model_copy(update=kept))

    @property
    def columns(self) -> tuple[str, ...]:
        return TEXTS[: 1 + ("{text_pair}" in (self.dials.template or ""))]

    def served(self, runtime: Runtime, tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[dict[str, Any]]:
        """The label, and its share among all."""
        answers = []
        for example, (scores, _) in zip(examples, self.scores(runtime, tokenizer, examples, max_length, ""), strict=True):
            cut = {"truncated": True} if self.prompt.fitted(tokenizer, example.words, max_length)[0] != example.words else {}
            answers.append({"label": self.decided(scores), "score": round(float(shares(scores).max()), 6), **cut})
        return answers

    def as_learned(self, example: Example) -> Example:
        """As an example in the prompt; text without a label as it is."""
        text = self.prompt.written(example.words, example.labels[0]) if example.labels else " ".join(example.words)
        return Example((text,), (), example.slice, example.group)

    def asked(self, example: Example) -> Example:
        return Example((self.prompt.upto(example.words),), (), example.slice, example.group)

    def read(self, runtime: Runtime, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int, label: str) -> list[tuple[str, ...]]:
        """For each example the label that is answered, and those by each of ``SCORED``. Raises as ``scores``."""
        scores = self.scores(runtime, tokenizer, examples, max_length, label)
        return [tuple(map(self.decided, (answered, *(plain[by] for by in SCORED)))) for answered, plain in scores]

    def scores(
        self, runtime: Runtime, tokenizer: Any, examples: Sequence[Example], max_length: int, label: str
    ) -> list[tuple[Float[np.ndarray, " labels"], dict[Scored, Float[np.ndarray, " labels"]]]]:
        """For each example what its labels are worth, in the order of ``choices``: as they are answered, and by each of ``SCORED``. Raises ``InputError`` for a model
        that was made without labels, ``DataRefused`` for prompts without room, and ``IntegrityError`` for logits that are not finite."""
        if not self.dials.choices:
            raise InputError(f"the model names no labels to choose from; make it anew by a recipe with benchmark: {self.name}")
        if not examples:
            return []
        model = as_continuing(runtime, max_length)
        room = min(max_length, model.positions)
        prefix = tokenizer(self.prompt.shown(), verbose=False)["input_ids"] if self.prompt.shown() else []
        nothing = [(text,) * len(examples[0].words) for text in self.dials.without_content]
        questions = [self.prompt.question(tokenizer, words, room) for words in (*nothing, *(example.words for example in examples))]
        plain = []
        with bar(label, len(questions), "example") as progress:
            for question, sums in zip(questions, likelihoods(model, prefix, questions, room), strict=True):
                plain.append({by: normalised(sums, [*map(len, question.endings)], self.prompt.sizes, by) for by in SCORED})
                progress.update()
        silent = [scores[self.dials.scored] for scores in plain[: len(nothing)]]
        return [(calibrated(scores[self.dials.scored], silent), scores) for scores in plain[len(nothing) :]]

    def decided(self, scores: Float[np.ndarray, " labels"]) -> str:
        """The label that is worth most; of equal ones the first."""
        return [*self.dials.choices][int(scores.argmax())]

    def decide(self, unit_logits: Float[np.ndarray, "units 2"], labels: Sequence[str]) -> tuple[str, ...]:
        """As language modelling does: what a prompt costs as text. ``read`` says which label is answered."""
        return self.as_text.decide(unit_logits, labels)

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return (*self._labelled.count_names(labels), *(f"correct_{by}" for by in SCORED))

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples k"]:
        """Those of text classification, and whether each of the plain likelihoods would have been right. Raises ``DataRefused`` for anything but known labels."""
        table = self._labelled.counts(references, [prediction[:1] for prediction in predictions], labels)
        if strange := next((row for row in predictions if len(row) != 1 + len(SCORED) or not {*row} <= {*labels}), None):
            raise DataRefused(f"a prediction is four labels, the answer and one for each of {', '.join(SCORED)}, got {list(strange)!r}")
        plain = [[answer == reference[0] for answer in row[1:]] for reference, row in zip(references, predictions, strict=True)]
        return np.concatenate([table, np.array(plain, dtype=np.int64).reshape(len(table), len(SCORED))], axis=1)

    def metrics(self, totals: Num[np.ndarray, "*draws k"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        """``accuracy`` and ``macro_f1`` of what is answered, and ``accuracy_sum``, ``accuracy_per_token`` and ``accuracy_per_byte`` of likelihoods as they are."""
        of_labels, plain = totals[..., : -len(SCORED)], totals[..., -len(SCORED) :]
        texts = of_labels[..., 2::3].sum(axis=-1)
        return self._labelled.metrics(of_labels, labels) | {f"accuracy_{by}": ratio(plain[..., i], texts) for i, by in enumerate(SCORED)}

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return self._labelled.by_type(totals[: -len(SCORED)], labels)
