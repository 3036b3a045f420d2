"""Write docs/reference_commands.md and docs/reference_settings.md from the code: click's commands, and the settings classes with the text under each field.

python docs/write_reference.py            writes them
python docs/write_reference.py --check    says whether they are those of the code
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic.fields import FieldInfo

from flows.cli import main
from recompress.benchmarks import ALL_BENCHMARKS, dials_of
from recompress.benchmarks.few_shot_prompt import Shown
from recompress.data.sources import HubSource, SourceSettings, SplitOff
from recompress.policy import Approval, Comparison, Examples, Limits, Policy
from recompress.recipe import BaseChoice, BaselineChoice, DatasetChoice, Recipe, RegisterChoice, Waiver
from recompress.settings.allowed import allowed_at
from recompress.settings.base import Settings
from recompress.settings.help import help_of
from recompress.watch.settings import Forge, RecipeWatch, WatchSettings

DOCS = Path(__file__).parent
MADE = "Made from the code by `make docs`.\n"
SETTINGS: tuple[tuple[str, tuple[tuple[str, type[Settings]], ...]], ...] = (
    (
        "Recipe: `recipes/NAME.yaml`",
        (
            ("", Recipe),
            ("dataset", DatasetChoice),
            ("dataset.waive, each", Waiver),
            ("base", BaseChoice),
            ("baseline", BaselineChoice),
            ("register", RegisterChoice),
            *((f"answering, for {name}", dials) for name in ALL_BENCHMARKS if (dials := dials_of(name)) is not None),
            ("answering.examples, each", Shown),
        ),
    ),
    (
        "Policy: `policies/NAME.yaml`",
        (("", Policy), ("baseline and champion", Comparison), ("min_examples", Examples), ("limits", Limits), ("approval", Approval)),
    ),
    ("Data: `datasets` in `params.yaml`", (("an entry", SourceSettings), ("hub", HubSource), ("split_off, each", SplitOff))),
    ("Watching: `watch.yaml`", (("", WatchSettings), ("recipes, each", RecipeWatch), ("forge", Forge))),
)
UNLESS = {(Recipe, "base"): "*needed*, unless `baseline` names a model"}
"""What a class cannot say of a key, because it is settled while the file is read."""


def commands() -> str:
    lines = ["# Commands", "", MADE, "Every command takes `--root`, `--verbose` and `--version` before its name.", ""]
    for path, command in _all(main, ()):
        lines += [f"## recompress {' '.join(path)}", "", *_help(command)]
        rows = [(_cell(_usage(option)), _cell(option.help or "")) for option in command.params if isinstance(option, click.Option) and option.name != "help"]
        arguments = [str(one.make_metavar(click.Context(command))) for one in command.params if isinstance(one, click.Argument)]
        if arguments:
            lines += [f"Arguments: `{' '.join(arguments)}`", ""]
        if rows:
            lines += ["| option | |", "|---|---|", *(f"| `{usage}` | {text} |" for usage, text in rows), ""]
    return "\n".join(lines)


def _all(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield (*above, name), command
        if isinstance(command, click.Group):
            yield from _all(command, (*above, name))


def _help(command: click.Command) -> list[str]:
    """The help text; an example becomes a block that can be copied."""
    text, _, example = inspect.cleandoc(command.help or "").partition("Example:")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    block = ["```sh", " ".join(example.split()), "```", ""] if example else []
    return [line for part in paragraphs for line in (part, "")] + block


def _usage(option: click.Option) -> str:
    if option.is_flag:
        return option.opts[-1]
    known = isinstance(option.default, str | int | float) and not isinstance(option.default, bool)
    return f"{option.opts[-1]} {option.make_metavar(click.Context(click.Command('any')))}{f' (default {option.default})' if known else ''}"


def settings() -> str:
    lines = [
        "# Settings",
        "",
        MADE,
        "An unknown key or value is refused before anything runs, by line, with the nearest right word. `recompress methods NAME`",
        "",
    ]
    lines[-2] += " has the dials of a method."
    for title, parts in SETTINGS:
        lines += [f"## {title}", ""]
        for where, kind in parts:
            lines += [
                f"### {where}" if where else "",
                "",
                _plain(inspect.cleandoc(kind.__doc__ or "")),
                "",
                "| key | may be | default | |",
                "|---|---|---|---|",
            ]
            lines += [_row(kind, name, field) for name, field in kind.model_fields.items()]
            lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _row(kind: type[Settings], name: str, field: FieldInfo) -> str:
    key = field.alias or name
    return f"| `{key}` | {_cell(allowed_at(kind, (key,)) or '')} | {_cell(UNLESS.get((kind, key)) or _default(field))} | {_cell(_plain(help_of(kind, name)))} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*needed*"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or isinstance(value, Settings):
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    for file, text in ((DOCS / "reference_commands.md", commands()), (DOCS / "reference_settings.md", settings())):
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            sys.exit(f"{file} is not that of the code; make docs writes it anew")
