"""The picture in ``architecture.md``, drawn from the code's own imports: ``python docs/draw_architecture.py``, or ``make docs``.

Rows are the layers that CI holds (``pyproject.toml``); an arrow says that a room imports another, and is left out where a way through other rooms says so
already. ``--check`` ends with 1 where the picture is not that of the imports.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path

import grimp
import networkx as nx

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, BOX, HEIGHT, LEFT = 1080, 74, 132, 38, 120
COLOURS = {"flows": "#dbe9f6", "tasks": "#e3f1de", "recompress": "#fdf3d8"}


def rows() -> list[tuple[str, list[str]]]:
    """The layers from top to bottom: package and rooms. Optional layers stand in the contract in brackets and are drawn where they exist."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {c["containers"][0]: c["layers"] for c in contracts if c["type"] == "layers" and "containers" in c}
    every = [("flows", ["flows"])]
    for package in ("tasks", "recompress"):
        for layer in layers[package]:
            rooms = [room.strip(" ()") for room in layer.split("|")]
            every.append((package, [f"{package}.{room}" for room in rooms if (ROOT / package / room).is_dir() or (ROOT / package / f"{room}.py").is_file()]))
    return [(package, rooms) for package, rooms in every if rooms]


def imports() -> nx.DiGraph:
    """Which room imports which, by the modules in it."""
    graph = grimp.build_graph("flows", "tasks", "recompress", cache_dir=None)
    rooms = nx.DiGraph()
    for module in sorted(graph.modules):
        room = room_of(module)
        if room in ("tasks", "recompress"):
            continue
        rooms.add_node(room)
        for other in map(room_of, graph.find_modules_directly_imported_by(module)):
            if other not in (room, "tasks", "recompress"):
                rooms.add_edge(room, other)
    return rooms


def room_of(module: str) -> str:
    package, *rest = module.split(".")
    return package if package == "flows" or not rest else f"{package}.{rest[0]}"


def draw(layers: list[tuple[str, list[str]]], rooms: nx.DiGraph) -> str:
    """The picture as SVG; the same imports give the same bytes."""
    reduced = nx.transitive_reduction(rooms)
    places: dict[str, tuple[float, float]] = {}
    for row, (_, names) in enumerate(layers):
        step = (WIDTH - LEFT) / len(names)
        for column, name in enumerate(names):
            # neighbours in the column stand a little apart, so that arrows over several rows do not lie on each other
            shift = 90 * ((row % 3) - 1) if len(names) == 1 else 0
            places[name] = (LEFT + step * (column + 0.5) + shift, 20 + ROW * row)
    parts = [_band(layers, package) for package in COLOURS]
    parts += [_arrow(places[a], places[b]) for a, b in sorted(reduced.edges)]
    parts += [_box(name, *places[name]) for _, names in layers for name in names]
    height = 20 + ROW * len(layers)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14">'
    marker = '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', marker, *parts, "</svg>", ""])


def _band(layers: list[tuple[str, list[str]]], package: str) -> str:
    mine = [row for row, (name, _) in enumerate(layers) if name == package]
    top, bottom = 20 + ROW * mine[0] - 14, 20 + ROW * mine[-1] + HEIGHT + 14
    says = {"flows": "when", "tasks": "where", "recompress": "what"}[package]
    text = f'<text x="14" y="{top + 22}" font-weight="bold">{package}</text><text x="14" y="{top + 40}" fill="#666">says {says}</text>'
    return f'<rect x="4" y="{top}" width="{WIDTH - 8}" height="{bottom - top}" rx="8" fill="{COLOURS[package]}"/>{text}'


def _box(name: str, x: float, y: float) -> str:
    label = escape(name.split(".")[-1])
    frame = f'<rect x="{x - BOX / 2:.0f}" y="{y:.0f}" width="{BOX}" height="{HEIGHT}" rx="6" fill="white" stroke="#444"/>'
    return f'{frame}<text x="{x:.0f}" y="{y + 24:.0f}" text-anchor="middle">{label}</text>'


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (to_x, to_y) = (start[0], start[1] + HEIGHT), end
    middle = (y + to_y) / 2
    return (
        f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y - 1:.0f}" fill="none" stroke="#666" marker-end="url(#tip)"/>'
    )


def check_rows(layers: list[tuple[str, list[str]]], rooms: nx.DiGraph) -> None:
    """Raises ``SystemExit`` where a room stands in no layer, or an arrow would point up."""
    height = {name: row for row, (_, names) in enumerate(layers) for name in names}
    if lost := sorted(rooms.nodes - height.keys()):
        raise SystemExit(f"{', '.join(lost)} stands in no layer of pyproject.toml")
    if wrong := [edge for edge in rooms.edges if height[edge[0]] >= height[edge[1]]]:
        raise SystemExit(f"{wrong[0][0]} imports {wrong[0][1]}, which does not stand below it")


if __name__ == "__main__":
    layers, rooms = rows(), imports()
    check_rows(layers, rooms)
    picture = draw(layers, rooms)
    if "--check" in sys.argv:
        sys.exit(0 if PICTURE.is_file() and PICTURE.read_text() == picture else f"{PICTURE} is not that of the imports; make docs draws it anew")
    PICTURE.write_text(picture)
