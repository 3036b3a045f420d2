"""Which texts share a call: those that cost least together.

    cost(batch) = call + t * (1 + L / even + t / crowd)          n texts, filled up to the longest of them, L tokens;   t = n * L

in tokens: a call costs as much as ``call`` tokens, whatever is in it; at a length of ``even`` attention costs as much as all that is done token by token; and of a
batch of ``crowd`` tokens each would cost twice as much as of a small one, which stays in the processor's caches. Texts are sorted by length and the row is cut where
the sum over all batches is least. Since a batch never gets cheaper by a longer text, no other batches cost less, sorted or not, and a dynamic programme finds them:

    best(j) = min over i, j - most <= i < j, of best(i) + cost(texts i to j)

Costs are whole numbers: which texts share a call is the same on every machine, and what was cut stays in one piece when it is cut again. Coefficients are those of the
quickstart's encoder (6 layers of 384), processor time at one thread on 2 cores of an Intel Xeon with AVX512-VNNI, 2026-11-30: ``studies/results/batches.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Cost(NamedTuple):
    """What a runtime's time is made of, in tokens."""

    call: int
    even: int
    crowd: int


TORCH = Cost(call=81, even=960, crowd=8200)
PACKED_TORCH = Cost(call=177, even=960, crowd=8200)
"""torch, where a call begins with work on whole matrices: integers of another sign for ``llm_int8`` (a call of 2.2 times as many tokens as with floats), codebooks that are
unpacked (1.3 times). Codes that are multiplied as they are cost what floats do (0.93 to 1.07; ``fitted`` of ``studies.batches`` on 2 cores of an AMD EPYC, 2026-11-30)."""
ONNX = Cost(call=19, even=1200, crowd=9200)
STATIC_INT8 = Cost(call=21, even=330, crowd=4600)
NBITS = Cost(call=2, even=970, crowd=10_300)
"""Codes that ONNX Runtime multiplies: a token costs as much alone as in company."""


def cut(lengths: Sequence[int], most: int, cost: Cost) -> list[list[int]]:
    """The positions of the texts of each batch, shorter texts first, ``most`` of them at most; of equal lengths the earlier first."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if most == 1 or len(order) < 2:
        return [[i] for i in order]
    ends = _ends(np.array([lengths[i] for i in order], dtype=np.int64), most, cost)
    return [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _ends(lengths: np.ndarray[Any, np.dtype[np.int64]], most: int, cost: Cost) -> list[int]:
    """Where each batch of sorted texts ends. Of cuts that cost the same, that with the larger last batch."""
    call, even, crowd = cost
    count = len(lengths)
    best = np.zeros(count + 1, dtype=np.int64)
    begins = np.zeros(count + 1, dtype=np.int64)
    sizes = np.arange(most, 0, -1, dtype=np.int64)
    for end, longest in enumerate(lengths.tolist(), 1):
        first = max(0, end - most)
        tokens = sizes[first - end :] * longest
        costs = best[first:end] + tokens * ((even + longest) * crowd + even * tokens)  # in shares of a token, so that nothing is divided
        at = int(costs.argmin())
        best[end], begins[end] = costs[at] + call * even * crowd, first + at
    ends = [count]
    while (begin := int(begins[ends[-1]])) > 0:
        ends.append(begin)
    return ends[::-1]
