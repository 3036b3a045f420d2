"""What a model is measured on. One file for each benchmark; all speak the same few verbs.

``get_benchmark("token-classification")`` gives the object that training, methods, runtimes and measuring use, so that none of them asks which benchmark it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import ValidationError

from recompress.benchmarks.benchmark import (
    Benchmark,
    ComparesWith,
    Example,
    InWindows,
    ReadsOn,
    ShowsExamples,
    answers_of,
    columns_of,
    first_of_each,
    learned_as,
    reads_of,
)
from recompress.errors import InputError, IntegrityError
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from recompress.models.checkpoint import Info

__all__ = [
    "ALL_BENCHMARKS",
    "Benchmark",
    "BenchmarkName",
    "ComparesWith",
    "Example",
    "InWindows",
    "ReadsOn",
    "ShowsExamples",
    "answers_of",
    "benchmark_of",
    "columns_of",
    "dials_of",
    "first_of_each",
    "get_benchmark",
    "learned_as",
    "reads_of",
]

BenchmarkName = Literal[
    "token-classification",
    "text-classification",
    "pair-classification",
    "multi-label-classification",
    "text-regression",
    "language-modelling",
    "question-answering",
    "few-shot-classification",
    "text-generation",
]
ALL_BENCHMARKS: tuple[str, ...] = get_args(BenchmarkName)


def benchmark_of(info: Info) -> Benchmark:
    """The benchmark that a model was made for, with the dials that the model names. Raises ``InputError`` and, for dials that it does not have, ``IntegrityError``."""
    try:
        return get_benchmark(info.benchmark, info.answering)
    except ValidationError as error:
        raise IntegrityError(f"the model names dials that {info.benchmark} does not have: {error.errors()[0]['msg']}") from None


def dials_of(name: str) -> type[Settings] | None:
    """The settings class of a benchmark's own dials, where it has any: what ``answering`` of a recipe says."""
    return getattr(get_benchmark(name), "Dials", None)


def get_benchmark(name: str, answering: Mapping[str, Any] | None = None) -> Benchmark:
    """The benchmark of that name; ``answering`` are its own dials, for those that have some.

    Raises ``InputError`` for a name that is not known, and for dials of a benchmark without any; pydantic's ``ValidationError`` for dials that are wrong.
    """
    kind = _kind(name)
    dials = getattr(kind, "Dials", None)
    if answering and dials is None:
        raise InputError(f"{name} has no dials of its own; leave answering out")
    benchmark: Benchmark = kind(dials.model_validate_json(json.dumps(dict(answering)))) if answering and dials else kind()
    return benchmark


def _kind(name: str) -> Any:
    """The class of a benchmark; the others are not imported. Raises ``InputError``."""
    match name:
        case "token-classification":
            from recompress.benchmarks.token_classification import TokenClassification

            return TokenClassification
        case "text-classification":
            from recompress.benchmarks.text_classification import TextClassification

            return TextClassification
        case "pair-classification":
            from recompress.benchmarks.pair_classification import PairClassification

            return PairClassification
        case "multi-label-classification":
            from recompress.benchmarks.multi_label_classification import MultiLabelClassification

            return MultiLabelClassification
        case "text-regression":
            from recompress.benchmarks.text_regression import TextRegression

            return TextRegression
        case "language-modelling":
            from recompress.benchmarks.language_modelling import LanguageModelling

            return LanguageModelling
        case "question-answering":
            from recompress.benchmarks.question_answering import QuestionAnswering

            return QuestionAnswering
        case "few-shot-classification":
            from recompress.benchmarks.few_shot_classification import FewShotClassification

            return FewShotClassification
        case "text-generation":
            from recompress.benchmarks.text_generation import TextGeneration

            return TextGeneration
    from recompress.settings.file import unknown

    raise InputError(unknown("benchmark", name, ALL_BENCHMARKS, "benchmark"))
