"""How a run ended, and what follows from it: what is over, what is tried again and when, and what each look says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.ledger import Ledger
from tasks.ledger.access import accept_policy
from tasks.running.recompression import read_plan
from tasks.watch.carry_out import ELSEWHERE, Carried
from tasks.watch.circumstances import settings_digest
from tasks.watch.watcher import Watcher
from tests.tasks.watch.hubs import Repository
from tests.tasks.watch.watching import NOW, RECIPE, WHOLE, Runs, kinds, look


def test_a_run_that_failed_is_tried_again_later_and_one_that_was_refused_is_not(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    runs.code = 1
    assert look(project, runs).exit_code == 1
    looked = look(project, runs)
    assert (looked.exit_code, len(runs.made)) == (1, 1), "not before its pause is over, and that is said"
    assert "it is tried again in" in looked.text()
    ledger = Ledger(project / "ledger" / "ledger.db")
    ledger.leases.resume(f"run {runs.made[0].key}")
    runs.code = 4
    assert look(project, runs).exit_code == 4
    looked = look(project, runs)
    assert (looked.exit_code, "was refused" in looked.text()) == (4, True)
    assert [due.key for due in runs.made] == [runs.made[0].key] * 2


@pytest.mark.parametrize("code", [2, 3, 5])
def test_what_a_server_or_a_person_may_mend_is_tried_again_after_a_pause_that_grows(project: Path, repository: Repository, code: int) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    runs.code = code
    assert look(project, runs).exit_code == code
    for _ in range(2):
        looked = look(project, runs)
        assert (looked.exit_code, len(runs.made), looked.as_json()["pending"][0]["exit_code"]) == (code, 1, code)
    leases, key, ends = Ledger(project / "ledger" / "ledger.db").leases, runs.made[0].key, kinds(project).count("watch-run-ended")
    pauses = [leases.paused(f"run {key}")]
    with leases._writing() as connection:
        connection.exec_driver_sql("UPDATE recompress_pauses SET until = 0")
    assert look(project, runs).exit_code == code
    pauses.append(leases.paused(f"run {key}"))
    assert pauses[1] > 1.5 * pauses[0]
    assert kinds(project).count("watch-run-ended") == ends, "what came out in the same way is not told again"
    leases.resume(f"run {key}")
    runs.code = 0
    assert look(project, runs).exit_code == 0
    assert [due.key for due in runs.made] == [key] * 3
    assert look(project, runs).text() == "toy: looked, nothing new"


@pytest.mark.parametrize("mend", ["watch.yaml", "environment", "policy", "pins", "data", "dvc"])
def test_what_could_mend_it_has_it_tried_at_once(project: Path, repository: Repository, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    runs.code = 3
    look(project, runs)
    if mend == "watch.yaml":
        (project / "watch.yaml").write_text("workers: 1\n")
    elif mend == "environment":
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    elif mend == "policy":
        body = {"recipe": "toy", "policy_sha256": "1" * 64, "reason": "the margin was too wide"}
        Ledger(project / "ledger" / "ledger.db").append("policy-recorded", body, actor="ada")
    elif mend == "pins":
        (project / RECIPE).write_text((project / RECIPE).read_text() + "# looked at\n")
    elif mend == "data":
        (project / "prepared" / "toy").mkdir(parents=True)
        (project / "prepared" / "toy" / "train.parquet").write_bytes(b"rows")
    else:
        (project / ".dvc").mkdir()
        (project / ".dvc" / "config").write_text("[core]\n    remote = other\n")
    look(project, runs)
    assert len(runs.made) == 2
    look(project, runs)
    assert len(runs.made) == 2, "once"


def test_what_the_run_itself_brought_mends_nothing_and_two_environments_do_not_undo_each_others_pauses(
    project: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    runs.code = 2

    def bring() -> None:
        (project / "prepared" / "toy").mkdir(parents=True, exist_ok=True)
        (project / "prepared" / "toy" / f"{len(runs.made)}.parquet").write_bytes(b"rows")

    runs.during = bring
    look(project, runs)
    look(project, runs)
    assert len(runs.made) == 1
    runs.during = lambda: None
    for _ in range(3):
        for url in ("http://127.0.0.1:4200/api", "http://127.0.0.1:4300/api"):
            monkeypatch.setenv("PREFECT_API_URL", url)
            look(project, runs)
    assert len(runs.made) == 3


def test_no_secret_of_the_environment_is_in_what_is_recorded(project: Path) -> None:
    plan, ledger = read_plan(str(project / RECIPE), project), Ledger(project / "ledger" / "ledger.db")
    digests = {
        settings_digest(project, ledger, plan, {"HF_TOKEN": token, "RECOMPRESS_LEDGER": f"postgresql://ada:{token}@db/ledger", "RECOMPRESS_TELL": token})
        for token in ("one", "two")
    }
    assert len(digests) == 1
    assert settings_digest(project, ledger, plan, {}) not in digests


def test_a_refusal_is_named_at_each_look_and_tried_again_when_a_person_decides(project: Path, repository: Repository) -> None:
    (project / "policies" / "toy.yaml").write_text((project / "policies" / "toy.yaml").read_text().replace("0.4", "0.3"))
    runs = Runs()
    runs.code = 4
    (project / "ledger" / "ledger.db").unlink()
    assert look(project, runs).exit_code == 4
    ledger = Ledger(project / "ledger" / "ledger.db")
    for _ in range(2):
        looked = look(project, runs)
        assert (looked.exit_code, "the project as it stands was refused" in looked.text(), len(runs.made)) == (4, True, 1)
    accept_policy(ledger, read_plan(str(project / RECIPE), project), "the budget was agreed on")
    runs.code = 0
    assert look(project, runs).exit_code == 0
    assert (look(project, runs).text(), len(runs.made)) == ("toy: looked, nothing new", 2)


def test_what_an_earlier_version_took_for_the_end_is_tried_again(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    [due] = Watcher(project, NOW, lambda _: None, lambda *_: Carried("", ELSEWHERE, 1), WHOLE).look(RECIPE).decision.due
    ledger = Ledger(project / "ledger" / "ledger.db")
    ledger.append("watch-run-ended", {"key": due.key, "recipe": "toy", "outcome": "input refused", "exit_code": 2, "final": True}, actor="watcher")
    look(project, runs)
    assert [made.key for made in runs.made] == [due.key]


def test_a_signal_that_ended_a_run_is_no_peace(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    runs.code = -15
    assert [look(project, runs).exit_code for _ in range(2)] == [1, 1]
