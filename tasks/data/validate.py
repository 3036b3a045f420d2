"""Data checked by Great Expectations: the one module that knows it.

What is looked at and what is allowed stands in ``recompress.data``; here every rule becomes an expectation over the table of a slice of a split. An empty suite,
an empty table, a missing value and an expectation that could not be evaluated are refusals: Great Expectations passes over the first three, and calls the last a
failure like any other.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from recompress.data.checks import Check, DataCheck, Rule, Stage, Status, WaiverLike, refusal, rules_for, suite_sha256, waive
from recompress.data.checks_page import checks_page
from recompress.data.observe import observe_balance, observe_rows, observe_sizes, read_prepared
from recompress.data.sources import RawPart, SourceSettings, read_raw, read_settings_of
from recompress.data.splits import preparation
from recompress.errors import DataRefused
from recompress.integrity.digest import canonical_json
from tasks.data.bring import Brought, bring
from tasks.data.pins import pins_of
from tasks.running.line import line
from tasks.running.step_keys import step_key

if TYPE_CHECKING:
    import pandas as pd

    from recompress.recipe import Waiver
    from recompress.records import DatasetRef
    from tasks.running.recompression import Recompression

SCHEMA = "schema"
RESULT_FORMAT = {"result_format": "COMPLETE", "unexpected_index_column_names": ["split", "slice"], "return_unexpected_index_query": False}
__all__ = ["Check", "DataCheck", "check_data", "checks_page", "validate"]


def validate(brought: Brought, source: SourceSettings, waivers: Sequence[WaiverLike] = ()) -> DataCheck:
    """Check the raw and the prepared form of a data set, in the slices that were brought.

    Raises ``DataRefused`` when something cannot be checked, or when a waiver fits nothing. A check that fails is no error here: see ``DataCheck.passed``.
    """
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations

    from recompress.data.together import what_bounds_mean

    dataset = brought.dataset
    rules = rules_for(dataset.benchmark)
    prepared = read_prepared(brought.prepared, dataset.slices)
    raw = read_raw(brought.raw, source, slices=dataset.slices)
    rows = {
        (split, name): tally["kept"]
        for split, slices in preparation(brought.prepared)["counts"].items()
        for name, tally in slices.items()
        if name in dataset.slices
    }
    checks = [*check_parts(raw, source, rules, "raw"), *check_parts(prepared, source, rules, "prepared", rows=rows)]
    return DataCheck(
        dataset=dataset.name,
        benchmark=dataset.benchmark,
        raw_md5=brought.raw_md5,
        prepared_md5=dataset.md5,
        prepared_sha256=dataset.sha256,
        suite_sha256=suite_sha256(rules),
        tool=f"Great Expectations {great_expectations.__version__}",
        checks=waive(checks, waivers),
        together=what_bounds_mean([example for part in prepared if part.split == "test" for example in part.examples]),
    )


def check_parts(
    parts: Sequence[RawPart], source: SourceSettings, rules: Sequence[Rule], stage: Stage, rows: dict[tuple[str, str], int] | None = None
) -> list[Check]:
    """Every rule on every slice of every split, and on every slice's comparison of its splits. ``rows`` says how many rows each must have.

    Raises ``DataRefused`` when the suite or the data is empty, or when a rule could not be evaluated.
    """
    if not rules:
        raise DataRefused(f"no rule is set for the {stage} data: a check that demands nothing passes everything")
    if not any(part.examples for part in parts):
        raise DataRefused(f"the {stage} data is empty: there is nothing to check")
    tables = {"rows": observe_rows(parts, source), "sizes": observe_sizes(parts, rows), "balance": observe_balance(parts, source)}
    judge = Judge()
    return [check for name, table in tables.items() if not table.empty for check in judge.check(table, [rule for rule in rules if rule.table == name], stage)]


class Judge:
    """An ephemeral context of Great Expectations, with no page, no file and no call home."""

    def __init__(self) -> None:
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        for name in [name for name in logging.root.manager.loggerDict if name.startswith("great_expectations")]:
            logging.getLogger(name).setLevel(logging.WARNING)  # each has a level of its own, and tells of its temporary folders
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = self.context.data_sources.add_pandas("data").add_dataframe_asset("table")
        self.batches = asset.add_batch_definition_whole_dataframe("whole")

    def check(self, table: pd.DataFrame, rules: Sequence[Rule], stage: Stage) -> list[Check]:
        """The rules on one table, for each slice of each split in it. Raises ``DataRefused`` as ``check_parts`` does."""
        import great_expectations as gx

        if table.empty or not rules:
            raise DataRefused(f"the {stage} data: {len(rules)} rules on {len(table)} rows show nothing")
        suite = gx.ExpectationSuite(name=stage, expectations=[_shape(rules), *(_expectation(rule) for rule in rules)])
        validation = self.batches.get_batch(batch_parameters={"dataframe": table}).validate(suite, result_format=RESULT_FORMAT)
        results = {result.expectation_config.meta["rule"]: result for result in validation.results if result.expectation_config is not None}
        if results.keys() != {SCHEMA, *(rule.name for rule in rules)}:
            raise DataRefused(f"the {stage} data: {len(rules) + 1} rules were set and {len(results)} were evaluated")
        for name, result in results.items():
            if error := _raised(result):
                raise DataRefused(f"check {name!r} could not be evaluated on the {stage} data: {error}")
            if missing := result.result.get("missing_count"):
                raise DataRefused(f"check {name!r} on the {stage} data says nothing of all: {missing} of {len(table)} values are missing")
        if not results[SCHEMA].success:
            raise DataRefused(f"the {stage} data has the columns {', '.join(table.columns)}; the rules speak of {', '.join(rule.name for rule in rules)}")
        totals = table.groupby(["split", "slice"], sort=False)[[rule.name for rule in rules]].sum()
        return [check for rule in rules for check in _judged(rule, results[rule.name], totals[rule.name], stage)]


def _shape(rules: Sequence[Rule]) -> Any:
    """The table has the columns that the rules speak of, and no others."""
    from great_expectations.expectations.core.expect_table_columns_to_match_set import ExpectTableColumnsToMatchSet

    return ExpectTableColumnsToMatchSet(column_set=["split", "slice", *(rule.name for rule in rules)], exact_match=True, meta={"rule": SCHEMA})


def _expectation(rule: Rule) -> Any:
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween

    low, high = (rule.limit, None) if rule.at_least else (0, rule.limit)
    return ExpectColumnValuesToBeBetween(column=rule.name, min_value=low, max_value=high, meta={"rule": rule.name})


def _raised(result: Any) -> str:
    """What an expectation raised, if it did: Great Expectations keeps it under ``exception_info``, for itself or for each of its metrics."""
    info = result.exception_info or {}
    for part in (info, *info.values()):
        if isinstance(part, dict) and part.get("raised_exception"):
            return str(part.get("exception_message")).splitlines()[0]
    return ""


def _judged(rule: Rule, result: Any, totals: pd.Series[Any], stage: Stage) -> list[Check]:
    failed = {(row["split"], row["slice"]) for row in result.result.get("unexpected_index_list") or ()}
    if bool(failed) == bool(result.success):
        raise DataRefused(f"check {rule.name!r} on the {stage} data says both passed and failed: {len(failed)} slices of splits break it")
    checks = []
    for (split, name), observed in cast("dict[tuple[str, str], float]", totals.to_dict()).items():
        status: Status = "failed" if (split, name) in failed else "passed"
        checks.append(Check(name=rule.name, stage=stage, split=split, slice=name, status=status, observed=float(observed), limit=rule.limit))
    return checks


@line("check data")
def check_data(run: Recompression, dataset: DatasetRef) -> DataCheck:
    """Check the recipe's data; the page goes to the MLflow run and to ``reports/``. Raises ``DataRefused`` when a check failed."""
    settings = run.plan.recipe.dataset
    record = _check_one(run, dataset.name, dataset.slices, settings.waive)
    if settings.unlabelled is not None:
        _check_one(run, settings.unlabelled, None, ())
    return record


def _check_one(run: Recompression, name: str, slices: Sequence[str] | None, waivers: Sequence[Waiver]) -> DataCheck:
    """One data set, once for each state of its bytes, its rules and its waivers."""
    source = read_settings_of(run.root, name)
    waived = [waiver.model_dump(mode="json") for waiver in waivers]

    def do(folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
        record = validate(bring(run.root, name, slices, say=run.say), source, waivers)
        (folder / "data.html").write_text(checks_page(record), encoding="utf-8")
        (folder / "data.json").write_bytes(canonical_json(record.as_json()))
        return {"record": record.as_json()}, {"page": folder / "data.html", "json": folder / "data.json"}

    key = check_key(run.root, name, slices, waivers)
    result = run.step(f"check {name}", key=key, run="", do=do, label="what the raw files hold, and whether the prepared splits are free of it")
    record = DataCheck.model_validate(result["record"])
    page = _publish(run, name, result)
    body = record.model_dump(mode="json", exclude={"checks"}) | {"slices": list(slices or ()), "summary": record.summary, "waivers": waived}
    run.note("data-accepted" if record.passed else "data-refused", key, body)
    if not record.passed:
        raise DataRefused(f"{refusal(record)}; {page}")
    run.say(f"{name}: {record.summary}")
    if record.together:
        run.say(f"{name}: {record.together}")
    return record


def check_key(root: Path, name: str, slices: Sequence[str] | None, waivers: Sequence[Waiver]) -> str:
    """What makes two checks of a data set the same: the pinned bytes, the rules, and what was waived."""
    source = read_settings_of(root, name)
    raw, prepared = pins_of(root, name, source.source)
    return step_key(
        "check data",
        modules=["recompress.data.observe", "recompress.data.checks", "recompress.data.checks_page", "recompress.data.together"],
        config={"waive": [waiver.model_dump(mode="json") for waiver in waivers], "source": source.model_dump(mode="json")},
        inputs=[raw.md5, prepared.md5, *(slices or ())],
        seed=0,
    )


def _publish(run: Recompression, name: str, result: dict[str, Any]) -> Path:
    """Copy the page to ``reports/<recipe>.<data set>.html``; whole or not at all."""
    target = run.root / "reports" / f"{run.plan.recipe.name}.{name}.html"
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    shutil.copyfile(run.store.fetch(result["artifacts"]["page"]["uri"]), partial)
    partial.replace(target)
    return target
