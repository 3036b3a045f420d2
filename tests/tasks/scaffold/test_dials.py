"""Dials that a first run can live with, by what the data and the base are."""

from __future__ import annotations

import pytest

from recompress.errors import DataRefused
from recompress.gate.statistics import detectable
from recompress.policy import Policy
from tasks.scaffold.dials import check_enough, dials_for, margin_for, margin_in_bits, shares


@pytest.mark.parametrize("rows", [250, 300, 400, 900, 3_000, 100_000])
def test_what_is_split_off_is_enough_to_judge_by(rows: int) -> None:
    parts = shares(rows, dev=True, test=True)
    assert rows * parts["test"] >= 100
    assert rows * parts["dev"] >= 30
    assert sum(parts.values()) < 0.61
    assert shares(rows, dev=False, test=False) == {}


def test_too_few_rows_are_refused_with_the_number() -> None:
    with pytest.raises(DataRefused, match="249 rows are too few: the gate judges at least 100 test examples, which is at most 40 %"):
        shares(249, dev=True, test=True)


def test_more_test_examples_allow_a_smaller_margin_and_none_is_out_of_reach() -> None:
    margins = [margin_for(tested) for tested in (100, 300, 1_600, 20_000)]
    assert margins == sorted(margins, reverse=True)
    assert margins[-1] == 0.02
    assert margins[0] <= 0.12
    for tested, margin in zip((100, 300, 1_600, 20_000), margins, strict=True):
        assert detectable((0.06 / tested) ** 0.5, 0.0125, 0.8, tested) <= margin, "what loses nothing passes 8 times in 10"
    assert all(round(200 * margin) == pytest.approx(200 * margin) for margin in margins)


def test_the_sequence_is_as_long_as_texts_are_and_as_the_base_takes() -> None:
    def of(lengths: list[int], positions: int = 512, **given: int) -> tuple[int, int, str]:
        dials = dials_for(**({"train": 500, "tested": 200, "layers": 6, "width": 384, "positions": positions, "lengths": lengths} | given))
        return dials.max_length, dials.epochs, dials.learning_rate

    assert of([5] * 99 + [400]) == (16, 5, "2.0e-4")
    assert of([40] * 200) == (48, 5, "2.0e-4")
    assert of([900] * 100) == (512, 5, "2.0e-4")
    assert of([900] * 100, positions=64) == (64, 5, "2.0e-4")
    assert of([40], train=50_000, width=768) == (48, 2, "5.0e-5")
    assert of([40], train=5_000, width=4_096) == (48, 3, "2.0e-5")


def test_the_budget_has_room_for_a_step() -> None:
    dials = dials_for(train=500, tested=100, lengths=[10], layers=1, width=32, positions=64)
    given = {
        "metric": "accuracy",
        "baseline": {"margin": dials.margin},
        "champion": {"margin": dials.margin},
        "loss_budget": dials.loss_budget,
        "choose": "best",
    }
    assert Policy.model_validate(given | {"min_examples": {"overall": dials.least_tested}}).min_examples.overall == 100
    assert dials.layers == 1


def test_a_student_keeps_a_third_of_the_layers_and_half_where_it_finds_answers() -> None:
    given = {"train": 500, "tested": 200, "lengths": [10], "layers": 12, "width": 384, "positions": 512}
    assert (dials_for(**given).layers, dials_for(**given, spans=True).layers) == (4, 6)
    assert dials_for(**given | {"train": 50_000}).student_epochs == 5


def test_what_is_left_after_preparation_is_counted_too() -> None:
    check_enough({"train": 30, "dev": 30, "test": 100})
    for split, least in (("train", 30), ("dev", 30), ("test", 100)):
        with pytest.raises(DataRefused, match=f"{least - 1} {split} examples are left .*, and {least} are needed"):
            check_enough({"train": 500, "dev": 500, "test": 500} | {split: least - 1})
    with pytest.raises(DataRefused, match="0 test examples"):
        check_enough({"train": 500, "dev": 60})


def test_a_model_of_language_is_given_a_margin_in_bits_per_byte() -> None:
    """107 stories could not rule out 0.0516 for int8, which lost 0.0043 on a model of 260,000 parameters: what next to nothing costs must pass."""
    assert [margin_in_bits(tested) for tested in (100, 107, 300, 1_000, 20_000)] == [0.08, 0.075, 0.045, 0.03, 0.025]
    given = {"train": 381, "tested": 107, "lengths": [300], "layers": 5, "width": 64, "positions": 512}
    assert dials_for(**given, in_bits=True).margin == margin_in_bits(107) != dials_for(**given).margin
