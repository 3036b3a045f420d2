"""Tokens that are drawn, by the shares that a model gives them, from a generator whose seed is said.

    p_i = exp(logit_i / temperature) / sum_j exp(logit_j / temperature)

Of these only the nucleus may come: the likeliest tokens, of which the first so many have ``top_p`` of all shares together; the others are never drawn.

Source: Holtzman et al. 2020, arXiv:1904.09751, section 3.1, equations 2 and 3 (nucleus) and section 4.2 (temperature).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from recompress.runtimes.generation import Choose


def sampler(temperature: float, top_p: float, seed: int, prompt: Sequence[int]) -> Choose:
    """Draws for one prompt (its tokens): what comes behind it does not depend on which others were asked before it."""
    draw = np.random.default_rng([seed, *prompt])

    def choose(logits: Float[np.ndarray, " vocabulary"]) -> int:
        tokens, shares = nucleus(logits, temperature, top_p)
        place = int(np.searchsorted(np.cumsum(shares), draw.random(), side="right"))
        return int(tokens[min(place, len(tokens) - 1)])

    return choose


def nucleus(logits: Float[np.ndarray, " vocabulary"], temperature: float, top_p: float) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """The tokens that may come, likeliest first (of equal ones the first), and their shares, which add up to 1."""
    order = np.argsort(-logits, kind="stable")
    warm = logits[order].astype(np.float64) / temperature
    with np.errstate(under="ignore"):
        shares = np.exp(warm - warm[0])
    shares /= shares.sum()
    kept = 1 + int(np.searchsorted(np.cumsum(shares), top_p))
    return order[:kept], shares[:kept] / shares[:kept].sum()
