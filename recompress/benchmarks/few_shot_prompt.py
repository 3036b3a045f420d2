"""The prompt of few-shot classification: an instruction, texts with their labels, and the text in question, up to where its label would stand.

Which examples are shown is drawn by a seed from the training split, label by label in turn. A text that is too long for what the model reads is cut at its end; the
examples never are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from recompress.benchmarks.benchmark import Example
from recompress.benchmarks.choices import Question, Scored, question_of
from recompress.benchmarks.prompted import filled, fitted, places_in
from recompress.benchmarks.text import words_of
from recompress.errors import DataRefused
from recompress.settings.base import Settings

LABEL, TEXTS = "label", ("text", "text_pair")
"""What may stand in a template."""
PROMPTS = {1: "{text}\nLabel: {label}", 2: "{text}\n{text_pair}\nLabel: {label}"}
"""The template of so many texts, where none is named."""


class Shown(Settings):
    """An example that stands in the prompt."""

    words: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    """The text, or the two of a pair."""
    label: str


class Prompting(Settings):
    """How a model is asked for a label."""

    shots: Annotated[int, Field(ge=0, le=64)] = 4
    """Examples in the prompt."""
    longest_shot: Annotated[int, Field(ge=1)] = 60
    """The most words of an example that is shown."""
    seed: int = 0
    """What the examples are drawn by."""
    instruction: str = ""
    """What stands above all examples."""
    template: str | None = None
    """How a text and its label are written: ``{text}``, of a pair ``{text_pair}`` too, and ``{label}`` at the end."""
    between: str = "\n\n"
    """What stands between two of them."""
    choices: dict[str, str] = {}
    """How each label is written; as it is called, where nothing is said."""
    scored: Scored = "sum"
    """How likely a label is: ``sum`` of its tokens, or that by the token or by the byte, which helps where some labels are long and others short."""
    without_content: tuple[str, ...] = ()
    """Texts that say nothing, like ``N/A``: labels count by how much likelier they are behind the text than behind these. None: they count as they are."""
    examples: tuple[Shown, ...] = ()
    """The examples themselves, instead of drawn ones."""

    @field_validator("template")
    @classmethod
    def _has_its_places(cls, template: str | None) -> str | None:
        if template is not None:
            places = places_in(template)
            if places.count(LABEL) != 1 or not template.endswith("{label}") or places.count("text") != 1 or not {*places} <= {LABEL, *TEXTS}:
                raise ValueError("should have {text} once, {text_pair} where there are pairs, and {label} at its end")
        return template


class FewShotPrompt:
    """What a model is asked with, by the dials."""

    def __init__(self, dials: Prompting) -> None:
        self.dials = dials

    @property
    def sizes(self) -> list[int]:
        return [len(self._ending(choice).encode()) for choice in self.dials.choices.values()]

    def _ending(self, choice: str) -> str:
        """With the spaces that stand before it in the template: a tokenizer joins these with the word behind them."""
        template = self._template(1)
        head = template.removesuffix("{label}")
        return head[len(head.rstrip(" ")) :] + choice

    def _template(self, texts: int) -> str:
        return self.dials.template or PROMPTS[texts]

    def written(self, words: tuple[str, ...], label: str) -> str:
        values = dict(zip(TEXTS, words, strict=False))
        return filled(self._template(len(words)), values | {LABEL: self.dials.choices.get(label, label)})

    def shown(self) -> str:
        """The prompt before the text in question; empty where nothing stands there."""
        parts = [self.dials.instruction] * bool(self.dials.instruction) + [self.written(shown.words, shown.label) for shown in self.dials.examples]
        return "".join(part + self.dials.between for part in parts)

    def upto(self, words: tuple[str, ...]) -> str:
        """Up to where the label would stand, without the spaces before it."""
        template = self._template(len(words)).removesuffix("{label}").rstrip(" ")
        return self.shown() + filled(template, dict(zip(TEXTS, words, strict=False)))

    def question(self, tokenizer: Any, words: tuple[str, ...], room: int) -> Question:
        words, beginning = self.fitted(tokenizer, words, room)
        return question_of(beginning, self._with_each(tokenizer, words))

    def _with_each(self, tokenizer: Any, words: tuple[str, ...]) -> list[list[int]]:
        prompt = self.upto(words)
        rows: list[list[int]] = tokenizer([prompt + self._ending(choice) for choice in self.dials.choices.values()], verbose=False)["input_ids"]
        return rows

    def fitted(self, tokenizer: Any, words: tuple[str, ...], room: int) -> tuple[tuple[str, ...], list[int]]:
        """The texts, cut so that the prompt has room with its longest label, and the prompt's tokens."""
        what = f"a prompt of {len(self.dials.examples)} examples"
        words, _ = fitted(words, lambda texts: max(self._with_each(tokenizer, texts), key=len), tokenizer, room, what)
        return words, tokenizer(self.upto(words), verbose=False)["input_ids"]


def drawn(train: Sequence[Example], labels: Sequence[str], dials: Prompting) -> list[Shown]:
    """Examples to show, each label in its turn, in an order that the seed says; of texts that are short enough. Raises ``DataRefused`` for too few of these."""
    draw = random.Random(dials.seed)
    short = [example for example in train if example.labels and 0 < sum(len(words_of(text)) for text in example.words) <= dials.longest_shot]
    of_label = {label: [example for example in short if example.labels[0] == label] for label in labels}
    for rows in of_label.values():
        draw.shuffle(rows)
    turns = [*labels]
    draw.shuffle(turns)
    chosen: list[Shown] = []
    while len(chosen) < dials.shots:
        there = [label for label in turns if of_label[label]]
        if not there:
            raise DataRefused(
                f"the training split has {len(chosen)} examples of at most {dials.longest_shot} words, {dials.shots} shots are asked for (answering)"
            )
        for label in there[: dials.shots - len(chosen)]:
            example = of_label[label].pop()
            chosen.append(Shown(words=example.words, label=label))
    return chosen
