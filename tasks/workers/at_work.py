"""A worker at one step: a recompression that does what its job names and nothing else."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from recompress.errors import DataRefused, InputError
from recompress.ledger import Ledger
from recompress.ledger.database import LedgerAway
from recompress.patience import Patience
from recompress.recipe import Plan
from recompress.records import DatasetRef, ModelRef
from tasks.data.bring import bring_data
from tasks.running.recompression import PATIENCE_S, Recompression, Say, Wanted, read_plan
from tasks.steps.compress import compress_step
from tasks.steps.train import find_base_model
from tasks.tracking.track import Result, Store, check
from tasks.workers.job import Job, StandsElsewhere, check_standing


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

    by_prefect = False

    def __init__(self, root: Path, plan: Plan, job: Job, say: Say) -> None:
        super().__init__(root, plan)
        self.store = CheckedStore(root, {model.uri: model.sha256 for model in (job.model, *job.models)})
        self.job, self.training = job, job.training
        self._runs.update(job.runs)
        self._tell = say

    def say(self, line: str) -> None:
        self._tell(line)

    def obtain(self, step: Wanted) -> Result:
        """Raises ``Reached`` when the job's step is there, and ``StandsElsewhere`` where the way to it leads over a key that nobody has done."""
        if step.key != self.job.key and self.memory.recall(step.key, step.name, self.say) is None:
            raise StandsElsewhere(
                f"worker {socket.gethostname()} takes no work: its code or packages give {step.name} the key {step.key[:12]}…, the run's give {self.job.name} "
                f"{self.job.key[:12]}…"
            )
        result = super().obtain(step)
        if step.key == self.job.key:
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
        """Do a job; gives whether it had to be done. Raises ``StandsElsewhere`` for one of another commit, other packages, other data or another base, before it
        takes the work, and what the step raises."""
        check_standing(self.standing, job.standing, socket.gethostname())
        plan, dataset, base = self._inputs(job)
        run = self._run(plan, job, self.say)
        run.base = base
        step = plan.steps[job.variant][job.number - 1]
        try:
            compress_step(run, job.variant, job.number, step, job.model, job.models, dataset)
        except Reached as reached:
            return reached.did
        raise StandsElsewhere(f"worker {socket.gethostname()} takes no work: it found no step {job.name} of key {job.key[:12]}… in {job.recipe}")

    def _run(self, plan: Plan, job: Job, say: Say) -> AtWork:
        """With the ledger that the first job verified. The run that gave the job is at work, so a server that is away is waited for from the beginning."""
        run = AtWork(self.root, plan, job, say)
        run.store.patience = Patience(PATIENCE_S, say)
        if self._ledger is None:
            self._ledger = run.store.patience.ask("the ledger", lambda: run.ledger, lambda error: isinstance(error, LedgerAway))
        run.__dict__["ledger"] = self._ledger
        run.be_patient()
        return run

    def _recipe_of(self, job: Job) -> Path:
        """The recipe's file: the project's own, or that which the job brings."""
        if not job.recipe_text:
            return self.root / job.recipe
        place = self.root / ".recompress" / "jobs" / job.recipe_sha256[:16] / Path(job.recipe).name
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.{os.getpid()}")  # workers of one folder write it at the same time
        partial.write_text(job.recipe_text, encoding="utf-8")
        partial.replace(place)
        return place

    def _inputs(self, job: Job) -> tuple[Plan, DatasetRef, ModelRef]:
        if job.recipe_sha256 not in self._known:
            try:
                self._known[job.recipe_sha256] = self._brought(job)
            except (InputError, DataRefused) as error:  # the run read them when it began
                raise StandsElsewhere(f"worker {socket.gethostname()} takes no work: it cannot have what the run began with: {error}") from error
        plan, dataset, base = self._known[job.recipe_sha256]
        for what, mine, given in (("data", dataset.sha256, job.dataset_sha256), ("base", base.sha256, job.base_sha256)):
            if mine != given:
                raise StandsElsewhere(f"worker {socket.gethostname()} takes no work: its {what} has sha256 {mine[:12]}…, the run's {given[:12]}…")
        return plan, dataset, base

    def _brought(self, job: Job) -> tuple[Plan, DatasetRef, ModelRef]:
        """Read and fetched anew. Raises ``InputError`` and ``DataRefused`` where that cannot be."""
        plan = read_plan(str(self._recipe_of(job)), self.root)
        if plan.sha256 != job.recipe_sha256:
            raise StandsElsewhere(f"worker {socket.gethostname()} takes no work: its {job.recipe} is another recipe than the run's")
        looking = self._run(plan, job, lambda _: None)
        return plan, bring_data(looking), find_base_model(looking)
