"""The data check as a page for people: one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from recompress.data.checks import DataCheck, as_table

SPLITS = ("train", "dev", "test", "all")


def checks_page(record: DataCheck) -> str:
    """The page: what is demanded, what the raw data shows, what is left in the prepared data, and what was waived and why."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = _count
    splits = [split for split in SPLITS if any(check.split == split for check in record.checks)]
    slices = sorted({check.slice for check in record.checks})
    return environment.get_template("checks_page.html").render(record=record, table=as_table(record), splits=splits, slices=slices)


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
