"""A proposal: one commit on a branch of its own, with the recipe's new pin, the page, the verdict and the plan. The working tree is not touched.

Without a git repository the same files go into a folder. Where a forge is named in ``watch.yaml`` and its token is given, the branch is pushed and a pull request made.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recompress.errors import InputError, StorageError
from recompress.watch.pins import changed_lines
from recompress.watch.settings import Forge
from tasks.watch.branch import commit_on_top, git, identity, point, top_of, tracked_and_clean
from tasks.watch.forge import pull_request

FOLDER = "proposals"
Say = Callable[[str], None]
Move = Callable[[str], str]
"""From a recipe's text to the same with its pin moved; raises ``InputError`` where that is not the pin that it was."""


@dataclass(frozen=True)
class Proposal:
    """What a person is asked to merge."""

    recipe: str
    key: str
    title: str
    story: str
    outcome: Mapping[str, Any]
    """What the run said, as ``recompress run --json`` prints it."""

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.key[:8]}"

    def files(self, recipe_text: str, before: str) -> dict[str, bytes]:
        """The evidence, by its path below the folder of proposals."""
        page = Path(str(self.outcome.get("page") or ""))
        evidence = {
            "README.md": self._read_me(before, recipe_text).encode(),
            "verdict.json": _json(self.outcome.get("verdicts") or {}),
            "plan.json": _json({"promotion": self.outcome.get("promotion"), "made_from": self.outcome.get("made_from"), "key": self.key}),
        }
        if page.is_file():
            evidence["report.html"] = page.read_bytes()
        return {f"{FOLDER}/{self.name}/{name}": data for name, data in evidence.items()}

    def _read_me(self, before: str, after: str) -> str:
        changed = "\n".join(changed_lines(before, after))
        return f"# {self.title}\n\n{self.story}\n\n```diff\n{changed}\n```\n\nMerge this and run the recipe: every step is found again, and the gate promotes what it let through here.\n"


@dataclass(frozen=True)
class Proposed:
    """Where a proposal is."""

    branch: str
    pull_request: str = ""


def propose(root: Path, recipe: Path, move: Move, proposal: Proposal, forge: Forge | None, say: Say) -> Proposed:
    """Write the commit: the recipe as it is committed now, with its pin moved. Raises ``InputError`` where the recipe here is not the one that is committed, or its
    pin is another than it was, and ``StorageError`` where git refuses."""
    top = top_of(root)
    real = recipe.resolve()
    if top is None or not real.is_relative_to(top):
        before = read_exactly(recipe)
        text = move(before)
        for name, data in {**proposal.files(text, before), f"{FOLDER}/{proposal.name}/{recipe.name}": text.encode()}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        why = "this project is in no git repository" if top is None else f"{recipe.name} lies outside of this git repository ({real})"
        say(f"{proposal.recipe}: {why}, so the proposal is a folder: {FOLDER}/{proposal.name}")
        return Proposed("", f"{FOLDER}/{proposal.name}")
    place = real.relative_to(top).as_posix()
    if not tracked_and_clean(root, real):
        raise InputError(f"{place} has changes that are not committed, so a branch with another pin would not be what was run; commit it, and look again")
    before = git(root, "cat-file", "blob", f"HEAD:{place}", strip=False)
    text = move(before)
    prefix = git(root, "rev-parse", "--show-prefix")
    files = {f"{prefix}{name}": data for name, data in proposal.files(text, before).items()}
    commit = commit_on_top(root, {**files, place: text.encode()}, f"{proposal.title}\n\n{proposal.story}\n")
    branch = f"recompress/{proposal.name}"
    if not point(root, branch, commit):
        say(f"{proposal.recipe}: branch {branch} is there and holds what somebody did on it, so it is left alone; delete it, and a look proposes anew")
        return Proposed(branch)
    say(f"{proposal.recipe}: proposed on branch {branch}; git diff HEAD...{branch}, and git merge {branch} takes it")
    page, why = pull_request(root, branch, proposal.title, proposal.story, forge)
    if why:
        say(f"{proposal.recipe}: the branch {branch} is here, but no pull request was made: {why}")
    return Proposed(branch, page)


def commit_pin(root: Path, recipe: Path, move: Move, title: str, say: Say) -> None:
    """Move the pin in the recipe as it stands now, after its promotion; where git knows it as it stands, as a commit of that one line. Raises ``InputError`` where the
    pin is another than it was; then nothing is written."""
    recipe = recipe.resolve()  # a link stays one
    clean = tracked_and_clean(root, recipe)
    before = read_exactly(recipe)
    text = move(before)
    if text == before:
        say(f"{title}: that pin stands in {recipe.name} already")
        return
    partial = recipe.with_name(f".{recipe.name}.{os.getpid()}")
    partial.write_bytes(text.encode())
    shutil.copymode(recipe, partial)
    partial.replace(recipe)
    how = ""
    if clean:
        try:
            git(root, *identity(root), "commit", "--quiet", "--no-verify", "--only", "-m", title, "--", str(recipe))
            how = " and was committed"
        except StorageError as error:
            how = f", and git does not take the commit ({error}); commit it"
    say(f"{title}: the pin in {recipe.name} moved{how}")


def read_exactly(path: Path) -> str:
    """A text with the ends of lines that it has. Raises ``InputError``."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode()
