"""Stricter or laxer: every dial of a policy has a direction, and only the lax side is named."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from recompress.policy import Policy, read_policy
from recompress.strictness import DIRECTIONS, dials_of, laxer_dials

PINNED: dict[str, Any] = {
    "metric": "f1",
    "at_least": 0.6,
    "baseline": {"margin": 0.03, "slices": {"hau": 0.05, "swa": 0.05}},
    "champion": {"margin": 0.02, "slices": {"hau": 0.04, "swa": 0.04}},
    "loss_budget": 0.1,
    "confidence": 0.95,
    "power": 0.8,
    "draws": 10_000,
    "seed": 0,
    "first_promotion": "refused",
    "min_examples": {"overall": 1000, "per_slice": 300},
    "finalists": 3,
    "trainings": 2,
    "limits": {
        "size_bytes": 30_000_000,
        "times_smaller": 3.5,
        "times_faster": 1.2,
        "times_faster_writing": 2.0,
        "peak_memory_bytes": 500_000_000,
        "steady_memory_bytes": 400_000_000,
        "latency_p95_ms": 20.0,
        "throughput_per_s": 100.0,
        "machine": {"processor": "made up", "cores": "2"},
    },
    "choose": "smallest",
    "approval": {"mode": "required", "expires_after_hours": 72.0, "not_the_author": True, "signed": True},
}
SIDES: dict[str, tuple[list[Any], list[Any]]] = {
    # dial                        as strict or stricter                                   laxer
    "metric": (["f1"], ["accuracy"]),
    "at_least": ([0.6, 0.7], [0.5999, None]),
    "baseline.margin": ([0.03, 0.01], [0.031]),
    "baseline.slices": (
        [{"hau": 0.05, "swa": 0.05}, {"hau": 0.01, "swa": 0.05}, {"hau": 0.05, "swa": 0.05, "yor": 0.5}],
        [None, {"hau": 0.05}, {"hau": 0.05, "swa": 0.051}],
    ),
    "champion.margin": ([0.02, 0.01], [0.021]),
    "champion.slices": ([{"hau": 0.04, "swa": 0.04}, {"hau": 0.04, "swa": 0.01}], [None, {"swa": 0.04}, {"hau": 0.5, "swa": 0.04}]),
    "loss_budget": ([0.1, 0.05], [0.11]),
    "confidence": ([0.95, 0.99], [0.94]),
    "power": ([0.8, 0.9], [0.7]),
    "draws": ([10_000, 20_000], [9_999]),
    "seed": ([0], [1]),
    "first_promotion": (["refused"], ["allowed"]),
    "min_examples.overall": ([1000, 2000], [999]),
    "min_examples.per_slice": ([300, 400], [299]),
    "finalists": ([3, 1], [4]),
    "trainings": ([2, 5], [1]),
    "limits.size_bytes": ([30_000_000, 1], [30_000_001, None]),
    "limits.times_smaller": ([3.5, 4.0], [3.4, None]),
    "limits.times_faster": ([1.2, 2.0], [1.1, None]),
    "limits.times_faster_writing": ([2.0, 3.0], [1.9, None]),
    "limits.peak_memory_bytes": ([500_000_000, 1], [500_000_001, None]),
    "limits.steady_memory_bytes": ([400_000_000, 1], [400_000_001, None]),
    "limits.latency_p95_ms": ([20.0, 10.0], [20.1, None]),
    "limits.throughput_per_s": ([100.0, 200.0], [99.0, None]),
    "limits.machine": ([{"processor": "made up", "cores": "2", "system": "Linux"}], [{"processor": "made up"}, {"processor": "other", "cores": "2"}]),
    "limits.against": (["runtime"], ["torch", "onnx"]),
    "limits.caches": (["hot"], ["cold"]),
    "choose": (["smallest", "fastest", "best"], []),
    "approval.mode": (["required"], ["none"]),
    "approval.expires_after_hours": ([72.0, 24.0], [73.0]),
    "approval.not_the_author": ([True], [False]),
    "approval.signed": ([True], [False]),
}


def policy(**dials: Any) -> Policy:
    """The pinned policy with some dials turned, by their dotted names. Values that no file could say together (``mode: none`` with a key) are let in."""
    values = {name: dict(value) if isinstance(value, dict) else value for name, value in PINNED.items()}
    for dial, value in dials.items():
        *group, name = dial.split(".")
        (values[group[0]] if group else values)[name] = value
    parts = {name: Policy.model_fields[name].annotation for name in values}
    models = {
        name: model for name, kind in parts.items() for model in (kind, *typing.get_args(kind)) if isinstance(model, type) and issubclass(model, BaseModel)
    }
    built = {name: models[name].model_construct(**value) if name in models else value for name, value in values.items()}
    return Policy.model_construct(**built)


def leaves(model: type[BaseModel], before: str = "") -> list[str]:
    """The dotted names of all fields, groups opened."""
    names = []
    for name, field in model.model_fields.items():
        options = typing.get_args(field.annotation) if isinstance(field.annotation, types.UnionType) else (field.annotation,)
        inner = next((kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        names += leaves(inner, f"{before}{name}.") if inner else [f"{before}{name}"]
    return names


def test_every_field_of_a_policy_has_a_direction() -> None:
    """A new field fails here until somebody says which of its values is the stricter one, and until the next test tries both sides."""
    assert list(DIRECTIONS) == leaves(Policy)
    assert SIDES.keys() == DIRECTIONS.keys()


@pytest.mark.parametrize("dial", DIRECTIONS)
def test_the_lax_side_of_a_dial_is_named_with_both_values_and_the_strict_side_passes(dial: str) -> None:
    pinned = policy()
    strict, lax = SIDES[dial]
    for value in strict:
        assert laxer_dials(policy(**{dial: value}), pinned) == []
    for value in lax:
        [laxer] = laxer_dials(policy(**{dial: value}), pinned)
        assert (laxer.dial, laxer.value, laxer.pinned) == (dial, value, dials_of(pinned)[dial])
        assert str(laxer).startswith(f"{dial} is ")


def test_a_whole_group_that_is_left_out_is_laxer_in_each_of_its_dials() -> None:
    without = policy().model_copy(update={"limits": None})
    assert [laxer.dial for laxer in laxer_dials(without, policy())] == [dial for dial in DIRECTIONS if dial.startswith("limits.")]
    assert laxer_dials(policy(), without) == []


def test_where_no_speed_is_asked_for_what_it_would_be_compared_with_is_no_dial() -> None:
    slow = policy(**{"limits.times_faster": None, "limits.times_faster_writing": None})
    assert laxer_dials(policy(**{"limits.against": "torch", "limits.caches": "cold"}), slow) == []


def test_where_nobody_is_asked_how_one_would_be_asked_is_no_dial() -> None:
    free = policy(**{"approval.mode": "none", "approval.not_the_author": False, "approval.signed": False, "approval.expires_after_hours": 1.0})
    assert laxer_dials(policy(), free) == []


@pytest.mark.parametrize("name", ["families", "ner", "pinned", "quickstart"])
def test_a_policy_is_as_strict_as_itself(name: str, root: Path) -> None:
    rules = read_policy(root / "policies" / f"{name}.yaml")
    assert laxer_dials(rules, rules) == []
