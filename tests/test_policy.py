"""What a policy may say, and that everything else is refused by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recompress.errors import InputError
from recompress.policy import Limits, Policy, read_policy
from tests.gate.cases import DIALS

GOOD = """metric: f1
baseline: {margin: 0.03, slices: {swa: 0.05}}
champion:
  margin: 0.02
loss_budget: 0.1
choose: smallest
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["quickstart", "ner"])
def test_the_policies_of_the_house_can_be_read(root: Path, name: str) -> None:
    policy = read_policy(root / "policies" / f"{name}.yaml")
    assert policy.first_promotion == "allowed"
    assert policy.limits is not None
    assert policy.limits.times_smaller == 3.5


def test_a_dial_that_came_later_leaves_the_digest_of_an_older_policy_alone(tmp_path: Path) -> None:
    before = read_policy(written(tmp_path, GOOD))
    assert before.finalists == 3
    assert "finalists" not in before.as_json()
    assert before.sha256 == "2462307d475b35978c91fce585cf933d0ec991b3310382a4a90a69367d34875f"
    assert read_policy(written(tmp_path, GOOD + "finalists: 3\n")).sha256 == before.sha256
    more = read_policy(written(tmp_path, GOOD + "finalists: 4\n"))
    assert more.as_json() == before.as_json() | {"finalists": 4}
    assert more.sha256 != before.sha256
    for number in ("0", "21", "2.5"):
        with pytest.raises(InputError, match="finalists"):
            read_policy(written(tmp_path, GOOD + f"finalists: {number}\n"))


def test_ner_judges_every_language_of_its_recipe(root: Path) -> None:
    policy = read_policy(root / "policies" / "ner.yaml")
    assert set(policy.baseline.slices or ()) == set(policy.champion.slices or ()) == {"swa", "yor", "hau"}


def test_what_is_left_out_is_strict(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, GOOD))
    assert (policy.first_promotion, policy.confidence, policy.power, policy.draws, policy.approval.mode) == ("refused", 0.95, 0.8, 10_000, "none")


REFUSED = {
    "NaN margin": (("margin: 0.02", "margin: .nan"), "champion.margin is a share in (0, 1), got NaN", 4),
    "infinite margin": (("margin: 0.02", "margin: .inf"), "champion.margin is a share in (0, 1), got Infinity", 4),
    "negative margin": (("margin: 0.02", "margin: -0.02"), "champion.margin is a share in (0, 1), got -0.02", 4),
    "margin of nothing": (("margin: 0.02", "margin: 0"), "champion.margin is a share in (0, 1), got 0", 4),
    "margin of everything": (("margin: 0.02", "margin: 1"), "champion.margin is a share in (0, 1), got 1", 4),
    "margin in words": (("margin: 0.02", "margin: some"), "champion.margin is a share in (0, 1), got 'some'", 4),
    "margin as text": (("margin: 0.02", "margin: '0.02'"), "champion.margin is a share in (0, 1), got '0.02'", 4),
    "empty margin": (("margin: 0.02", "margin:"), "champion.margin is a share in (0, 1), got null", 4),
    "no margin": (("  margin: 0.02\n", "  slices: {swa: 0.02}\n"), "champion.margin is missing", 3),
    "bad slice": (("{swa: 0.05}", "{swa: 1.5}"), "baseline.slices.swa is a share in (0, 1), got 1.5", 2),
    "empty slices": (("{swa: 0.05}", "{}"), "baseline.slices should name at least one slice", 2),
    "slices as a list": (("{swa: 0.05}", "[swa]"), 'baseline.slices is keys and values, got ["swa"]', 2),
    "no comparison": (("baseline: {margin: 0.03, slices: {swa: 0.05}}", "baseline: {}"), "baseline.margin is missing", 2),
    "typo": (("loss_budget", "los_budget"), "did you mean 'loss_budget'", 5),
    "unknown rule": (("smallest", "luckiest"), "choose is 'smallest', 'fastest' or 'best', got 'luckiest'", 6),
    "budget below a step": (("loss_budget: 0.1", "loss_budget: 0.01"), "loss_budget should be at least champion.margin (0.02)", 5),
    "metric with a slash": (("metric: f1", "metric: ../f1"), "metric", 1),
    "metric twice": (("metric: f1", "metric: f1\nmetric: f1"), "given twice", 2),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_key_and_line(tmp_path: Path, name: str) -> None:
    (old, new), message, line = REFUSED[name]
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError) as refusal:
        read_policy(path)
    assert message in str(refusal.value)
    assert f"({path}:{line})" in str(refusal.value)


ADDED = {
    "limits: {}": "limits should hold at least one limit",
    "limits: {size_bytes: null}": "limits should hold at least one limit",
    "limits: {size_bytes: -1}": "limits.size_bytes is a whole number above 0, got -1",
    "limits: {size_bytes: 1.5}": "limits.size_bytes is a whole number above 0, got 1.5",
    "limits: {times_smaller: .nan}": "limits.times_smaller is a number above 0, got NaN",
    "limits: {size_byte: 3}": "did you mean 'size_bytes'",
    "confidence: 0.5": "confidence is a share in [0.9, 1), got 0.5",
    "confidence: 1": "confidence is a share in [0.9, 1), got 1",
    "confidence: 0.9999": "draws",
    "power: 0.1": "power is a share in [0.5, 1), got 0.1",
    "draws: 10": "draws is a whole number from 1,000 to 1,000,000, got 10",
    "draws: true": "draws is a whole number from 1,000 to 1,000,000, got true",
    "min_examples: {overall: 0}": "min_examples.overall is a whole number of at least 100, got 0",
    "min_examples: {per_slice: 1}": "min_examples.per_slice is a whole number of at least 50, got 1",
    "first_promotion: yes": "first_promotion is 'allowed' or 'refused', got true",
    "seed: -1": "seed is a whole number of at least 0, got -1",
    "approval: maybe": "approval.mode is 'none' or 'required', got 'maybe'",
    "approval: {signed: true}": "approval says who may approve, but mode is none",
    "approval: {mode: required, expires_after_hours: 0}": "approval.expires_after_hours is a number",
    "approval: {mode: required, expires_after_hours: .inf}": "approval.expires_after_hours is a number",
}


@pytest.mark.parametrize("line", ADDED)
def test_refused_addition(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, GOOD + line + "\n")
    with pytest.raises(InputError) as refusal:
        read_policy(path)
    assert ADDED[line] in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["metric", "baseline", "champion", "loss_budget", "choose"])
def test_what_a_policy_cannot_do_without(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        Policy.model_validate({name: value for name, value in DIALS.items() if name != key})


@pytest.mark.parametrize("text", ["", "# nothing", "[]", "metric", "a: *b"])
def test_no_policy_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        read_policy(written(tmp_path, text))


def test_the_confidence_is_that_of_a_bound_on_one_side() -> None:
    """At 0.95, one candidate in twenty that is exactly at the margin passes by chance: not one in forty."""
    assert Policy.model_validate(DIALS | {"confidence": 0.95}).alpha == pytest.approx(0.05)
    assert Policy.model_validate(DIALS | {"confidence": 0.9}).alpha == pytest.approx(0.1)


def test_more_slices_need_more_draws(tmp_path: Path) -> None:
    slices = ", ".join(f"l{i}: 0.05" for i in range(10))
    text = GOOD.replace("swa: 0.05", slices)
    with pytest.raises(InputError, match=r"draws should be at least 2,000 at this confidence with 10 slices"):
        read_policy(written(tmp_path, text + "draws: 1900\n"))
    assert read_policy(written(tmp_path, text + "draws: 2001\n")).draws == 2001


def test_approval_in_one_word_and_in_full(tmp_path: Path) -> None:
    short = read_policy(written(tmp_path, GOOD + "approval: required\n"))
    full = read_policy(written(tmp_path, GOOD + "approval: {mode: required}\n"))
    assert short.sha256 == full.sha256
    assert (short.approval.mode, short.approval.expires_after_hours, short.approval.not_the_author) == ("required", 72, False)


def test_the_digest_is_of_what_is_said_not_of_how(tmp_path: Path) -> None:
    usual = read_policy(written(tmp_path, GOOD)).sha256
    lines = GOOD.replace("champion:\n  margin: 0.02", "champion: {margin: 2.0e-2}").splitlines()
    assert read_policy(written(tmp_path, "# a comment\n" + "\n".join(reversed(lines)) + "\nseed: 0\n")).sha256 == usual


CHANGES = st.one_of(
    st.fixed_dictionaries({"loss_budget": st.floats(0.06, 0.9)}),
    st.fixed_dictionaries({"confidence": st.floats(0.9, 0.97)}),
    st.fixed_dictionaries({"seed": st.integers(0, 1 << 30)}),
    st.fixed_dictionaries({"draws": st.integers(1001, 100_000)}),
    st.fixed_dictionaries({"choose": st.sampled_from(["smallest", "fastest", "best"])}),
    st.fixed_dictionaries({"first_promotion": st.sampled_from(["allowed", "refused"])}),
    st.fixed_dictionaries({"metric": st.sampled_from(["accuracy", "macro_f1"])}),
    st.fixed_dictionaries({"baseline": st.fixed_dictionaries({"margin": st.floats(0.001, 0.9)})}),
    st.fixed_dictionaries({"limits": st.fixed_dictionaries({"size_bytes": st.integers(1, 1 << 40)})}),
)


@given(CHANGES, CHANGES)
def test_policies_have_one_digest_when_they_say_the_same(one: dict[str, object], other: dict[str, object]) -> None:
    first, second = Policy.model_validate(DIALS | one), Policy.model_validate(DIALS | other)
    assert (first.sha256 == second.sha256) == (first == second)


def test_a_policy_keeps_its_digest_when_dials_are_added_later() -> None:
    """The digest that an earlier version recorded: another one would call every recipe's policy edited on the day on which the tool is renewed."""
    said = {
        "metric": "f1",
        "baseline": {"margin": 0.05},
        "champion": {"margin": 0.05},
        "loss_budget": 0.2,
        "choose": "smallest",
        "limits": {"times_faster": 1.5},
    }
    assert Policy.model_validate(said).sha256 == "63e299309b21de4cbc8097869db8f067f5d7e499e5a213c31a7d412cf06afc5d"
    assert Policy.model_validate(said | {"at_least": 0.5}).sha256 != Policy.model_validate(said).sha256
    assert Policy.model_validate(said | {"limits": {"times_faster": 1.5, "steady_memory_bytes": 1}}).sha256 != Policy.model_validate(said).sha256


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"latency_p95_ms": 20.0}, "name it under machine"),
        ({"throughput_per_s": 20.0, "machine": {}}, "name it under machine"),
        ({"times_faster": 2.0, "machine": {"cores": "2"}}, "neither is there"),
    ],
)
def test_an_absolute_limit_names_its_machine(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Limits.model_validate(limits)


@pytest.mark.parametrize(
    ("metric", "floor", "message"),
    [
        ("accuracy", 0.0, "above 0"),
        ("f1", -0.5, "above 0"),
        ("negative_bits_per_byte", 0.5, "below 0, because no value"),
        ("negative_bits_per_byte", 0.0, "below 0"),
        ("accuracy", 1.0, "less than 1"),
        ("accuracy", float("nan"), "finite"),
        ("negative_bits_per_byte", float("-inf"), "finite"),
    ],
)
def test_a_floor_that_nothing_can_reach_or_miss_is_refused(metric: str, floor: float, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Policy.model_validate(DIALS | {"metric": metric, "at_least": floor})


def test_a_metric_that_is_negative_has_a_floor_too() -> None:
    assert Policy.model_validate(DIALS | {"metric": "negative_bits_per_byte", "at_least": -1.4}).at_least == -1.4


def test_what_a_ratio_is_beside_is_said_where_there_is_one_and_changes_no_older_policy(tmp_path: Path) -> None:
    plain = Limits(times_faster=2.0)
    assert plain.model_dump(mode="json") == {"size_bytes": None, "times_smaller": None, "times_faster": 2.0, "peak_memory_bytes": None}
    assert (plain.against, plain.caches) == ("runtime", "hot")
    said = Limits(times_faster=2.0, against="torch", caches="cold").model_dump(mode="json")
    assert (said["against"], said["caches"]) == ("torch", "cold")
    assert Limits(times_faster_writing=2.0, against="torch").against == "torch"
    for alone in ({"against": "torch"}, {"caches": "cold", "size_bytes": 1}, {"caches": "cold", "times_faster_writing": 2.0}):
        with pytest.raises(ValueError, match=r"says what times_faster( and times_faster_writing)? compares with, and that is not there"):
            Limits.model_validate(alone)
