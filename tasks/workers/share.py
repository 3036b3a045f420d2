"""Variants at the same time: what is missing is given to workers, step by step, as soon as what it begins with is there.

No second list of steps: the run's own steps are asked for, and name the first one of each variant that nobody has done. Variants that lack the same step wait for
one worker; the longest variants come first. When nothing is missing the run goes on as without workers, and finds everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from recompress.errors import StorageError, as_raised
from recompress.records import DatasetRef, ModelRef
from recompress.settings.file import place_in
from tasks.running.recompression import Recompression
from tasks.running.threads import check_sharing
from tasks.workers.finder import Chain, Finder, Missing, chains_of
from tasks.workers.job import Ended, Job, StandsElsewhere
from tasks.workers.processes import Processes
from tasks.workers.standing import standing_of

OWN_FOLDER = ".recompress"
"""What this project makes for itself on one machine; git ignores it."""
TRIES = 3
"""How many workers may be lost over one step, or refuse it, before the run is ended: a step that takes more memory than there is would end them all."""


class Workers(Protocol):
    """Whoever does jobs."""

    @property
    def free(self) -> int: ...

    def give(self, job: Job) -> None: ...

    def wait(self) -> Ended: ...

    def close(self) -> None: ...


def share_work(run: Recompression, workers: int, pool: str = "") -> None:
    """Let ``workers`` compress variants at the same time: processes of this machine, or of those that take work from a Prefect work ``pool``. With one and no pool,
    nothing changes. Raises ``InputError`` for more than this machine has cores for, and for a pool without a server."""
    check_sharing(workers, pool)

    def start() -> Workers:
        if not pool:
            return Processes(run.root, workers, run.say)
        from tasks.workers.deployments import Deployments

        return Deployments(run.ledger, pool, workers, run.say)

    def ahead(run: Recompression, names: Sequence[str], baseline: ModelRef, dataset: DatasetRef) -> None:
        Sharing(run, baseline, dataset, start).finish(names)

    if workers > 1 or pool:
        run.ahead = ahead


class Sharing:
    """Variants of one training, shared among workers, which are started when the first step is missing and ended when the last is there."""

    def __init__(self, run: Recompression, baseline: ModelRef, dataset: DatasetRef, start: Callable[[], Workers]) -> None:
        self.run, self.baseline, self.dataset = run, baseline, dataset
        self._start = start
        self._finder = Finder(run)
        self._at_work: set[str] = set()
        """The keys that workers have."""
        self._given: Counter[str] = Counter()
        self._finished: dict[str, ModelRef] = {}

    def finish(self, names: Sequence[str]) -> None:
        """Have every missing step of these variants done. Raises what a step raised, ``StorageError`` for one over which worker after worker is lost, and
        ``StandsElsewhere`` for one that worker after worker refuses."""
        chains = chains_of(self.run, list(names))
        workers: Workers | None = None
        try:
            while True:
                missing = self._missing(chains)
                if not missing and not self._at_work:
                    return
                workers = workers or self._start()
                for chain in missing[: workers.free]:
                    self._give(workers, chain)
                self._take(workers.wait(), chains)
        finally:
            if workers is not None:
                workers.close()

    def _missing(self, chains: list[Chain]) -> list[Chain]:
        """The variants whose next step can be given now, one for each step, the longest first: what is short fits in later."""
        wanted = dict[str, Chain]()
        most = dict[str, int]()
        taught = _steps_of_pupils(chains)
        for chain in chains:
            if chain.left and chain.missing is None and chain.teachers <= self._finished.keys():
                chain.go_on(self._finder, [self.baseline, *self._finished.values()], self.dataset)
                if not chain.left and chain.model is not None:
                    self._finished[chain.variant] = chain.model
            if chain.missing is not None and chain.missing.key not in self._at_work:
                wanted.setdefault(chain.missing.key, chain)
                most[chain.missing.key] = max(most.get(chain.missing.key, 0), chain.left + taught.get(chain.variant, 0))
        return sorted(wanted.values(), key=lambda chain: -most[chain.missing.key] if chain.missing else 0)

    def _give(self, workers: Workers, chain: Chain) -> None:
        assert chain.missing is not None
        run, missing = self.run, chain.missing
        names = {"": run.run_of(""), missing.run: run.run_of(missing.run)}
        self._at_work.add(missing.key)
        self._given[missing.key] += 1
        workers.give(self._job(chain, missing, names))

    def _job(self, chain: Chain, missing: Missing, runs: dict[str, str]) -> Job:
        run = self.run
        assert run.base is not None
        return Job(
            recipe=place_in(run.root, run.plan.path.resolve()),
            recipe_sha256=run.plan.sha256,
            recipe_text=_text_of(run.plan.path, run.root),
            training=run.training,
            variant=chain.variant,
            number=chain.done + 1,
            name=missing.name,
            key=missing.key,
            models=(self.baseline, *(self._finished[name] for name in sorted(chain.teachers))),
            model=chain.model or self.baseline,
            runs=runs,
            dataset_sha256=self.dataset.sha256,
            base_sha256=run.base.sha256,
            standing=standing_of(run.root),
        )

    def _take(self, ended: Ended, chains: list[Chain]) -> None:
        """What came of a job: its variants go on. Raises what the worker raised."""
        run, job = self.run, ended.job
        self._at_work.discard(job.key)
        if ended.error:
            raise as_raised(ended.kind, ended.error) or RuntimeError(f"{job.name}: {ended.error}")
        if ended.elsewhere and job.standing != standing_of(run.root):
            self._given[job.key] -= 1  # the project moved on after the step was handed out, and the worker may well stand where it is now
        last = self._given[job.key] == TRIES
        if ended.elsewhere and last:
            raise StandsElsewhere(f"{job.name}: {ended.elsewhere}, and so it was {TRIES} times; bring both to the same, then run again")
        if last and (ended.gone or not self._is_there(job)):
            raise StorageError(
                f"{job.name}: {TRIES} workers tried and none left a result, the last was {ended.gone or 'done'}; where memory is short, give fewer --workers, then run again"
            )
        if ended.elsewhere:
            run.say(f"{job.name}: {ended.elsewhere}; it is given again, with the project as it stands now")
        elif ended.gone:
            run.say(f"{job.name}: its worker was {ended.gone}; it is given to another")
        elif ended.did:
            run.done.append(job.name)
            run.say(f"{job.name} · done in {ended.seconds:.0f} s")
        for chain in chains:
            if chain.missing is not None and chain.missing.key == job.key:
                chain.missing = None

    def _is_there(self, job: Job) -> bool:
        return self.run.memory.recall(job.key, job.name, lambda _: None) is not None


def _steps_of_pupils(chains: list[Chain]) -> dict[str, int]:
    """Of each variant that teaches others, the steps of the longest that waits for it."""
    most = dict[str, int]()
    for chain in chains:
        for teacher in chain.teachers:
            most[teacher] = max(most.get(teacher, 0), chain.left)
    return most


def _text_of(recipe: Path, root: Path) -> str:
    """A recipe that lies where no other machine finds it; empty for one that comes with the project."""
    resolved = recipe.resolve()
    made_here = not resolved.is_relative_to(root) or resolved.is_relative_to(root / OWN_FOLDER)
    return resolved.read_text(encoding="utf-8") if made_here else ""
