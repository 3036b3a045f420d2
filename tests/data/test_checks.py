"""What is seen in data, what is demanded of it, and who may waive it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recompress.benchmarks import Example
from recompress.data.checks import RULES, Check, DataCheck, as_table, refusal, rules_for, suite_sha256, waive
from recompress.data.checks_page import checks_page
from recompress.data.formats.readers import Problem
from recompress.data.observe import COUNTED, observe_balance, observe_rows, observe_sizes
from recompress.data.sources import RawPart, SourceSettings
from recompress.errors import DataRefused
from recompress.records import Split

TAGGED = SourceSettings(benchmark="token-classification", format="conll", source="raw", files="{slice}/{split}.txt", labels=("O", "B-X", "I-X", "B-Y"))
TEXTS = SourceSettings(benchmark="text-classification", format="tsv", source="raw", files="{slice}/{split}.tsv")


def tagged(split: Split, slice_: str, *sentences: str) -> RawPart:
    examples = []
    for sentence in sentences:
        pairs = [pair.rsplit("/", 1) for pair in sentence.split(" ")]
        examples.append(Example(tuple(word for word, _ in pairs), tuple(tag for _, tag in pairs), slice_))
    return RawPart(split, slice_, examples)


def totals(parts: list[RawPart], settings: SourceSettings = TAGGED) -> dict[str, dict[str, int]]:
    """Non-zero counts by split."""
    table = observe_rows(parts, settings)
    sums = table.groupby("split")[list(COUNTED)].sum()
    return {str(split): {name: int(count) for name, count in row.items() if count} for split, row in sums.iterrows()}


def test_clean_data_shows_nothing() -> None:
    assert totals([tagged("train", "x", "leo/O asha/B-X", "na/O"), tagged("test", "x", "kesho/O")]) == {"test": {}, "train": {}}


def test_characters_are_counted_in_words() -> None:
    assert totals([tagged("train", "x", "o\u0301/O o\u0301/O ki\u200bsumu/O", "mouth\x9d/O lost\ufffd/O na/O")]) == {
        "train": {"not_nfc": 2, "hidden_characters": 1, "broken_characters": 2}
    }


def test_labels_that_are_missing_unknown_or_continue_nothing() -> None:
    part = tagged("train", "x", "a/I-X b/I-X c/O", "d/B-Y e/I-X", "f/B-Z")
    part.examples.append(Example(("g", "h"), ("O",), "x"))
    assert totals([part]) == {"train": {"invalid_bio": 2, "unknown_labels": 1, "missing_labels": 1}}


def test_problems_of_the_file_are_counted_with_its_split() -> None:
    part = tagged("train", "x", "a/O", "b/O")
    part.problems = [Problem("malformed_lines", Path("f"), 3, ""), Problem("empty_words", Path("f"), 4, ""), Problem("byte_order_marks", Path("f"), 1, "")]
    part.examples.append(Example(("", " "), ("O", "O"), "x"))
    assert totals([part]) == {"train": {"malformed_lines": 1, "empty_words": 3}}


def test_repeats_are_later_ones_and_a_conflict_is_one_text() -> None:
    assert totals([tagged("train", "x", "a/O", "a/B-X", "a/O", "b/O", "b/O")]) == {"train": {"repeats": 3, "conflicts": 1}}


def test_leaks_within_a_slice_and_from_another_one() -> None:
    parts = [
        tagged("train", "x", "a/O", "a/B-X", "b/O"),
        tagged("train", "y", "c/O"),
        tagged("dev", "x", "b/O", "t/O"),
        tagged("test", "x", "a/O", "b/O", "c/O", "t/O", "C/O ./O"),
    ]
    counts = totals(parts)
    assert counts["test"] == {"in_train": 2, "in_train_otherwise": 1, "in_train_nearly": 1, "in_train_elsewhere": 1}, "the last labelling in train counts"
    assert counts["dev"] == {"in_train": 1, "in_test": 2}


def test_headings_that_two_articles_share_are_no_leak() -> None:
    lines = SourceSettings(benchmark="language-modelling", format="lines", source="raw", files="{split}.txt", running_text=True)
    rows = [Example((" = History = ",)), Example(("one long sentence that says something",)), Example((" = History = ",))]
    assert totals([RawPart("train", "all", rows), RawPart("test", "all", rows)], lines) == {"train": {}, "test": {"in_train": 1}}


def test_sizes_and_what_is_lost() -> None:
    parts = [tagged("train", "x", "a/O", "b/O"), tagged("test", "x", "c/O")]
    assert observe_sizes(parts)["rows_lost"].tolist() == [0, 0]
    table = observe_sizes(parts, {("train", "x"): 5, ("dev", "x"): 1, ("test", "x"): 1})
    assert table.to_dict("list") == {"split": ["dev", "test", "train"], "slice": ["x"] * 3, "rows": [0, 1, 2], "rows_lost": [1, 0, 3]}


def test_balance_of_entities_and_of_labels() -> None:
    parts = [tagged("train", "x", "a/B-X b/B-Y", "c/B-X d/B-X"), tagged("test", "x", "e/B-X f/I-X", "g/O", "h/O", "i/B-Y")]
    [row] = observe_balance(parts, TAGGED).to_dict("records")
    assert row == {"split": "all", "slice": "x", "entity_density": 4.0, "label_balance": 0.25, "labels_train_lacks": 0}
    texts = [RawPart("train", "x", [Example(("a",), ("p",))] * 3), RawPart("test", "x", [Example(("b",), ("p",)), Example(("c",), ("q",))])]
    [row] = observe_balance(texts, TEXTS).to_dict("records")
    assert (row["label_balance"], row["labels_train_lacks"]) == (0.5, 1)
    assert observe_balance([tagged("train", "x", "a/O")], TAGGED).empty


def test_the_worst_label_counts_and_an_entity_once_however_long_it_is() -> None:
    texts = [RawPart(split, "x", [Example((f"{i}",), (label,)) for i, label in enumerate(labels)]) for split, labels in (("train", "ppqr"), ("test", "prrr"))]
    assert observe_balance(texts, TEXTS)["label_balance"].tolist() == [0.5], "p and q by a quarter, r by a half"
    parts = [tagged("train", "x", "a/B-X b/I-X c/I-X d/B-Y"), tagged("test", "x", "e/B-X f/B-Y")]
    assert observe_balance(parts, TAGGED)[["entity_density", "label_balance"]].to_numpy().tolist() == [[1.0, 0.0]]


def test_a_split_without_entities_is_far_off() -> None:
    parts = [tagged("train", "x", "a/B-X"), tagged("test", "x", "b/O")]
    assert observe_balance(parts, TAGGED)["entity_density"].tolist() == [1000.0]


def check(name: str, **more: Any) -> Check:
    return Check(**({"name": name, "stage": "prepared", "split": "all", "slice": "x", "status": "failed", "observed": 2.0, "limit": 1.5} | more))


def waiver(name: str, slice_: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(check=name, slice=slice_, reason="known and harmless")


def test_a_waiver_covers_what_it_names_and_nothing_else() -> None:
    checks = [check("entity_density"), check("entity_density", slice="y"), check("repeats"), check("entity_density", stage="raw")]
    judged = waive(checks, [waiver("entity_density", "x")])
    assert [result.status for result in judged] == ["waived", "failed", "failed", "failed"]
    assert judged[0].reason == "known and harmless"
    assert [result.status for result in waive(checks, [waiver("entity_density")])] == ["waived", "waived", "failed", "failed"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (waiver("entity_densty"), "unknown check 'entity_densty'.*did you mean 'entity_density'"),
        (waiver("repeats"), "the waiver of 'repeats' matches no failed check"),
        (waiver("entity_density", "z"), "in slice 'z' matches no failed check"),
        (waiver("in_train"), "matches no failed check"),
    ],
)
def test_a_waiver_that_fits_nothing_is_refused(wrong: SimpleNamespace, words: str) -> None:
    with pytest.raises(DataRefused, match=words):
        waive([check("entity_density"), check("in_train", stage="raw")], [wrong])


def record(*checks: Check) -> DataCheck:
    digest = "0" * 64
    return DataCheck(
        dataset="toy",
        benchmark="token-classification",
        raw_md5="r",
        prepared_md5="p",
        prepared_sha256=digest,
        suite_sha256=digest,
        tool="judge 1",
        checks=checks,
    )


def test_a_refusal_names_check_slice_value_limit_and_way_out() -> None:
    passed = record(check("repeats", status="passed"), check("repeats", stage="raw"))
    assert (passed.passed, refusal(passed)) == (True, "")
    failed = record(*(check("entity_density", slice=name) for name in "abcd"))
    assert not failed.passed
    assert "entity_density in a/all: 2 (limit 1.5)" in refusal(failed)
    assert "and 1 more" in refusal(failed)
    assert "waive:" in refusal(failed)


def test_the_suite_has_a_digest_that_follows_its_limits_only() -> None:
    rules = rules_for("token-classification")
    assert suite_sha256(rules) == suite_sha256(rules_for("token-classification")) != suite_sha256(rules_for("text-classification"))
    assert suite_sha256([*rules[:-1], replace(rules[-1], limit=0.2)]) != suite_sha256(rules)
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_counts_of_the_table_add_up_and_ratios_do_not() -> None:
    data_check = record(
        check("repeats", stage="raw", observed=3.0),
        check("repeats", stage="raw", slice="y", observed=4.0),
        check("entity_density", stage="raw"),
        check("entity_density", stage="raw", slice="y", observed=1.75),
        check("entity_density", slice="y"),
    )
    lines = {line["rule"].name: line for line in as_table(data_check)}
    assert (lines["repeats"]["raw"], lines["repeats"]["prepared"]) == (7.0, None)
    assert (lines["entity_density"]["raw"], lines["entity_density"]["status"]) == (2.0, "failed")
    assert data_check.found("repeats") == 7.0
    assert data_check.found("repeats", slice_="y") == 4.0


def test_the_page_shows_both_forms_the_waivers_and_loads_nothing() -> None:
    shown = record(
        check("repeats", stage="raw", split="train", observed=1234.0),
        check("repeats", split="train", observed=0.0, status="passed"),
        *waive([check("entity_density", slice="<b>")], [waiver("entity_density")]),
    )
    page = checks_page(shown)
    assert "1,234" in page
    assert "known and harmless" in page
    assert "raw train" in page
    assert "prepared train" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    for outside in ("<script", "http:", "https:", "<link", "url(", "@import", "src="):
        assert outside not in page
