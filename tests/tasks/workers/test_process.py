"""A worker of this machine: how each job ended is told in a line, and where the project stands is read for each."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError
from tasks.workers import at_work, process, standing
from tasks.workers.job import Job, StandsElsewhere, check_standing
from tests.tasks.workers.test_at_work import job


def test_a_commit_between_two_jobs_is_seen_by_the_worker_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Workshop:
        def __init__(self, root: Path, standing: dict[str, str], _: object) -> None:
            assert root == tmp_path
            self.standing = standing

        def do(self, given: Job) -> bool:
            check_standing(self.standing, given.standing, "host")
            if given.key == "wrong":
                raise InputError("sparsity is a share")
            return True

    commits, told = iter(["a", "b", "b", "c"]), list[dict[str, Any]]()
    monkeypatch.setattr(standing, "standing_of", lambda _: {"commit": next(commits)})
    monkeypatch.setattr(at_work, "Workshop", Workshop)
    monkeypatch.setattr(logging, "lastResort", None)
    monkeypatch.setattr(process, "_channel", lambda: told.append)
    jobs = [job(key, standing={"commit": commit}) for key, commit in (("first", "a"), ("second", "b"), ("wrong", "b"), ("third", "b"))]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{one.model_dump_json()}\n" for one in jobs)))
    process.main(tmp_path)
    assert [one | {"seconds": 0} for one in told] == [
        {"did": True, "seconds": 0},
        {"did": True, "seconds": 0},
        {"error": "sparsity is a share", "kind": "InputError", "seconds": 0},
        {"elsewhere": "worker host takes no work: its commit is c, the run's is b", "seconds": 0},
    ]
    assert StandsElsewhere.exit_code == 1
