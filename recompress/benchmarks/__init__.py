"""What a model is measured on. One file for each benchmark; all speak the same few verbs.

``get_benchmark("token-classification")`` gives the object that training, methods, runtimes and measuring use, so that none of them asks which benchmark it is.
"""

from __future__ import annotations

from typing import Literal, get_args

from recompress.benchmarks.benchmark import Benchmark, Example, ReadsOn
from recompress.errors import InputError

__all__ = ["ALL_BENCHMARKS", "Benchmark", "BenchmarkName", "Example", "ReadsOn", "get_benchmark"]

BenchmarkName = Literal[
    "token-classification",
    "text-classification",
    "language-modelling",
]
ALL_BENCHMARKS: tuple[str, ...] = get_args(BenchmarkName)


def get_benchmark(name: str) -> Benchmark:
    """Raises ``InputError`` for a name that is not known."""
    from recompress.benchmarks.language_modelling import LanguageModelling
    from recompress.benchmarks.text_classification import TextClassification
    from recompress.benchmarks.token_classification import TokenClassification

    every: tuple[Benchmark, ...] = (
        TokenClassification(),
        TextClassification(),
        LanguageModelling(),
    )
    known = {benchmark.name: benchmark for benchmark in every}
    if name not in known:
        from recompress.settings.file import unknown

        raise InputError(unknown("benchmark", name, known, "benchmark"))
    return known[name]
