"""A hook of mkdocs: what a guide links to outside of ``docs/`` (``../recipes/pruning.yaml``) becomes a page of the site, below ``repository/``.

The links stay as GitHub reads them. One that leads nowhere, or outside of what git knows, is left as it is, so that the strict build refuses it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
LANGUAGES = {".yaml": "yaml", ".py": "python"}


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked, and what that links to, until nothing is new."""
    known = set(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        here = waiting.pop()
        for target in {_target(here, link) for link in LINK.findall(_text(here))} & known - seen:
            seen.add(target)
            if not target.startswith("docs/"):
                files.append(_file(target, config))
                waiting += [target] if target.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Point the links at these pages."""
    place = page.file.src_uri
    here = place.removeprefix("repository/") if place.startswith("repository/") else f"docs/{place}"

    def moved(match: re.Match[str]) -> str:
        uri = _uri(_target(here, match[1]))
        return f"]({os.path.relpath(uri, PurePosixPath(place).parent)}" if files.get_file_from_path(uri) else match[0]

    return LINK.sub(moved, markdown)


def _target(here: str, link: str) -> str:
    """The path in the repository that a link in the file ``here`` names."""
    return os.path.normpath(PurePosixPath(here).parent / link)


def _uri(target: str) -> str:
    """What a file of the repository is called among the site's sources."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"repository/{target}" if Path(target).suffix in (".md", ".svg") else f"repository/{target}.md"


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _file(target: str, config: Any) -> File:
    """Markdown and pictures as they are; anything else as a page that shows its text."""
    if _uri(target) == f"repository/{target}":
        text = _text(target)
    else:
        text = f"# {target}\n\n````{LANGUAGES.get(Path(target).suffix, 'text')}\n{_text(target)}\n````\n"
    return File.generated(config, _uri(target), content=text, inclusion=InclusionLevel.NOT_IN_NAV)
