"""What an exported folder says of where it came from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.people.export import facts_of


@pytest.mark.parametrize(
    ("model", "told"), [("/home/asha/secret/base", "base"), ("owner/name", "owner/name"), ("base", "base"), ("package://words/model", "package://words/model")]
)
def test_where_a_base_lies_on_this_machine_is_nobody_elses_business(model: str, told: str) -> None:
    plan: Any = SimpleNamespace(model="topics", facts={"base_model": model}, digests={"base": "abc"})
    assert facts_of(plan, "3") == {"model": "topics", "version": "3", "base model": told, "base sha256": "abc"}
