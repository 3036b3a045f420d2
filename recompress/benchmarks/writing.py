"""What a model of language is asked to write, and what it wrote: prompts with room behind them, greedy or drawn tokens, and where a text ends."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field, field_validator

from recompress.benchmarks.answers import Normalisation
from recompress.benchmarks.benchmark import Example
from recompress.benchmarks.prompted import filled, fitted, places_in
from recompress.errors import DataRefused
from recompress.models.chat import prompts_of, stops_of
from recompress.progress import bar
from recompress.runtimes.generation import Choose, Continues, following, likeliest
from recompress.runtimes.rereading import as_continuing
from recompress.runtimes.sampling import sampler
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from recompress.runtimes import Runtime

TEXTS = ("question", "context")
"""What the two texts of question answering are called in a template; a text alone is ``text``."""
PROMPT = "{context}\n\nQuestion: {question}\nAnswer:"
"""The template of a question about a text, where none is named."""


class Writing(Settings):
    """What is asked, and how it is written."""

    prompt: Annotated[str, Field(min_length=1)] | None = None
    """A template with ``{text}``, or, for questions about a text, with ``{question}`` and ``{context}``; the text itself, or both, where nothing is said."""
    chat: bool = False
    """Whether the prompt is put to the model as what a person said, in the form of its own chat template."""
    beginning: Annotated[int, Field(ge=1)] = 32
    """Of plain text, which has no right answers: so many words are the prompt, and the rest is the right text."""
    tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """The most tokens that are written."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a text, which goes up to the first of them."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0: the likeliest tokens. Above: tokens are drawn, the more freely the higher."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of drawn tokens, only the likeliest come that have this share together."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What tokens are drawn by."""
    normalisation: Normalisation = "unicode"
    """What does not count in exact match and F1: ``unicode``, case and all punctuation; ``squad``, case, ASCII punctuation and English articles."""

    @field_validator("prompt")
    @classmethod
    def _has_its_places(cls, prompt: str | None) -> str | None:
        places = places_in(prompt) if prompt is not None else ["text"]
        if not places or not ({*places} <= {"text"} or {*places} <= {*TEXTS}):
            raise ValueError("should have {text}, or {question} and {context}")
        return prompt

    def words_of(self, example: Example) -> tuple[str, ...]:
        """The texts that are asked about: of plain text without a right answer its beginning."""
        if example.labels or len(example.words) > 1:
            return example.words
        return (" ".join(example.words[0].split(" ")[: self.beginning]),)

    def rest_of(self, example: Example) -> str:
        return " ".join(example.words[0].split(" ")[self.beginning :]).strip()

    def asked(self, words: tuple[str, ...]) -> str:
        """The prompt. Raises ``DataRefused`` for a template of other texts than the data has."""
        template = self.prompt or (PROMPT if len(words) > 1 else "{text}")
        values = dict(zip(TEXTS, words, strict=False)) if len(words) > 1 else {"text": words[0]}
        if strange := [name for name in places_in(template) if name not in values]:
            raise DataRefused(f"the prompt asks for {{{strange[0]}}}, and the data has {', '.join(f'{{{name}}}' for name in values)} (answering.prompt)")
        return filled(template, values)

    def prompt_of(self, example: Example) -> str:
        return self.asked(self.words_of(example))

    def chooser(self, prompt: Sequence[int]) -> Choose:
        """How the tokens behind a prompt are chosen."""
        return sampler(self.temperature, self.top_p, self.seed, prompt) if self.temperature else likeliest


class Ended(IntEnum):
    """What ended a text."""

    CUT = 0
    """The number of tokens that was asked for, or the model's last position."""
    BY_TOKEN = 1
    BY_STRING = 2


class Written(NamedTuple):
    """One text."""

    text: str
    tokens: tuple[int, ...]
    """Without a stop token that ended it."""
    ended: Ended


def as_row(written: Written) -> tuple[str, ...]:
    """As predictions are kept: the text, its tokens, and what ended it."""
    return written.text, " ".join(map(str, written.tokens)), str(int(written.ended))


def of_row(row: Sequence[str]) -> Written:
    """What ``as_row`` gave, whatever stands behind it. Raises ``DataRefused`` for anything else."""
    try:
        text, tokens, ended = row[:3]
        return Written(text, tuple(map(int, tokens.split())), Ended(int(ended)))
    except ValueError:
        raise DataRefused(f"no record of a written text: {str(list(row))[:80]}") from None


def prompts_fitted(tokenizer: Any, examples: Sequence[Example], max_length: int, dials: Writing) -> list[list[int]]:
    """The tokens of each prompt, with room for what is written behind it. Raises ``DataRefused`` where there is none."""
    room = max_length - dials.tokens
    if room < 1:
        raise DataRefused(f"{dials.tokens} tokens are to be written, and the model reads {max_length}, prompt included; ask for fewer, or raise max_length")
    words = [dials.words_of(example) for example in examples]
    prompts = prompts_of(tokenizer, [dials.asked(texts) for texts in words], plain=not dials.chat)

    def tokens_of(texts: tuple[str, ...]) -> list[int]:
        [prompt] = prompts_of(tokenizer, [dials.asked(texts)], plain=not dials.chat)
        return prompt

    fits = (prompt if len(prompt) <= room else fitted(texts, tokens_of, tokenizer, room, "a prompt")[1] for prompt, texts in zip(prompts, words, strict=True))
    return [prompt or _one_token(tokenizer) for prompt in fits]


def write(runtime: Runtime, tokenizer: Any, examples: Sequence[Example], max_length: int, dials: Writing, label: str) -> list[Written]:
    """What the model writes about each example. Raises as ``prompts_fitted``."""
    model = as_continuing(runtime, max_length)
    prompts = prompts_fitted(tokenizer, examples, min(max_length, model.positions), dials)
    stops, written = stops_of(tokenizer), []
    with bar(label, len(prompts), "text") as progress:
        for prompt in prompts:
            written.append(write_one(model, tokenizer, prompt, dials, stops, dials.chooser(prompt)))
            progress.update()
    return written


def write_one(model: Continues, tokenizer: Any, prompt: Sequence[int], dials: Writing, stops: frozenset[int], choose: Choose) -> Written:
    """One text, up to a stop token or before the first stop string."""
    decode, tokens = tokenizer.backend_tokenizer.decode, list[int]()
    with model.lock:
        for token in following(model, prompt, dials.tokens, choose):
            if token in stops:
                return Written(decode(tokens), tuple(tokens), Ended.BY_TOKEN)
            tokens.append(token)
            text = decode(tokens) if dials.stop else ""
            if ends := [place for stop in dials.stop if (place := text.find(stop)) >= 0]:
                return Written(text[: min(ends)], tuple(tokens), Ended.BY_STRING)
    return Written(decode(tokens), tuple(tokens), Ended.CUT)


def _one_token(tokenizer: Any) -> list[int]:
    """What an empty prompt begins with."""
    first = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id
    return [int(first or 0)]
