"""What is demanded of a data set, as data, and what was found.

A rule names a column of the tables in ``recompress.data.observe`` and the most that it may show. Rules are hashed, so that a result says against what it was
checked. Raw data may break them: what it breaks is shown beside what is left after preparation. Prepared data may not, unless a person waives it by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from recompress.errors import DataRefused
from recompress.integrity.digest import sha256_json
from recompress.models.heads import head_of
from recompress.records import Record
from recompress.settings.file import unknown

Stage = Literal["raw", "prepared"]
Status = Literal["passed", "failed", "waived"]
Table = Literal["rows", "sizes", "balance"]
MIN_ROWS = 30
"""Fewer examples in a slice of a split say nothing about a model."""


@dataclass(frozen=True)
class Rule:
    """One demand. ``name`` is what a waiver says and, for most, the column that is looked at."""

    name: str
    title: str
    counted: str
    """What the number counts: words, tags, rows, or a measure."""
    table: Table = "rows"
    """Which table: of examples, of the sizes of slices of splits, or of slices whose splits are compared."""
    limit: float = 0.0
    """The most that the column may show, or the least where ``at_least``."""
    at_least: bool = False


RULES = (
    Rule("rows", "there are enough rows", "rows", "sizes", MIN_ROWS, at_least=True),
    Rule("rows_lost", "there are as many rows as preparation counted", "rows", "sizes"),
    Rule("malformed_lines", "every line can be read", "lines"),
    Rule("empty_words", "no word is empty", "words"),
    Rule("missing_labels", "every word or text has its label", "labels"),
    Rule("unknown_labels", "every label is one of the data set's", "labels"),
    Rule("invalid_bio", "every I- tag continues an entity of its type", "tags"),
    Rule("not_nfc", "characters are composed (Unicode NFC)", "words"),
    Rule("hidden_characters", "no zero-width characters or soft hyphens", "words"),
    Rule("broken_characters", "no control characters or lost bytes", "words"),
    Rule("repeats", "no text stands twice in a split", "rows"),
    Rule("conflicts", "no text has two labellings in a split", "texts"),
    Rule("in_train", "no text of dev or test stands in train", "rows"),
    Rule("in_train_otherwise", "none stands there with another label", "rows"),
    Rule("in_train_nearly", "none stands there in another case or punctuation", "rows"),
    Rule("in_test", "no text of dev stands in test", "rows"),
    Rule("in_train_elsewhere", "none stands in the train split of another slice", "rows"),
    Rule("group_elsewhere", "no group stands in two splits", "rows"),
    Rule("labels_train_lacks", "train shows every label of dev and test", "labels", "balance"),
    Rule("entity_density", "splits have similar numbers of entities a sentence", "times as many", "balance", 1.5),
    Rule("label_balance", "labels have similar shares in all splits", "difference in share", "balance", 0.05),
)
WIDER_LIMITS = {"label_balance": 0.15}
"""Shares of entity types vary more from text to text than shares of whole texts do, whether questions have an answer varies with their article, and the greatest of
many differences between numbers is greater than one."""


def rules_for(benchmark: str) -> tuple[Rule, ...]:
    """The rules, with the limits that hold for a benchmark."""
    limits = WIDER_LIMITS if head_of(benchmark).answer in ("tags", "span", "number") else {}
    return tuple(Rule(**{**asdict(rule), "limit": limits.get(rule.name, rule.limit)}) for rule in RULES)


def suite_sha256(rules: Sequence[Rule]) -> str:
    """The digest of what is demanded: canonical JSON of the rules."""
    return sha256_json([asdict(rule) for rule in rules])


class Check(Record):
    """One rule, applied to one slice of one split."""

    name: str
    stage: Stage
    split: str
    """train, dev or test; ``all`` for a comparison of splits."""
    slice: str
    status: Status
    observed: float
    """How much was found of what the rule counts."""
    limit: float
    reason: str = ""
    """Why it was waived."""


class DataCheck(Record):
    """Everything that was found in the raw and the prepared form of a data set."""

    LATER = ("together",)
    dataset: str
    benchmark: str
    raw_md5: str
    prepared_md5: str
    prepared_sha256: str
    suite_sha256: str
    tool: str
    """The library that judged, and its version."""
    checks: tuple[Check, ...]
    together: str = ""
    """One line: do the texts of the test split belong together, and what do the gate's bounds then mean?"""

    def of(self, stage: Stage, *statuses: Status) -> list[Check]:
        return [check for check in self.checks if check.stage == stage and (not statuses or check.status in statuses)]

    @property
    def passed(self) -> bool:
        return not self.of("prepared", "failed")

    @property
    def summary(self) -> str:
        prepared, waived = self.of("prepared"), self.of("prepared", "waived")
        failed, raw = self.of("prepared", "failed"), self.of("raw", "failed")
        kinds = len({check.name for check in raw})
        left = f"{len(failed)} failed" if failed else "none failed"
        return f"{len(prepared)} checks of the prepared data: {left}, {len(waived)} waived; {kinds} kinds of defects were found in the raw data"

    def found(self, name: str, stage: Stage = "raw", *, split: str | None = None, slice_: str | None = None) -> float:
        """The sum of what one rule found."""
        return sum(
            check.observed
            for check in self.checks
            if (check.name, check.stage) == (name, stage) and split in (None, check.split) and slice_ in (None, check.slice)
        )


class WaiverLike(Protocol):
    """What ``recompress.recipe.Waiver`` says."""

    @property
    def check(self) -> str: ...
    @property
    def slice(self) -> str | None: ...
    @property
    def reason(self) -> str: ...


def waive(checks: Iterable[Check], waivers: Sequence[WaiverLike]) -> tuple[Check, ...]:
    """Mark failed checks of prepared data as waived.

    Raises ``DataRefused`` for a waiver of a check that does not exist or did not fail: what is accepted for nothing hides what comes later.
    """
    names = [rule.name for rule in RULES]
    used: set[int] = set()
    judged = []
    for check in checks:
        for i, waiver in enumerate(waivers):
            if check.stage == "prepared" and check.status == "failed" and waiver.check == check.name and waiver.slice in (None, check.slice):
                check = check.model_copy(update={"status": "waived", "reason": waiver.reason})
                used.add(i)
        judged.append(check)
    for i, waiver in enumerate(waivers):
        if waiver.check not in names:
            raise DataRefused(unknown("check", waiver.check, names, "waive"))
        if i not in used:
            where = f" in slice {waiver.slice!r}" if waiver.slice else ""
            raise DataRefused(f"the waiver of {waiver.check!r}{where} matches no failed check of the prepared data; take it out of the recipe")
    return tuple(judged)


def refusal(record: DataCheck) -> str:
    """One line that names what failed and the ways out; empty when nothing did."""
    failed = failures(record)
    ways_out = "correct the data, choose other slices, or waive it by name with a reason (waive:)"
    return f"data set {record.dataset!r} did not pass its checks: {failed}; {ways_out}" if failed else ""


def failures(record: DataCheck) -> str:
    """The first checks of the prepared data that failed, with what they found, and how many more; empty when none did."""
    failed = record.of("prepared", "failed")
    first = ", ".join(f"{check.name} in {check.slice}/{check.split}: {_number(check.observed)} (limit {_number(check.limit)})" for check in failed[:3])
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return first + more


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def as_table(record: DataCheck) -> list[dict[str, Any]]:
    """For the page: for each rule what it found in raw and in prepared data, in all and by slice."""
    rules = {rule.name: rule for rule in rules_for(record.benchmark)}
    table = []
    for name, rule in rules.items():
        checks = [check for check in record.checks if check.name == name]
        if checks:
            worst = next((status for status in ("failed", "waived") if any(c.status == status for c in checks if c.stage == "prepared")), "passed")
            slices = sorted({check.slice for check in checks})
            table.append(
                {
                    "rule": rule,
                    "status": worst,
                    "raw": _total(rule, [check for check in checks if check.stage == "raw"]),
                    "prepared": _total(rule, [check for check in checks if check.stage == "prepared"]),
                    "slices": {slice_: {(c.stage, c.split): c for c in checks if c.slice == slice_} for slice_ in slices},
                    "reasons": sorted({(check.slice, check.reason) for check in checks if check.reason}),
                }
            )
    return table


def _total(rule: Rule, checks: Sequence[Check]) -> float | None:
    """Counts add up; of ratios the greatest counts, of table sizes the sum."""
    if not checks:
        return None
    values = [check.observed for check in checks]
    return max(values) if rule.table == "balance" and rule.limit else sum(values)
