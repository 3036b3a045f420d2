"""How far a model of language agrees with the baseline, token by token, behind the same prompt.

What the baseline wrote is read by both, and at each place, from the first token on, it is asked which token each finds the likeliest, and how far their shares lie apart:

    equal         places at which both find the same token the likeliest
    first         tokens before the first place at which they do not: as many as the model, writing for itself, would have in common with the baseline
    KL            sum over places of sum_i p_i ln(p_i / q_i)        p: the baseline's shares, q: the model's

Where the baseline ended by itself, the place behind its last token counts too. Models may number tokens in their own ways (a trimmed vocabulary): tokens are known by
their text, and shares are those among the tokens that both have. A token that the model does not have ends what it can read; the places behind it are not equal,
and no KL is known of them.

Source: Kullback and Leibler 1951, doi:10.1214/aoms/1177729694.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from recompress.errors import IntegrityError

if TYPE_CHECKING:
    from recompress.runtimes import Runtime


class Speaker(NamedTuple):
    """A model of language with its tokenizer."""

    runtime: Runtime
    tokenizer: Any


class Agreement(NamedTuple):
    """Of one text."""

    places: int
    equal: int
    first: int
    read: int
    """Places of which the KL divergence is known."""
    nats: float


class Common:
    """The tokens that two vocabularies have in common, as numbers of each, in the order of the baseline's."""

    def __init__(self, baseline: Any, model: Any) -> None:
        of_model = model.backend_tokenizer.get_vocab(with_added_tokens=True)
        pairs = [(number, of_model[token]) for token, number in baseline.backend_tokenizer.get_vocab(with_added_tokens=True).items() if token in of_model]
        self.baseline, self.model = (np.array(side, dtype=np.int64) for side in zip(*sorted(pairs), strict=True))
        self.number = dict(pairs)
        """A token of the baseline's as the model numbers it."""


def agreement(
    baseline: Speaker, model: Speaker, common: Common, prompts: tuple[Sequence[int], Sequence[int]], written: Sequence[int], *, ended: bool
) -> Agreement:
    """``prompts``: the same prompt in the tokens of either; ``written``: what the baseline wrote behind it. Raises ``IntegrityError`` for logits that are not finite."""
    places = len(written) + ended
    known = [common.number[token] for token in _until_unknown(written, common.number)]
    read = min(places, len(known) + 1)
    if not read:
        return Agreement(places, 0, 0, 0, 0.0)
    theirs = _behind(baseline.runtime, prompts[0], written[: read - 1])
    ours = _behind(model.runtime, prompts[1], known[: read - 1])
    same = np.array([common.number.get(int(a)) == int(b) for a, b in zip(theirs.argmax(axis=1), ours.argmax(axis=1), strict=True)])
    first = int(same.argmin()) if not same.all() else read
    return Agreement(places, int(same.sum()), first, read, float(divergence(theirs[:, common.baseline], ours[:, common.model]).sum()))


def divergence(baseline: Float[np.ndarray, "places tokens"], model: Float[np.ndarray, "places tokens"]) -> Float[np.ndarray, " places"]:
    """KL of the shares that two rows of logits give, in nats and 64-bit floats."""
    ln_p, ln_q = (_log_shares(logits) for logits in (baseline, model))
    with np.errstate(under="ignore"):
        result: Float[np.ndarray, " places"] = (np.exp(ln_p) * (ln_p - ln_q)).sum(axis=1).clip(min=0.0)  # rounding may make nothing a little less
    return result


def _log_shares(logits: Float[np.ndarray, "places tokens"]) -> Float[np.ndarray, "places tokens"]:
    lowered = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    with np.errstate(under="ignore"):
        shares: Float[np.ndarray, "places tokens"] = lowered - np.log(np.exp(lowered).sum(axis=1, keepdims=True))
    return shares


def _until_unknown(tokens: Sequence[int], number: dict[int, int]) -> Sequence[int]:
    return tokens[: next((i for i, token in enumerate(tokens) if token not in number), len(tokens))]


def _behind(runtime: Runtime, prompt: Sequence[int], tokens: Sequence[int]) -> Float[np.ndarray, "places vocabulary"]:
    """The logits for the token behind the prompt, and behind each of ``tokens``."""
    whole = [*prompt, *tokens]
    [logits] = runtime.logits([{"input_ids": whole, "attention_mask": [1] * len(whole)}], 1)
    behind: Float[np.ndarray, "places vocabulary"] = np.asarray(logits)[len(prompt) - 1 :]
    if not np.isfinite(behind).all():
        raise IntegrityError("the model gives logits that are not finite")
    return behind
