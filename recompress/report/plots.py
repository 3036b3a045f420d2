"""The two pictures of the page: size against quality and latency against quality, with the front drawn. SVG text, once for light and once for dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

THEMES = {
    "light": {"ink": "#1c2430", "faint": "#d5dae1", "front": "#2563eb", "point": "#475569", "winner": "#15803d", "baseline": "#b45309"},
    "dark": {"ink": "#e6e9ef", "faint": "#3a4352", "front": "#60a5fa", "point": "#a8b3c4", "winner": "#4ade80", "baseline": "#fbbf24"},
}


class Point(NamedTuple):
    """One model in a picture: cost to the right, quality upwards."""

    name: str
    cost: float
    quality: float
    role: str
    """``baseline``, ``winner`` or ``point``."""


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in both, from cheap to dear (Pareto front: less cost, more quality)."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not best or point.quality > best[-1].quality:
            best.append(point)
    return best


def trade_off(points: Sequence[Point], *, x: str, y: str, theme: str) -> str:
    """One picture as SVG. The same points give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    colours = THEMES[theme]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "recompress", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.subplots()
        best = front(points)
        axes.step([p.cost for p in best], [p.quality for p in best], where="post", color=colours["front"], linewidth=1.4, alpha=0.8, zorder=1)
        for i, point in enumerate(sorted(points, key=lambda p: p.quality)):
            axes.scatter(point.cost, point.quality, s=52, color=colours[point.role], zorder=3, marker="D" if point.role == "winner" else "o")
            offset = (7, 7) if i % 2 else (7, -13)
            axes.annotate(point.name, (point.cost, point.quality), xytext=offset, textcoords="offset points", color=colours["ink"], fontsize=9)
        axes.set_xscale("log")
        axes.margins(x=0.18, y=0.18)
        axes.set_xlabel(x, color=colours["ink"])
        axes.set_ylabel(y, color=colours["ink"])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(colors=colours["ink"], which="both", labelsize=8)
        axes.grid(True, color=colours["faint"], linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(colours["faint"])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]
