"""Great Expectations as the judge: what it finds, and what it may not pass over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from recompress.benchmarks import Example
from recompress.data.checks import DataCheck, Rule, refusal, rules_for, suite_sha256, waive
from recompress.data.checks_page import checks_page
from recompress.data.observe import observe_rows
from recompress.data.prepare import prepare, write
from recompress.data.sources import RawPart, SourceSettings, raw_files, read_raw, read_settings_of
from recompress.data.splits import preparation
from recompress.errors import DataRefused
from recompress.integrity.digest import sha256_directory
from recompress.records import DatasetRef, Split
from tasks.data.bring import Brought
from tasks.data.validate import Judge, check_parts, validate

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_(constants|parse)' is deprecated:DeprecationWarning")  # Great Expectations imports them
SOURCE = SourceSettings(
    benchmark="token-classification", format="conll", source="raw", files="{slice}/{split}.txt", labels=("O", "B-X", "I-X"), malformed="leave_out"
)
RULES = rules_for("token-classification")


def sentences(slice_: str, split: str, count: int = 40) -> list[str]:
    return [f"{slice_}{split}{i} O\nasha B-X\n" for i in range(count)]


def put(folder: Path, broken: bool) -> Path:
    """Two slices of three splits; when ``broken``, with one of each defect in slice east."""
    files = {(slice_, split): sentences(slice_, split) for slice_ in ("east", "west") for split in ("train", "dev", "test")}
    if broken:
        files["east", "train"] += [
            "o\u0301ka O\n",
            "ki\u200bsumu O\n",
            "mouth\x9d O\n",
            "simba I-X\n",
            "eastdev1 O\nasha B-X\n",
            "leo O\n O\n",
            "bad\n",
            "lost\ufffd O\n",
        ]
        files["east", "train"] += ["twice O\n", "twice O\n", "both O\n", "both B-X\n", "easttest2 O\nasha O\n", "westtest3 O\nasha B-X\n"]
        files["east", "dev"] += ["easttest1 O\nasha B-X\n"]
        files["east", "test"] += ["none O\n"] * 40
    for (slice_, split), lines in files.items():
        path = folder / slice_ / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    return folder


def brought(root: Path, *, broken: bool) -> Brought:
    raw, prepared = put(root / "raw", broken), root / "prepared"
    prepared.mkdir()
    splits, counts = prepare(read_raw(raw, SOURCE), SOURCE)
    write(splits, counts, SOURCE, prepared)
    dataset = DatasetRef(
        name="toy",
        benchmark=SOURCE.benchmark,
        uri=str(prepared),
        sha256=sha256_directory(prepared),
        md5="p.dir",
        labels=("O", "B-X"),
        slices=("east", "west"),
        rows=preparation(prepared)["rows"],
    )
    return Brought(dataset, prepared, raw, "r.dir")


@pytest.fixture(scope="module")
def data_check(tmp_path_factory: pytest.TempPathFactory) -> DataCheck:
    return validate(brought(tmp_path_factory.mktemp("broken"), broken=True), SOURCE)


def test_each_defect_is_found_in_the_raw_data_where_it_is(data_check: DataCheck) -> None:
    failed = {(check.name, check.slice, check.split): check.observed for check in data_check.of("raw", "failed")}
    assert failed.pop(("entity_density", "east", "all")) > 1.5
    assert failed == {
        ("not_nfc", "east", "train"): 1,
        ("hidden_characters", "east", "train"): 1,
        ("broken_characters", "east", "train"): 2,
        ("invalid_bio", "east", "train"): 1,
        ("empty_words", "east", "train"): 1,
        ("malformed_lines", "east", "train"): 1,
        ("repeats", "east", "train"): 2,
        ("repeats", "east", "test"): 39,
        ("conflicts", "east", "train"): 1,
        ("in_train", "east", "dev"): 1,
        ("in_train", "east", "test"): 1,
        ("in_train_otherwise", "east", "test"): 1,
        ("in_test", "east", "dev"): 1,
        ("in_train_elsewhere", "west", "test"): 1,
    }


def test_prepared_data_is_free_of_them(data_check: DataCheck) -> None:
    assert data_check.of("prepared", "failed") == []
    assert data_check.passed
    assert refusal(data_check) == ""
    assert len(data_check.of("prepared")) == 2 * (3 * 18 + 3)
    assert data_check.tool.startswith("Great Expectations 1.")
    assert data_check.suite_sha256 == suite_sha256(RULES)
    assert "none failed, 0 waived; 1" in data_check.summary


def test_the_record_goes_through_json_and_onto_the_page(data_check: DataCheck) -> None:
    assert DataCheck.model_validate(json.loads(json.dumps(data_check.as_json()))) == data_check
    assert "hidden_characters" in checks_page(data_check)


def test_clean_data_passes_and_a_waiver_for_it_is_refused(tmp_path: Path) -> None:
    data = brought(tmp_path, broken=False)
    record = validate(data, SOURCE)
    assert record.of("raw", "failed") == []
    with pytest.raises(DataRefused, match="matches no failed check"):
        validate(data, SOURCE, [SimpleNamespace(check="repeats", slice=None, reason="not needed at all")])


def test_rows_that_were_lost_since_preparation_are_found(tmp_path: Path) -> None:
    data = brought(tmp_path, broken=False)
    record = json.loads((data.prepared / "preparation.json").read_text())
    record["counts"]["dev"]["west"]["kept"] += 2
    (data.prepared / "preparation.json").write_text(json.dumps(record))
    failed = validate(data, SOURCE).of("prepared", "failed")
    assert [(check.name, check.slice, check.split, check.observed) for check in failed] == [("rows_lost", "west", "dev", 2.0)]


def test_too_few_rows_fail(tmp_path: Path) -> None:
    parts = [RawPart("train", "x", [Example((f"leo{i}",), ("O",), "x") for i in range(29)])]
    failed = [check for check in check_parts(parts, SOURCE, RULES, "prepared") if check.status == "failed"]
    assert [(check.name, check.observed, check.limit) for check in failed] == [("rows", 29.0, 30.0)]


def part(split: Split = "train") -> RawPart:
    return RawPart(split, "x", [Example((f"leo{i}",), ("O",), "x") for i in range(40)])


def test_an_empty_suite_is_refused() -> None:
    with pytest.raises(DataRefused, match="demands nothing passes everything"):
        check_parts([part()], SOURCE, [], "prepared")
    with pytest.raises(DataRefused, match="0 rules on 40 rows show nothing"):
        Judge().check(observe_rows([part()], SOURCE), [], "prepared")


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(DataRefused, match="the raw data is empty"):
        check_parts([], SOURCE, RULES, "raw")
    with pytest.raises(DataRefused, match="the raw data is empty"):
        check_parts([RawPart("train", "x")], SOURCE, RULES, "raw")
    rules = [rule for rule in RULES if rule.table == "rows"]
    with pytest.raises(DataRefused, match="rules on 0 rows show nothing"):
        Judge().check(observe_rows([part()], SOURCE).iloc[:0], rules, "raw")


def test_a_check_that_errors_is_refused() -> None:
    rules = [*(rule for rule in RULES if rule.table == "rows"), Rule("no_such_column", "", "")]
    with pytest.raises(DataRefused, match="check 'no_such_column' could not be evaluated on the prepared data"):
        check_parts([part()], SOURCE, rules, "prepared")
    table = observe_rows([part()], SOURCE).astype({"repeats": object})
    table.loc[3, "repeats"] = "three"
    with pytest.raises(DataRefused, match="check 'repeats' could not be evaluated"):
        Judge().check(table, [rule for rule in RULES if rule.table == "rows"], "raw")


def test_missing_values_do_not_pass() -> None:
    table = observe_rows([part()], SOURCE).astype({"repeats": float})
    table.loc[3, "repeats"] = float("nan")
    with pytest.raises(DataRefused, match="check 'repeats' .* 1 of 40 values are missing"):
        Judge().check(table, [rule for rule in RULES if rule.table == "rows"], "raw")


def test_a_table_with_columns_that_no_rule_speaks_of_is_refused() -> None:
    rules = [rule for rule in RULES if rule.table == "rows"]
    with pytest.raises(DataRefused, match="the rules speak of"):
        Judge().check(observe_rows([part()], SOURCE), rules[1:], "raw")


def test_limits_are_inclusive() -> None:
    rules = [replace(rule, limit=2.0) if rule.name == "repeats" else rule for rule in RULES if rule.table == "rows"]
    table = observe_rows([part()], SOURCE)
    table.loc[:1, "repeats"] = 2
    assert {check.status for check in Judge().check(table, rules, "raw")} == {"passed"}
    table.loc[2, "repeats"] = 3
    assert [check.name for check in Judge().check(table, rules, "raw") if check.status == "failed"] == ["repeats"]


@pytest.mark.long
@pytest.mark.slow
def test_every_defect_that_is_known_of_the_real_data_is_found_with_its_count(root: Path, mirror: Path) -> None:
    def raw(name: str) -> DataCheck:
        settings = read_settings_of(root, name)
        assert raw_files(mirror / name, settings)
        checks = check_parts(read_raw(mirror / name, settings), settings, rules_for(settings.benchmark), "raw")
        digest = "0" * 64
        return DataCheck(
            dataset=name,
            benchmark=settings.benchmark,
            raw_md5="",
            prepared_md5="",
            prepared_sha256=digest,
            suite_sha256=digest,
            tool="",
            checks=waive(checks, ()),
        )

    ner = raw("masakhaner2")
    in_test = {"ibo": 338, "xho": 254, "hau": 197, "yor": 37, "swa": 12, "kin": 9, "nya": 7, "sna": 4, "twi": 3, "bam": 2, "tsn": 2}
    assert {check.slice: check.observed for check in ner.checks if (check.name, check.split) == ("in_train", "test") and check.observed} == in_test
    assert ner.found("in_train", split="test") == 865
    assert ner.found("in_train_otherwise", split="test") == 101
    assert ner.found("in_train", split="dev") == 139
    assert ner.found("in_train", split="dev", slice_="ibo") == 96
    assert ner.found("not_nfc") == 193_915
    assert all(ner.found("not_nfc", split=split, slice_="yor") > 10_000 for split in ("train", "dev", "test"))
    for slice_ in ("mos", "fon"):
        assert ner.found("not_nfc", split="train", slice_=slice_) > 3000
        assert ner.found("not_nfc", split="dev", slice_=slice_) + ner.found("not_nfc", split="test", slice_=slice_) <= 2
    assert ner.found("empty_words") == ner.found("empty_words", split="train", slice_="xho") == 2
    assert ner.found("invalid_bio") == 52
    assert ner.found("broken_characters") == 12
    assert {check.slice for check in ner.checks if check.name == "broken_characters" and check.status == "failed"} == {"ewe", "pcm", "hau", "lug"}
    assert {"kin", "twi", "mos", "zul", "wol"} <= {check.slice for check in ner.checks if check.name == "hidden_characters" and check.status == "failed"}
    assert ner.found("repeats", split="train") == 1065
    assert ner.found("conflicts") == 41
    assert ner.found("malformed_lines") == 0
    dense = {check.slice: check.observed for check in ner.checks if check.name == "entity_density"}
    assert dense["yor"] == pytest.approx(1.69 / 1.01, rel=0.01)
    assert dense["hau"] == pytest.approx(2.52 / 1.42, rel=0.01)

    tweets = raw("afrisenti")
    assert tweets.found("in_train", split="test", slice_="pcm") == tweets.found("in_train", split="test") == 926
    assert tweets.found("in_train_otherwise", split="test", slice_="pcm") == 118
    assert {name: tweets.found("in_train", split="dev", slice_=name) for name in ("pcm", "hau", "yor", "swa")} == {"pcm": 258, "hau": 215, "yor": 237, "swa": 3}
    assert tweets.found("repeats", split="train", slice_="pcm") == 512
    assert [check.slice for check in tweets.checks if check.name == "label_balance" and check.status == "failed"] == ["pcm"]
    assert tweets.found("label_balance", slice_="pcm") == pytest.approx(431 / 4154 - 72 / 5121, abs=1e-6)

    assert raw("wikitext2").found("in_train", split="test") == 43
    assert {check.name for check in raw("lafand").checks if check.status == "failed"} == {"not_nfc", "hidden_characters", "repeats"}


@pytest.mark.slow
def test_no_unlabelled_sentence_stands_in_a_test_split(root: Path, mirror: Path) -> None:
    tagged, text = read_settings_of(root, "masakhaner2"), read_settings_of(root, "lafand")
    tests = {(part.slice, " ".join(example.words)) for part in read_raw(mirror / "masakhaner2", tagged) if part.split == "test" for example in part.examples}
    for part in read_raw(mirror / "lafand", text):
        assert not [example for example in part.examples if (part.slice, " ".join(example.words[0].split())) in tests]
