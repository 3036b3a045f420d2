"""The plan of the house: what the README's tree says is what stands there, the picture is that of the imports, and nothing lies about loose."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LOOSE = 8
"""Modules that may lie at the top of ``recompress/``, its ``__init__`` not counted."""
PACKAGES = ("flows", "tasks", "recompress")


def modules(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.py")} - {"__init__.py"}


def rooms(folder: Path) -> set[str]:
    return {place.name for place in folder.iterdir() if place.is_dir() and (place / "__init__.py").is_file()}


def names_in_readme(root: Path) -> dict[str, set[str]]:
    """What the tree says lies in each folder, by the folder's path; folders end with a slash."""
    [tree] = re.findall(r"## The tree\n\n```\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    inside: dict[str, set[str]] = {}
    above: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.findall(r"[\w.]+(?:/|\.(?:py|dvc|yaml|lock))", line.strip().split("   ")[0])
        above = above[:depth]
        inside.setdefault("/".join(above), set()).update(names)
        if len(names) == 1 and names[0].endswith("/"):
            above.append(names[0].rstrip("/"))
    return inside


def test_the_readme_shows_every_folder_and_none_that_is_not_there(root: Path) -> None:
    tree = names_in_readme(root)
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    assert tree[""] >= {f"{path.split('/')[0]}/" for path in tracked if "/" in path and not path.startswith(".")}
    for folder, names in tree.items():
        assert [name for name in names if not (root / folder / name).exists() and name != "raw/"] == [], folder or "the top"
    for package in ("tasks", "recompress"):
        assert {name.rstrip("/") for name in tree[package] if name.endswith("/")} == rooms(root / package)
    assert {name for name in tree["recompress"] if name.endswith(".py")} == modules(root / "recompress")
    assert {name.rstrip("/") for name in tree["recompress/methods"]} == rooms(root / "recompress" / "methods")


def test_little_lies_about_loose(root: Path) -> None:
    assert len(modules(root / "recompress")) <= LOOSE
    assert modules(root / "tasks") == set()


def test_the_tests_mirror_the_code(root: Path) -> None:
    def folders(top: Path) -> set[str]:
        return {str(place.relative_to(top)) for place in top.rglob("*") if place.is_dir() and any(place.glob("test_*.py"))}

    places = folders(root / "tests") - {"tasks", "flows"}
    for place in places:
        code = root / place if place.startswith("tasks/") else root / "recompress" / place
        assert (code / "__init__.py").is_file(), f"tests/{place} has no room of that name"


def test_the_page_names_every_room_and_its_picture_is_that_of_the_imports(root: Path) -> None:
    page = (root / "docs" / "architecture.md").read_text()
    for package in ("tasks", "recompress"):
        for room in rooms(root / package):
            assert f"`{package}/{room}/`" in page
    checked = subprocess.run([sys.executable, "docs/draw_architecture.py", "--check"], cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert checked.returncode == 0, checked.stderr
