"""Text generation: what a model of language writes behind a prompt, judged beside texts that are right, beside the baseline, and by itself.

    prompts     a column of the data; a question with its text (question answering); or the first words of plain text, whose rest is the right text
    writing     the likeliest tokens, or drawn ones, until a stop token, a stop string, or the number asked for
    scores      exact match, F1, chrF, ROUGE-L (``recompress.benchmarks.overlap``); agreement with the baseline (``recompress.benchmarks.agreement``);
                length, and how much repeats itself, which averages over likelihoods hide

A prompt that leaves no room to write has its longest text cut at the end. Scores are counted in millionths, so that sums do not depend on their order. Gates take more
for better: ``negative_kl_per_token`` is the KL divergence with a minus, and ``distinct_4`` falls where a model repeats itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Num

from recompress.benchmarks import answers
from recompress.benchmarks.agreement import Agreement, Common, Speaker, agreement
from recompress.benchmarks.benchmark import Example
from recompress.benchmarks.overlap import GRAMS, check_installed, grams, overlap
from recompress.benchmarks.prompted import Prompted
from recompress.benchmarks.scores import ratio
from recompress.benchmarks.writing import PROMPT, TEXTS, Ended, Writing, Written, as_row, of_row, prompts_fitted, write
from recompress.errors import DataRefused
from recompress.models.heads import WRITTEN
from recompress.progress import bar

if TYPE_CHECKING:
    from recompress.runtimes import Runtime

MICRO = 1e-6
PARTS = 4
"""Of a prediction: the text, its tokens, what ended it, and what its right texts are; behind them stand the counts of ``BESIDE``."""
REFERENCES, ANSWERS, TEXT = "references", "answers", "text:"
"""What the labels of an example are: right texts, answers with their places, or none, because the rest of the text itself is right."""
EVERYTHING = 1 << 30
"""Words."""
SCORES = ("exact", "f1_millionths", "chrf_millionths", "rouge_l_millionths")
BESIDE = ("places", "equal", "until_difference", "equal_texts", "compared_texts", "read", "micronats")
"""What is counted beside the baseline."""


class TextGeneration(Prompted):
    """Answers, summaries, continuations. The unit is the whole text that is written."""

    name = "text-generation"
    primary = "chrf"
    head = WRITTEN
    Dials = Writing
    reads = ("language-modelling", "question-answering")
    """Data of other benchmarks that it is measured on."""

    def __init__(self, dials: Writing | None = None) -> None:
        self.dials = dials or Writing()

    @property
    def answering(self) -> dict[str, Any]:
        """The dials as plain values, for a model to name."""
        return self.dials.model_dump(mode="json")

    def completed(self, train: Sequence[Example], labels: Sequence[str]) -> TextGeneration:
        """With the template that fits the data, where none is named; no example is shown."""
        template = self.dials.prompt or (PROMPT if train and len(train[0].words) > 1 else "{text}")
        return TextGeneration(self.dials.model_copy(update={"prompt": template}))

    @property
    def columns(self) -> tuple[str, ...]:
        return TEXTS if "{question}" in (self.dials.prompt or "") else ("text",)

    def served(self, runtime: Runtime, tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[dict[str, Any]]:
        """The text, and how many tokens it has; a prompt is taken whole, whatever the data's were cut to."""
        whole = TextGeneration(self.dials.model_copy(update={"beginning": EVERYTHING})).dials
        written = write(runtime, tokenizer, examples, max_length, whole, "")
        return [{"completion": one.text, "tokens": len(one.tokens), "ended": one.ended != Ended.CUT} for one in written]

    def as_learned(self, example: Example) -> Example:
        prompt, rights = self.dials.prompt_of(example), self.rights(example)
        return Example((" ".join([prompt, *rights[:1]]),), (), example.slice, example.group)

    def asked(self, example: Example) -> Example:
        return Example((self.dials.prompt_of(example),), (), example.slice, example.group)

    def rights(self, example: Example) -> list[str]:
        """The texts that are right; none where nobody knows one."""
        return rights_of(example.labels, self._kind(example))

    def _kind(self, example: Example) -> str:
        """What the labels of an example are, for whoever has these alone; of plain text, its rest, which is its right text."""
        return TEXT + self.dials.rest_of(example) if not example.labels else ANSWERS if len(example.words) > 1 else REFERENCES

    def read(self, runtime: Runtime, tokenizer: Any, examples: Sequence[Example], max_length: int, label: str) -> list[tuple[str, ...]]:
        """For each example the text, its tokens, and how it ended. Raises ``InputError`` for templates of chat that cannot be used and for scores that are not installed,
        ``DataRefused`` for prompts without room."""
        check_installed()
        written = write(runtime, tokenizer, examples, max_length, self.dials, label)
        return [(*as_row(one), self._kind(example)) for one, example in zip(written, examples, strict=True)]

    def beside(
        self, model: Speaker, baseline: Speaker, examples: Sequence[Example], written: Sequence[tuple[str, ...]], theirs: Sequence[tuple[str, ...]],
        max_length: int, label: str,
    ) -> list[tuple[str, ...]]:  # fmt: skip
        """``written`` with how far each place agrees with what the baseline wrote, ``theirs``."""
        common = Common(baseline.tokenizer, model.tokenizer)
        asked, own = (prompts_fitted(side.tokenizer, examples, max_length, self.dials) for side in (baseline, model))
        rows = []
        with bar(label, len(examples), "example") as progress:
            for prompt, other, row, wrote in zip(asked, own, written, map(of_row, theirs), strict=True):
                found = agreement(baseline, model, common, (prompt, other), wrote.tokens, ended=wrote.ended == Ended.BY_TOKEN)
                rows.append((*row[:PARTS], *map(str, _whole(found))))
                progress.update()
        return rows

    def with_itself(self, written: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The same of the baseline, which agrees with itself."""
        return [(*row[:PARTS], *map(str, _whole(_of_itself(of_row(row))))) for row in written]

    def decide(self, unit_logits: Float[np.ndarray, "units 2"], labels: Sequence[str]) -> tuple[str, ...]:
        """As language modelling does: what a prompt costs as text. ``read`` gives what is written."""
        return self.as_text.decide(unit_logits, labels)

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        repeats = (f"{what}_{n}_grams" for n in GRAMS for what in ("all", "different"))
        return ("texts", "scored", *SCORES, "tokens", "ended", *repeats, *BESIDE)

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples k"]:
        """What the written texts are worth. Raises ``DataRefused`` for predictions that ``read`` did not give."""
        table = np.zeros((len(references), len(self.count_names(labels))), dtype=np.int64)
        for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
            if len(prediction) not in (PARTS, PARTS + len(BESIDE)):
                raise DataRefused(f"example {row} needs what was written in {PARTS} parts and {len(BESIDE)} counts, got {len(prediction)}")
            written, rights = of_row(prediction), rights_of(reference, prediction[PARTS - 1])
            scores = overlap(rights, written.text, self.dials.normalisation) if rights else None
            scored = [0] * (1 + len(SCORES)) if scores is None else [1, scores.exact, *(round(score / MICRO) for score in scores[1:])]
            repeats = [count for n in GRAMS for count in grams(written.tokens, n)]
            table[row] = [1, *scored, len(written.tokens), written.ended != Ended.CUT, *repeats, *map(int, prediction[PARTS:] or ["0"] * len(BESIDE))]
        return table

    def metrics(self, totals: Num[np.ndarray, "*draws k"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        """Shares from 0 to 1, but ``mean_tokens``, ``tokens_before_difference`` and KL in nats. ``equal_tokens``: places at which the baseline's likeliest token is the
        model's; ``equal_texts``: texts in which all are."""
        names = self.count_names(labels)
        sums = {name: np.asarray(totals[..., i], dtype=np.float64) for i, name in enumerate(names)}
        kl = ratio(sums["micronats"] * MICRO, sums["read"])
        right = {"exact_match": ratio(sums["exact"], sums["scored"])} | {
            name: ratio(sums[f"{name}_millionths"] * MICRO, sums["scored"]) for name in ("f1", "chrf", "rouge_l")
        }
        alone = {f"distinct_{n}": ratio(sums[f"different_{n}_grams"], sums[f"all_{n}_grams"]) for n in GRAMS}
        return {
            **right,
            "equal_tokens": ratio(sums["equal"], sums["places"]),
            "equal_texts": ratio(sums["equal_texts"], sums["compared_texts"]),
            "tokens_before_difference": ratio(sums["until_difference"], sums["compared_texts"]),
            "kl_per_token": kl,
            "negative_kl_per_token": -kl,
            "mean_tokens": ratio(sums["tokens"], sums["texts"]),
            "ended": ratio(sums["ended"], sums["texts"]),
            **alone,
        }

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return {}


def rights_of(labels: Sequence[str], kind: str) -> list[str]:
    """The right texts, of an example's labels and what these are."""
    if kind.startswith(TEXT):
        return [kind.removeprefix(TEXT)] if kind != TEXT else []
    return [answers.text_of(label) if kind == ANSWERS else label for label in labels]


def _whole(found: Agreement) -> tuple[int, ...]:
    """In the order of ``BESIDE``."""
    return found.places, found.equal, found.first, int(found.equal == found.places), 1, found.read, round(found.nats / MICRO)


def _of_itself(wrote: Written) -> Agreement:
    places = len(wrote.tokens) + (wrote.ended == Ended.BY_TOKEN)
    return Agreement(places, places, places, places, 0.0)
