"""Why two keys of a step differ, told part by part."""

from __future__ import annotations

from typing import Any

import pytest

from recompress.integrity import fingerprint
from tasks.running.step_keys import differences, made_of, step_key

MODULES = ["recompress.gate.choose"]
FIRST: dict[str, Any] = {"modules": MODULES, "config": {"method": "distill", "config": {"epochs": 2}}, "inputs": ["a" * 64, "swa"], "seed": 0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config": {"method": "distill", "config": {"epochs": 5}}}, "epochs: 2 → 5"),
        ({"config": {"method": "distill", "config": {"epochs": 2, "rank": 4}}}, "rank: nothing → 4"),
        ({"inputs": ["b" * 64, "swa"]}, "the base model"),
        ({"inputs": ["c" * 64, "swa"]}, "an input"),
        ({"inputs": ["a" * 64, "swa", "yor"]}, "yor"),
        ({"inputs": ["a" * 64]}, "the order or the number of its inputs"),
        ({"seed": 3}, "seed: 0 → 3"),
        ({"modules": ["recompress.gate.groups"]}, "the code of recompress.gate.groups"),
    ],
)
def test_each_part_that_changes_is_named_and_no_other(change: dict[str, Any], reason: str) -> None:
    before, now = step_key("distill", **FIRST), step_key("distill", **(FIRST | change))
    assert before != now
    assert differences(made_of(before), made_of(now), {"b" * 64: "the base model"}) == [reason]


def test_a_key_is_the_one_that_the_fingerprint_makes() -> None:
    assert step_key("distill", **FIRST) == fingerprint.step_key("distill", **FIRST)
    assert differences(made_of(step_key("distill", **FIRST)), made_of(step_key("distill", **FIRST)), {}) == []


def test_a_package_of_another_version_is_named() -> None:
    now = made_of(step_key("distill", **FIRST))
    before = {**now, "versions": {**now["versions"], "torch": "1.0.0"}}
    assert differences(before, now, {}) == [f"torch 1.0.0 → {now['versions']['torch']}"]
