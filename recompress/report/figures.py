"""Numbers as people read them: a share in percent, bits per byte as bits per byte, bytes in megabytes."""

from __future__ import annotations

MB = 1e6
NEGATIVE = "negative_"
"""Metrics of which less is better are gated by their negative (see ``recompress.policy``); people read what they are the negative of."""


def metric_name(name: str) -> str:
    return {"f1": "F1", "macro_f1": "macro-F1"}.get(name, name.removeprefix(NEGATIVE).replace("_", " "))


def metric(value: float | None, name: str) -> str:
    """0.8125 as 81.3 (percent, or points of F1); -1.2345 of a negative metric as 1.234."""
    if value is None:
        return "–"
    return f"{-value:.3f}" if name.startswith(NEGATIVE) else f"{100 * value:.1f}"


def change(value: float | None, name: str) -> str:
    """A difference between two values, with its sign, as ``metric`` shows these."""
    if value is None:
        return ""
    return f"{-value:+.3f}" if name.startswith(NEGATIVE) else f"{100 * value:+.1f}"


def axis_name(name: str) -> str:
    """Of a picture in which up is better."""
    return name.replace("_", " ") if name.startswith(NEGATIVE) else metric_name(name)


def change_name(name: str) -> str:
    return f"± {metric_name(name)}" if name.startswith(NEGATIVE) else "± points"


def megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value / MB:.1f}"


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
