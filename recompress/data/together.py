"""Do the texts of a test split belong together although nobody said so? Looked for where no groups are named, so that a person knows what the bounds then mean.

*Near-duplicates* share at least half of their runs of three words (Jaccard), found by MinHash in bands: texts whose smallest hashes agree in a band are compared.

*Runs* show in the words that texts share with those after them. With unit vectors of words weighed by rarity, centred on their slice and label,

    r(k) = mean of x_i . x_(i+k) over texts of one slice        run = 2 * (r(1) + r(2) + ...) / r(1),   summed while r(k) is beyond chance

which is m where the texts stand in documents of m: of those k apart, a share of 1 - k/m lies in one document. If texts of a run are lost together, a bound at
95 % is passed at the margin with chance Phi(-1.645 / sqrt(m)).

Sources: Broder 1997, "On the resemblance and containment of documents" (MinHash); Kish 1965, "Survey Sampling" (how much less
clusters tell than as many strangers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from recompress.benchmarks import Example

HASHES, BAND, ALIKE = 64, 4, 0.5
FARTHEST = 200
"""Texts farther apart are not compared: longer runs are called runs of about this length."""
BEYOND_CHANCE, TELLING = 4.0, 1.25
"""Standard errors by which neighbours must share more words than chance, and how many times more than strangers, to be called a run."""
WORTH_SAYING = 0.06
"""False passes at worst, at a bound of 95 %, from which on a person is told that bounds may be too narrow."""
ROWS_OF_A_LABEL = 5
"""Texts of a label, in the mean, from which on labels say which texts are of a kind."""
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Together:
    """What was found in a test split without named groups."""

    texts: int
    near: int
    """Texts that nearly repeat another."""
    run: float
    """Texts in a run, about; 1 where neighbours are strangers."""
    shared: float
    """How many times as many words neighbours share as strangers."""
    size: float
    """Mean size of the group that a text stands in: of near-duplicates or of a run, whichever is larger."""

    @property
    def passes_at_the_margin(self) -> float:
        """At worst, at a bound of 95 %: where texts that belong together are lost together."""
        return NormalDist().cdf(NormalDist().inv_cdf(0.05) / np.sqrt(self.size))


def what_bounds_mean(examples: Sequence[Example]) -> str:
    """One line on the examples of a test split, for the page; empty where there are none."""
    if not examples:
        return ""
    texts, named = f"{len(examples):,} test texts", {example.group for example in examples} - {""}
    if named:
        alone = sum(not example.group for example in examples)
        return f"{texts} from {len(named) + alone:,} groups; no group stands in two splits, and the gate's bounds draw groups, not texts."
    seen = look(examples)
    near = [f"{seen.near:,} of {texts} nearly repeat another"] if seen.near else []
    run = [f"neighbours share {seen.shared:.1f} times as many words as strangers, in runs of about {seen.run:.0f} texts"] if seen.run > 1 else []
    if seen.passes_at_the_margin < WORTH_SAYING:
        few = f" ({near[0]}, which changes nothing)" if near else ""
        return f"No groups are named, and none were found in {texts}{few}: the bounds take each text for itself."
    return (
        f"No groups are named, but {' and '.join(near + run)}: the bounds take each text for itself and may be too narrow. Where texts that belong together "
        f"are lost together, a candidate at the margin passes in up to {100 * seen.passes_at_the_margin:.0f} % of cases at a bound of 95 %; "
        "name what they belong to (group: in params.yaml)."
    )


def look(examples: Sequence[Example]) -> Together:
    """Seconds for 10,000 texts. Nothing is drawn without a seed: the same texts give the same answer."""
    words = [WORD.findall(" ".join(example.words).casefold()) for example in examples]
    number: dict[str, int] = {}
    numbers = [np.array([number.setdefault(word, len(number)) for word in text], dtype=np.int64) for text in words]
    families = np.unique(near_duplicates(numbers), return_counts=True)[1]
    run, shared = runs(numbers, len(number), examples)
    near = int(families[families > 1].sum())
    return Together(len(examples), near, run, shared, max(run, float((families**2).sum() / max(len(examples), 1))))


def near_duplicates(texts: Sequence[Int[np.ndarray, " words"]]) -> Int[np.ndarray, " texts"]:
    """For each text the smallest number of a text of its family: those that it nearly repeats, and those that these nearly repeat."""
    shingles = [_shingles(text) for text in texts]
    family = np.arange(len(texts))
    if not len(texts):
        return family
    marks = _marks(shingles)
    for start in range(0, HASHES, BAND):
        order = np.lexsort(marks[:, start : start + BAND].T)
        same = (marks[order[1:], start : start + BAND] == marks[order[:-1], start : start + BAND]).all(axis=1)
        for i, j in zip(order[:-1][same], order[1:][same], strict=True):
            if family[i] != family[j] and _jaccard(shingles[i], shingles[j]) >= ALIKE:
                family[family == max(family[i], family[j])] = min(family[i], family[j])
    return family


def _shingles(text: Int[np.ndarray, " words"]) -> np.ndarray:
    """Numbers of the text's runs of three words, each once; of the whole text where it is shorter."""
    padded = np.concatenate([text, np.full(max(3 - len(text), 0), -1)]).astype(np.uint64)
    return np.unique(padded[:-2] * np.uint64(1_000_003**2) + padded[1:-1] * np.uint64(1_000_003) + padded[2:])


def _marks(shingles: Sequence[np.ndarray]) -> np.ndarray:
    """``[texts, HASHES]``: of each text the smallest value of each hash of its shingles."""
    starts = np.cumsum([0, *map(len, shingles[:-1])])
    every, generator = np.concatenate(shingles), np.random.default_rng(0)
    marks = np.empty((len(shingles), HASHES), dtype=np.uint64)
    for k, (factor, shift) in enumerate(generator.integers(1, 1 << 61, size=(HASHES, 2), dtype=np.uint64)):
        mixed = (every ^ shift) * (factor | np.uint64(1))
        marks[:, k] = np.minimum.reduceat(mixed ^ (mixed >> np.uint64(31)), starts)
    return marks


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def runs(texts: Sequence[Int[np.ndarray, " words"]], vocabulary: int, examples: Sequence[Example]) -> tuple[float, float]:
    """Length of runs, and how many times as many words neighbours share as strangers; (1, 1) where that is not beyond chance."""
    if len(texts) < 10 or not vocabulary:
        return 1.0, 1.0
    vectors = _vectors(texts, vocabulary)
    slices = np.unique([example.slice for example in examples], return_inverse=True)[1]
    labels = [example.labels[0] if len(example.labels) == 1 else "" for example in examples]
    labels = labels if len({*labels}) <= len(labels) / ROWS_OF_A_LABEL else [""] * len(labels)  # numbers, where each is its own, tell no kinds
    kinds = np.unique([f"{example.slice}\n{label}" for example, label in zip(examples, labels, strict=True)], return_inverse=True)[1]
    alike = _Alike(vectors, kinds)
    shuffled = np.lexsort((np.random.default_rng(0).random(len(texts)), slices))
    strangers = _apart(1, shuffled, slices)
    spread = float(alike(*strangers).std())
    neighbours = _apart(1, np.arange(len(texts)), slices)
    if not len(neighbours[0]):
        return 1.0, 1.0
    shared = _cosines(vectors, *neighbours).mean() / max(float(_cosines(vectors, *strangers).mean()), 1e-9)
    first, total = 0.0, 0.0
    for apart in range(1, min(FARTHEST, len(texts) - 1) + 1):
        places = _apart(apart, np.arange(len(texts)), slices)
        excess, noise = (float(alike(*places).mean()), spread / np.sqrt(len(places[0]))) if len(places[0]) else (0.0, 1.0)
        first = first or excess
        if excess < noise * (BEYOND_CHANCE if apart == 1 else 2.0):
            break
        total += excess
    run = max(2 * total / first, 1.0) if total else 1.0
    return (run, float(shared)) if run > 1 and shared >= TELLING else (1.0, 1.0)


def _vectors(texts: Sequence[Int[np.ndarray, " words"]], vocabulary: int) -> csr_matrix:
    """Which words each text holds, weighed by ln(texts / texts with the word), of length 1."""
    words = [np.unique(text) for text in texts]
    rows, columns = np.repeat(np.arange(len(words)), list(map(len, words))), np.concatenate(words)
    rarity = np.log(len(texts) / np.bincount(columns, minlength=vocabulary))
    lengths = np.sqrt(np.bincount(rows, rarity[columns] ** 2, minlength=len(words)))
    return csr_matrix((rarity[columns] / np.maximum(lengths[rows], 1e-12), (rows, columns)), shape=(len(words), vocabulary))


def _apart(count: int, order: Int[np.ndarray, " texts"], slices: Int[np.ndarray, " texts"]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of texts of one slice that stand ``count`` apart in ``order``."""
    one, other = order[:-count], order[count:]
    same = slices[one] == slices[other]
    return one[same], other[same]


def _cosines(vectors: csr_matrix, one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, " pairs"]:
    return np.asarray(vectors[one].multiply(vectors[other]).sum(axis=1)).ravel()


class _Alike:
    """Dot products of texts, each less the mean of its slice and label, so that a common subject counts for nothing."""

    def __init__(self, vectors: csr_matrix, kinds: Int[np.ndarray, " texts"]) -> None:
        self.vectors, self.kinds = vectors, kinds
        counts = np.bincount(kinds)
        member = csr_matrix((1 / counts[kinds], (kinds, np.arange(len(kinds)))), shape=(len(counts), len(kinds)))
        means = member @ vectors
        self.to_means, self.of_means = (vectors @ means.T).toarray(), (means @ means.T).toarray()

    def __call__(self, one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, " pairs"]:
        a, b = self.kinds[one], self.kinds[other]
        return np.asarray(_cosines(self.vectors, one, other) - self.to_means[one, b] - self.to_means[other, a] + self.of_means[a, b])
