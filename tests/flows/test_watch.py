"""The whole story: a base model on a local hub changes, and without a hand touching anything the new champion is proposed, or promoted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recompress.ledger import Ledger
from tests.flows.toy_project import ask, environment, make_project
from tests.tasks.watch.hubs import NAME, Commit, Repository, a_hub
from tests.tasks.watch.mail import mail_server, told_by_mail
from tests.tiny import tiny_checkpoint

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
VARIANTS = "variants:\n  int8:\n    - dynamic_int8: {}\n"


def base_files(folder: Path, seed: int) -> dict[str, bytes]:
    """A tiny encoder as a hub holds one."""
    from recompress.models.checkpoint import save

    save(tiny_checkpoint("text-classification", layers=2, seed=seed), folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Story:
    """A project whose base is on a hub."""

    def __init__(self, folder: Path, hub: Repository, address: str, tell: str, mails: list[Any]) -> None:
        self.folder, self.hub, self.address, self.tell, self.mails = folder, hub, address, tell, mails

    @property
    def environment(self) -> dict[str, str]:
        hub = {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(self.folder / ".hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "RECOMPRESS_TELL": self.tell,
        }
        return (
            environment(self.folder)
            | hub
            | {"GIT_AUTHOR_NAME": "ada", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "ada", "GIT_COMMITTER_EMAIL": "a@b.c"}
        )

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "flows.cli", "watch", "recipe.yaml", "--once", "--json"]

    def watch(self, code: int) -> dict[str, Any]:
        """One look: what it says of the recipe."""
        completed = subprocess.run(self.command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=900, check=False)
        assert completed.returncode == code, completed.stderr[-3000:] + completed.stdout[-3000:]
        [look] = json.loads(completed.stdout)["looks"]
        return look  # type: ignore[no-any-return]

    def commit_base(self, tmp: Path, seed: int) -> Commit:
        commit = Commit(base_files(tmp / f"base-{seed}", seed), age=timedelta(days=2))
        self.hub.commits.append(commit)
        return commit

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.folder, env=self.environment, check=True, capture_output=True, text=True).stdout.strip()

    def settings(self, text: str) -> None:
        (self.folder / "watch.yaml").write_text(text)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger" / "ledger.db", create=False)


@contextmanager
def a_story(folder: Path, tmp: Path) -> Iterator[Story]:
    hub = Repository([Commit(base_files(tmp / "base-0", 0), age=timedelta(days=10))])
    make_project(folder)
    recipe = folder / "recipe.yaml"
    text = recipe.read_text()
    pinned = text[: text.index("base:")] + f"base: {{model: {NAME}, revision: {hub.head.id}}}\n" + text[text.index("seed:") :]
    recipe.write_text(pinned[: pinned.index("variants:")] + VARIANTS + pinned[pinned.index("policy:") :])
    with mail_server() as (box, port), a_hub(hub) as address:
        story = Story(folder, hub, address, told_by_mail(port), box.mails)
        (folder / ".gitignore").write_text((folder / ".gitignore").read_text() + "/.hf\n/evidence\n/base\n")
        story.git("add", ".")
        story.git("commit", "-q", "-m", "a project")
        yield story


def test_a_changed_base_is_proposed_merged_and_promoted_and_then_promoted_by_itself(tmp_path: Path) -> None:
    with a_story(tmp_path / "project", tmp_path) as story:
        story.settings("settle: 0s\n")
        [first] = story.watch(0)["runs"]
        assert first["outcome"] == "promoted"
        assert story.watch(0)["runs"] == []

        second = story.commit_base(tmp_path, 1)
        [proposed] = story.watch(6)["runs"]
        assert (proposed["outcome"], story.watch(0)["runs"]) == ("proposed", [])
        assert story.git("diff", "--numstat", "HEAD", proposed["branch"], "--", "recipe.yaml").split()[:2] == ["1", "1"]
        assert second.id in story.git("show", f"{proposed['branch']}:recipe.yaml")
        assert ask(story.folder, "audit", "trace", "toy@champion")["version"] == "1", "nothing is promoted before somebody merges"
        assert [plan["digest"] for plan in ask(story.folder, "approve")] == [proposed["plan"]]
        story.git("merge", "-q", proposed["branch"])
        [merged] = story.watch(0)["runs"]
        assert (merged["outcome"], story.watch(0)["runs"]) == ("promoted", [])
        assert ask(story.folder, "audit", "trace", "toy@champion")["base"]["revision"] == second.id

        story.settings("settle: 0s\nmode: auto\n")
        third = story.commit_base(tmp_path, 2)
        [automatic] = story.watch(0)["runs"]
        assert (automatic["outcome"], story.watch(0)["runs"]) == ("promoted", [])
        assert third.id in story.git("show", "HEAD:recipe.yaml")
        trace = ask(story.folder, "audit", "trace", "toy@champion")
        assert (trace["version"], trace["base"]["revision"]) == ("3", third.id)
        assert ask(story.folder, "audit", "verify")["holds"]
        seen, claimed, ended = trace["watched"][:3]
        assert f"saw base {NAME} at {third.id}, digest " in seen, "the story begins with the hub's digest"
        assert ("claimed run" in claimed, ended.endswith("promoted")) == (True, True)
        assert {entry.body["event"] for entry in story.ledger.entries("people-told")} >= {"champion changed", "waiting for approval"}
        subjects = [mail["Subject"] for _, mail in story.mails]
        assert subjects.count("toy: the champion changed") == 3
        assert subjects.count("toy: proposed") == 1


def test_a_killed_watcher_is_followed_by_another_that_finishes_its_run(tmp_path: Path) -> None:
    with a_story(tmp_path / "project", tmp_path) as story:
        story.settings("settle: 0s\nlease: 3s\n")
        with subprocess.Popen(story.command, cwd=story.folder, env=story.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watcher:
            until = time.monotonic() + 300
            while time.monotonic() < until and not any("baseline ·" in log.read_text() for log in (story.folder / ".recompress" / "watch").glob("*.log")):
                time.sleep(0.2)
            assert watcher.poll() is None
            os.kill(watcher.pid, signal.SIGKILL)
        time.sleep(3.5)
        [run] = story.watch(0)["runs"]
        assert run["outcome"] == "promoted"
        claims = story.ledger.entries("watch-run")
        assert [claim.body["key"] for claim in claims] == [run["key"]], "one run, taken up"
        assert story.ledger.leases.holder("watch toy") is None
