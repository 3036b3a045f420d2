"""A worker at one step: a recompression that does what its job names and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recompress.errors import InputError
from recompress.ledger import Ledger
from recompress.recipe import Plan
from recompress.records import DatasetRef, ModelRef
from tasks.data.bring import choose_data
from tasks.running.recompression import Do, Recompression, Say, read_plan
from tasks.steps.compress import compress_step
from tasks.steps.train import find_base_model
from tasks.tracking.track import Result, Store, check
from tasks.workers.job import Job, check_standing


class Reached(Exception):
    """The job's step is done, or was found; ``did`` says which."""

    def __init__(self, did: bool) -> None:
        super().__init__()
        self.did = did


class CheckedStore(Store):
    """MLflow's artifacts by their digests: what a job names is hashed before it is used, and brought once."""

    def __init__(self, root: Path, digests: dict[str, str]) -> None:
        super().__init__(root)
        self._digests = digests
        self._brought: dict[str, Path] = {}

    def fetch(self, uri: str) -> Path:
        if uri not in self._digests:
            return super().fetch(uri)
        if uri not in self._brought:
            place = super().fetch(uri)
            check(place, self._digests[uri])
            self._brought[uri] = place
        return self._brought[uri]


class AtWork(Recompression):
    """What the step's own code gets in the place of the run."""

    def __init__(self, root: Path, plan: Plan, job: Job, say: Say) -> None:
        super().__init__(root, plan)
        self.store = CheckedStore(root, {model.uri: model.sha256 for model in (job.model, *job.models)})
        self.job, self.training = job, job.training
        self._runs.update(job.runs)
        self._tell = say

    def say(self, line: str) -> None:
        self._tell(line)

    def call(self, task: Any, *arguments: Any, **named: Any) -> Any:
        return task.fn(self, *arguments, **named)

    def step(self, name: str, *, key: str, run: str, do: Do, label: str = "", doubt: Callable[[Result], str] | None = None, alone: bool = False) -> Result:
        """Raises ``Reached`` when the job's step is there, and ``InputError`` where the way to it leads over a key that nobody has done."""
        if key != self.job.key and self.memory.recall(key, name, self.say) is None:
            raise InputError(
                f"worker {socket.gethostname()} takes no work: its code or packages give {name} the key {key[:12]}…, the run's give {self.job.name} {self.job.key[:12]}…; "
                "bring both to the same, then run again"
            )
        result = super().step(name, key=key, run=run, do=do, label=label, doubt=doubt, alone=alone)
        if key == self.job.key:
            raise Reached(bool(self.done))
        return result


class Workshop:
    """What a worker keeps between the jobs of one recipe: the plan, the data and the base, each held against the digests of the job."""

    def __init__(self, root: Path, standing: dict[str, str], say: Say) -> None:
        self.root = root
        self.standing = standing
        self.say = say
        self._known: dict[str, tuple[Plan, DatasetRef, ModelRef]] = {}
        self._ledger: Ledger | None = None

    def do(self, job: Job) -> bool:
        """Do a job; gives whether it had to be done. Raises ``InputError`` for one of another commit, other packages, other data or another base, before it takes
        the work, and what the step raises."""
        check_standing(self.standing, job.standing, socket.gethostname())
        plan, dataset, base = self._inputs(job)
        run = self._run(plan, job, self.say)
        run.base = base
        step = plan.steps[job.variant][job.number - 1]
        try:
            compress_step(run, job.variant, job.number, step, job.model, job.models, dataset)
        except Reached as reached:
            return reached.did
        raise InputError(f"worker {socket.gethostname()} found no step {job.name} of key {job.key[:12]}… in {job.recipe}")

    def _run(self, plan: Plan, job: Job, say: Say) -> AtWork:
        """With the ledger that the first job verified."""
        run = AtWork(self.root, plan, job, say)
        if self._ledger is not None:
            run.__dict__["ledger"] = self._ledger
        self._ledger = run.ledger
        return run

    def _inputs(self, job: Job) -> tuple[Plan, DatasetRef, ModelRef]:
        if job.recipe_sha256 not in self._known:
            plan = read_plan(str(self.root / job.recipe), self.root)
            if plan.sha256 != job.recipe_sha256:
                raise InputError(f"worker {socket.gethostname()} takes no work: its {job.recipe} is another recipe than the run's")
            looking = self._run(plan, job, lambda _: None)
            dataset = choose_data(looking)
            base: ModelRef = looking.call(find_base_model)
            self._known[job.recipe_sha256] = plan, dataset, base
        plan, dataset, base = self._known[job.recipe_sha256]
        for what, mine, given in (("data", dataset.sha256, job.dataset_sha256), ("base", base.sha256, job.base_sha256)):
            if mine != given:
                raise InputError(f"worker {socket.gethostname()} takes no work: its {what} has sha256 {mine[:12]}…, the run's {given[:12]}…")
        return plan, dataset, base
