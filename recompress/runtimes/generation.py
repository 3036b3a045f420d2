"""A text that is continued, token by token, with the keys and values of what was read kept in a cache.

    token_t = argmax p(. | tokens before it)                 of equal ones the first; or drawn (``recompress.runtimes.sampling``)

The prompt is read once (prefill), then one token at a time (decode), until a stop token, the number asked for, or the model's last position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError


class Continues(Protocol):
    """A runtime that keeps a cache."""

    positions: int
    """The most tokens that it reads, prompt and answer together."""
    lock: AbstractContextManager[Any]
    """Held while one text is continued: there is one cache."""

    def prefill(self, tokens: Sequence[int], room: int) -> Float[Any, " vocabulary"]:
        """Forget what was read, read the prompt, and give the logits behind it; there will be ``room`` tokens in all."""

    def decode(self, token: int) -> Float[Any, " vocabulary"]:
        """Read on, and give the logits behind the token."""

    def read_on(self, tokens: Sequence[int]) -> Float[Any, "tokens vocabulary"]:
        """The same of several tokens at once: the logits behind each."""

    def rewind(self, length: int) -> None:
        """Forget what was read behind the first ``length`` tokens, so that something else may stand there."""


Choose = Callable[[Float[np.ndarray, " vocabulary"]], int]
"""Which token comes, of the logits for it."""


def likeliest(logits: Float[np.ndarray, " vocabulary"]) -> int:
    return int(logits.argmax())


class Continuation(NamedTuple):
    """What was written."""

    tokens: tuple[int, ...]
    """Without the one that ended it."""
    stopped: bool
    """Whether a stop token ended it, and not the number that was asked for."""


def can_continue(runtime: object) -> Continues:
    """The same runtime. Raises ``InputError`` for one that has no cache."""
    if not hasattr(runtime, "prefill"):
        name = getattr(runtime, "name", "this")
        raise InputError(f"the {name} runtime keeps no keys and values, so that it cannot write; end the variant with gguf or onnx_genai, or stay on torch")
    return runtime  # type: ignore[return-value]


def continued(runtime: Continues, prompt: Sequence[int], count: int, stops: frozenset[int] = frozenset(), choose: Choose = likeliest) -> Continuation:
    """At most ``count`` tokens behind ``prompt``. Raises ``InputError`` for a prompt that is empty or leaves no position."""
    tokens: list[int] = []
    with runtime.lock:
        for token in following(runtime, prompt, count, choose):
            if token in stops:
                return Continuation(tuple(tokens), stopped=True)
            tokens.append(token)
    return Continuation(tuple(tokens), stopped=False)


def following(runtime: Continues, prompt: Sequence[int], count: int, choose: Choose = likeliest) -> Iterator[int]:
    """The tokens one by one, whatever they are; whoever shares the runtime holds its lock meanwhile. Raises as ``continued``."""
    check_prompt(runtime, prompt)
    count = min(count, runtime.positions - len(prompt))
    logits = runtime.prefill(prompt, len(prompt) + count)
    for written in range(1, count + 1):
        token = choose(logits)
        yield token
        if written < count:
            logits = runtime.decode(token)


def check_prompt(runtime: Continues, prompt: Sequence[int]) -> None:
    """Raises ``InputError`` for a prompt that is empty or leaves no position to write at."""
    if not prompt:
        raise InputError("the prompt has no token to begin with; write something")
    if len(prompt) >= runtime.positions:
        raise InputError(f"the prompt has {len(prompt):,} tokens, and the model reads {runtime.positions:,}, answer included; make it shorter")
