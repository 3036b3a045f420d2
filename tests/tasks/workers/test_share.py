"""What is given to workers and when: a step as soon as what it begins with is there, each once, and again where its worker is lost."""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recompress.errors import InputError, StorageError
from recompress.records import DatasetRef, ModelRef
from tasks.workers import finder, share
from tasks.workers.finder import Missing
from tasks.workers.job import Ended, Job, StandsElsewhere, check_standing
from tasks.workers.share import Sharing

BASELINE = ModelRef(name="baseline", kind="baseline", uri="file:///b", sha256="b" * 64)
VARIANTS = {
    "int8": ["int8"],
    "trimmed": ["trim", "int8"],
    "small": ["trim", "cut", "distill", "int8"],
    "pupil": ["distill of small"],
}


class Made:
    """What has been done, by key, and a recompression that asks for it."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.lines: list[str] = []
        steps = {
            name: [SimpleNamespace(method=method, config=SimpleNamespace(teacher=_teacher(method))) for method in chain] for name, chain in VARIANTS.items()
        }
        self.run: Any = SimpleNamespace(
            root=Path("/project"),
            plan=SimpleNamespace(path=Path("/project/recipe.yaml"), sha256="1" * 64, steps=steps),
            training=1,
            base=ModelRef(name="base", kind="base", uri="/base", sha256="a" * 64),
            run_of=lambda name: f"run of {name}",
            ledger=None,
            memory=SimpleNamespace(recall=lambda key, *_: key if key in self.there else None),
            done=[],
            say=self.lines.append,
        )

    def compress_step(self, _: object, variant: str, number: int, step: Any, model: ModelRef, models: list[ModelRef], __: object) -> ModelRef:
        assert step.config.teacher in {None, *(model.name for model in models)}
        if step.method == "distill" and "teacher" not in self.there:
            raise Missing("teacher", "teacher", "baseline")
        key = key_of(model.sha256, step.method)
        if key not in self.there:
            raise Missing(f"{variant}/{number} {step.method}", key, variant)
        return ModelRef(name=variant, kind="variant", uri=f"file:///{key}", sha256=key)


class Workers:
    """Workers that end the job that they were given first; ``ends`` says how."""

    def __init__(self, made: Made, count: int, ends: Any = None) -> None:
        self.made, self.count = made, count
        self.ends = ends or (lambda job: Ended(job=job))
        self.given: list[Job] = []
        self.together: list[int] = []
        self.closed = 0
        self._at_work: deque[Job] = deque()

    @property
    def free(self) -> int:
        return self.count - len(self._at_work)

    def give(self, job: Job) -> None:
        assert job.key not in {other.key for other in self._at_work}
        self.given.append(job)
        self._at_work.append(job)
        self.together.append(len(self._at_work))

    def wait(self) -> Ended:
        job = self._at_work.popleft()
        ended: Ended = self.ends(job)
        if not ended.gone and not ended.error and not ended.elsewhere:
            self.made.there.add(job.key)
        return ended

    def close(self) -> None:
        self.closed += 1


def key_of(before: str, method: str) -> str:
    return hashlib.sha256(f"{before}>{method}".encode()).hexdigest()


def _teacher(method: str) -> str | None:
    return method.removeprefix("distill of ") if method.startswith("distill of ") else None


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(finder, "compress_step", made.compress_step)
    monkeypatch.setattr(share, "Finder", lambda run: run)
    monkeypatch.setattr(share, "standing_of", lambda _: {"commit": "c"})
    return made


def finish(made: Made, workers: Workers, names: list[str] | None = None) -> None:
    dataset = DatasetRef(name="d", benchmark="text-classification", uri="/d", sha256="d" * 64, md5="e" * 32, labels=(), slices=(), rows={})
    Sharing(made.run, BASELINE, dataset, lambda: workers).finish(names or list(VARIANTS))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_missing_step_is_given_once_and_never_before_what_it_begins_with(made: Made, count: int) -> None:
    workers = Workers(made, count)
    finish(made, workers)
    names = [job.name for job in workers.given]
    assert sorted(names) == sorted(
        ["int8/1 int8", "trimmed/1 trim", "trimmed/2 int8", "small/2 cut", "teacher", "small/3 distill", "small/4 int8", "pupil/1 distill of small"]
    ), "the shared step has the name of the first variant that has it"
    assert len({job.key for job in workers.given}) == len(names)
    assert (
        names.index("small/2 cut")
        < names.index("teacher")
        < names.index("small/3 distill")
        < names.index("small/4 int8")
        < names.index("pupil/1 distill of small")
    )
    assert names[0] == "trimmed/1 trim", "what others wait for comes first"
    assert max(workers.together) == min(count, 3), "as many at once as there are workers and steps that do not wait for each other"
    assert made.run.done == names or sorted(made.run.done) == sorted(names)
    assert workers.closed == 1


def test_a_worker_gets_the_digests_of_what_it_begins_with_and_the_runs_that_it_writes_to(made: Made) -> None:
    workers = Workers(made, 2)
    finish(made, workers)
    jobs = {job.name: job for job in workers.given}
    cut, pupil = jobs["small/2 cut"], jobs["pupil/1 distill of small"]
    assert (cut.variant, cut.number, cut.model.sha256, cut.recipe) == ("small", 2, key_of("b" * 64, "trim"), "recipe.yaml")
    assert cut.runs == {"": "run of ", "small": "run of small"}
    assert (cut.dataset_sha256, cut.base_sha256, cut.standing) == ("d" * 64, "a" * 64, {"commit": "c"})
    assert [model.name for model in cut.models] == ["baseline"]
    assert [model.name for model in pupil.models] == ["baseline", "small"]
    assert jobs["teacher"].runs == {"": "run of ", "baseline": "run of baseline"}


def test_where_everything_is_found_no_worker_is_started(made: Made) -> None:
    first, others = Workers(made, 2), Workers(made, 2)
    finish(made, first)
    finish(made, others)
    assert (len(first.given), first.closed) == (8, 1)
    assert (others.given, others.closed) == ([], 0), "workers that were never begun need not be closed"


def test_what_others_did_meanwhile_is_not_counted_as_done(made: Made) -> None:
    finish(made, Workers(made, 2, lambda job: Ended(job=job, did=False)), ["int8"])
    assert made.run.done == []


def test_a_lost_worker_s_step_is_given_again_and_once(made: Made) -> None:
    lost: list[str] = []

    def ends(job: Job) -> Ended:
        if job.name == "small/2 cut" and not lost:
            lost.append(job.key)
            return Ended(job=job, gone="ended by SIGKILL")
        return Ended(job=job)

    workers = Workers(made, 2, ends)
    finish(made, workers)
    names = [job.name for job in workers.given]
    assert names.count("small/2 cut") == 2
    assert len(names) == 9
    assert "small/2 cut: its worker was ended by SIGKILL; it is given to another" in made.lines


@pytest.mark.parametrize("ended", ["gone", "nothing kept"])
def test_a_step_over_which_worker_after_worker_is_lost_ends_the_run_in_one_line(made: Made, ended: str) -> None:
    workers = Workers(made, 2, lambda job: Ended(job=job, gone="ended by SIGKILL" if ended == "gone" else ""))
    if ended == "nothing kept":
        made.there = _Nothing()
    with pytest.raises(StorageError, match=r"^int8/1 int8: 3 workers tried and none left a result, the last was .*give fewer --workers, then run again$"):
        finish(made, workers, ["int8"])
    assert (len(workers.given), workers.closed) == (3, 1)


def refusing(stands: list[str], lag: int) -> Any:
    """A worker's end of a job: its project follows the run's by so many jobs, and a commit is made there with each job."""

    def ends(job: Job) -> Ended:
        stands.append(f"commit {len(stands)}")
        try:
            check_standing({"commit": stands[-1 - lag]}, job.standing, "host")
        except StandsElsewhere as error:
            return Ended(job=job, elsewhere=str(error))
        return Ended(job=job)

    return ends


def test_a_commit_while_a_step_is_handed_out_has_it_given_again_at_that_commit(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: the worker was never at fault."""
    stands = ["commit 0"]
    monkeypatch.setattr(share, "standing_of", lambda _: {"commit": stands[-1]})
    ends, commits = refusing(stands, 0), 5
    workers = Workers(made, 2, lambda job: ends(job) if len(stands) <= commits else Ended(job=job))
    finish(made, workers, ["int8"])
    assert [job.standing["commit"] for job in workers.given] == [f"commit {i}" for i in range(commits + 1)]
    assert made.run.done == ["int8/1 int8"]
    assert made.lines[0] == (
        "int8/1 int8: worker host takes no work: its commit is commit 1, the run's is commit 0; it is given again, with the project as it stands now"
    )


def test_a_worker_that_stays_elsewhere_ends_the_run_in_one_line_and_not_for_good(made: Made) -> None:
    workers = Workers(made, 2, refusing(["a", "b"], 1))
    with pytest.raises(
        StandsElsewhere,
        match=r"^int8/1 int8: worker host takes no work: its commit is commit 3, the run's is c, and so it was 3 times; bring both to the same, then run again$",
    ) as raised:
        finish(made, workers, ["int8"])
    assert (raised.value.exit_code, len(workers.given), workers.closed, made.run.done) == (1, 3, 1, [])


def test_of_two_workers_the_one_that_stands_where_the_run_does_takes_the_step(made: Made) -> None:
    refused: list[str] = []

    def ends(job: Job) -> Ended:
        refused.append(job.name)
        return Ended(job=job, elsewhere="worker host takes no work") if refused.count(job.name) == 1 else Ended(job=job)

    finish(made, Workers(made, 2, ends))
    assert sorted(made.run.done) == sorted(set(refused))
    assert len(refused) == 16


class _Nothing(set[str]):
    def add(self, _: str) -> None: ...


def test_what_a_step_raises_in_a_worker_is_raised_here_and_the_others_are_ended(made: Made) -> None:
    workers = Workers(made, 2, lambda job: Ended(job=job, error="sparsity is a share in [0, 1), got 2", kind="InputError"))
    with pytest.raises(InputError, match=r"^sparsity is a share"):
        finish(made, workers)
    assert workers.closed == 1
    with pytest.raises(RuntimeError, match="^trimmed/1 trim: KeyError: 'x'$"):
        finish(made, Workers(made, 2, lambda job: Ended(job=job, error="KeyError: 'x'", kind="KeyError")))
