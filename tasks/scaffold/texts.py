"""The files of a new project as text, from the templates that lie beside this module."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from recompress.benchmarks import get_benchmark
from recompress.benchmarks.question_answering import Answering
from recompress.data.infer.explain import as_settings
from recompress.data.infer.understood import Understood
from recompress.data.questions import KINDS
from recompress.data.version import version_of
from recompress.models.heads import head_of
from tasks.scaffold.base import PinnedBase
from tasks.scaffold.dials import Dials

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
)
SMALLER = {"torch": 1.5, "onnx": 2.0}
"""What the policy asks for at first; int8 on ONNX Runtime reaches nearly 4 where most of a model is linear layers."""
SMALLEST_BLOCK = 16
"""Columns: token embeddings in 4 bits need a width that it divides (``recompress.methods.quantization.int8_tables``)."""
FIXED = {"dvc.yaml": "dvc.yaml.j2", ".gitignore": "gitignore.j2", ".dvcignore": "dvcignore.j2"}


def fixed(name: str) -> str:
    """A file that is the same in all projects."""
    return render(FIXED[name])


def params(project: str, entry: Sequence[str]) -> str:
    """``params.yaml``, which says how the raw files are read; ``entry``: the lines of its first data set, where it has one."""
    return render("params.yaml.j2", project=project, version=version_of("prepare"), entry=entry)


def entry_lines(name: str, data: Understood, entry: Mapping[str, Any], origin: str, today: str) -> list[str]:
    """An entry of ``datasets:``, a line a dial, with why behind it."""
    dials = as_settings(replace(data, entry=dict(entry), comments={key: one_line(why) for key, why in data.comments.items()}))
    return render("entry.yaml.j2", name=name, today=today, origin=one_line(origin), dials=dials).splitlines()


def recipe(name: str, data: Understood, base: PinnedBase, dials: Dials, train: int, long: int, origin: str) -> str:
    """``recipes/NAME.yaml``."""
    return render(
        "recipe.yaml.j2",
        name=name,
        benchmark=data.benchmark,
        base=base,
        model=quoted(base.model),
        dials=dials,
        train=f"{train:,}",
        long=long,
        origin=one_line(origin),
        answering=answering(data) if head_of(data.benchmark).finds_spans else None,
        in_words=asked_in_words(data.benchmark),
        in_blocks=base.width % SMALLEST_BLOCK == 0,
    )


def answering(data: Understood) -> dict[str, Any]:
    """The dials of question answering that fit the data."""
    dials = Answering()
    unanswerable = data.labels.get(KINDS[False], 0)
    latin = max(data.scripts, key=lambda name: data.scripts[name], default="Latin") == "Latin"
    return {
        "stride": dials.stride,
        "longest_answer": dials.longest_answer,
        "threshold": dials.threshold if unanswerable else "null",
        "why": "logits by which 'no answer' has to be likelier than the best one"
        if unanswerable
        else "every question of the data has an answer, so there is always one",
        "normalisation": "squad" if latin else "unicode",
    }


def asked_in_words(benchmark: str) -> bool:
    """Whether a model of language is judged by its answers."""
    head = head_of(benchmark)
    return head.pretrained and head.answer != "nothing"


def policy(name: str, benchmark: str, dials: Dials) -> str:
    """``policies/NAME.yaml``."""
    measured = get_benchmark(benchmark)
    smaller = SMALLER["torch" if measured.head.pretrained else "onnx"]
    return render("policy.yaml.j2", name=name, metric=measured.primary, dials=dials, smaller=smaller, bits=measured.head.answer == "nothing")


def render(template: str, **values: Any) -> str:
    return ENVIRONMENT.get_template(template).render(**values)


def quoted(value: Any) -> str:
    """A value as YAML has it on one line: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def one_line(text: str) -> str:
    """Text as it may stand in a comment."""
    return " ".join(text.split())
