"""The files of a new project as text, from the templates that lie beside this module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jinja2

from recompress.benchmarks import get_benchmark
from recompress.data.readers import Format
from recompress.data.version import version_of
from tasks.scaffold.base import PinnedBase
from tasks.scaffold.dials import Dials
from tasks.scaffold.inferred import Inferred

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
)
SMALLER = {"torch": 1.5, "onnx": 2.0}
"""What the policy asks for at first; int8 on ONNX Runtime reaches nearly 4 where most of a model is linear layers."""
FIXED = {"dvc.yaml": "dvc.yaml.j2", ".gitignore": "gitignore.j2", ".dvcignore": "dvcignore.j2"}


def fixed(name: str) -> str:
    """A file that is the same in all projects."""
    return render(FIXED[name])


def params(name: str, project: str, data: Inferred, split_off: Mapping[str, float], origin: str, today: str) -> str:
    """``params.yaml``, which says how the raw files are read."""
    more = []
    if data.columns is not None:
        more += [("text", quoted(data.columns.text), "the key of the text"), ("label", quoted(data.columns.label), "the key of its label")]
    running = data.benchmark == "language-modelling"
    if running:
        more.append(("running_text", "true", "the lines follow on each other, so that repeated lines stay"))
    take = {split: f"{share}{', take: tail' * running}" for split, share in split_off.items()}
    return render(
        "params.yaml.j2",
        name=name,
        project=project,
        version=version_of("prepare"),
        today=today,
        origin=origin,
        benchmark=data.benchmark,
        format=data.format,
        formats=", ".join(get_args(Format)),
        files=quoted(data.layout.files),
        rename=quoted(data.layout.rename) if data.layout.rename else "",
        more=more,
        split_off=take,
    )


def recipe(name: str, data: Inferred, base: PinnedBase, dials: Dials, train: int, long: int, origin: str) -> str:
    """``recipes/NAME.yaml``."""
    return render(
        "recipe.yaml.j2", name=name, benchmark=data.benchmark, base=base, model=quoted(base.model), dials=dials, train=f"{train:,}", long=long, origin=origin
    )


def policy(name: str, benchmark: str, dials: Dials) -> str:
    """``policies/NAME.yaml``."""
    smaller = SMALLER["torch" if benchmark == "language-modelling" else "onnx"]
    return render("policy.yaml.j2", name=name, metric=get_benchmark(benchmark).primary, dials=dials, smaller=smaller)


def render(template: str, **values: Any) -> str:
    return ENVIRONMENT.get_template(template).render(**values)


def quoted(value: Any) -> str:
    """A value as YAML has it on one line: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)
