"""One recompression as it runs: its plan, its MLflow runs, and what was done or found again."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from recompress.errors import StorageError
from recompress.integrity.digest import sha256_json
from recompress.integrity.file_lock import locked
from recompress.ledger import Ledger
from recompress.methods.known_chains import KnownChains
from recompress.patience import Patience
from recompress.promotion import Promoter
from recompress.promotion.pins import check_recipe, standing
from recompress.recipe import Plan, read_recipe
from recompress.records import DatasetRef, ModelRef
from tasks.ledger.access import actor, open_ledger, record_policy
from tasks.ledger.anchors import sound_ledger
from tasks.ledger.keys import approval_rule
from tasks.running.home import check_name, check_project
from tasks.running.leases import Held, leased
from tasks.running.line import Line
from tasks.running.lock import OUT_OF_ROOM, out_of_room, recipe_held
from tasks.running.room import at_work
from tasks.running.step_keys import made_of
from tasks.tracking.memory import KIND, Memory
from tasks.tracking.registry import open_registry
from tasks.tracking.track import Result, Store

log = logging.getLogger(__name__)
PATIENCE_S = 900.0
"""How long a run that has begun waits for a server that went away: a machine that is started anew takes minutes."""
LOCK = "lock"
"""The file in a step's folder that is locked by whoever works in it."""
Say = Callable[[str], None]
Do = Callable[[Path], tuple[Result, dict[str, Path]]]
"""Does a step in a folder of its own; gives its result, and the files or directories to keep by name."""
_listeners: list[Say] = []


@dataclass(frozen=True)
class Outcome:
    """How a recompression ended, for a person and for a program."""

    exit_code: int
    text: str
    as_json: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """A step that a line of the flow asks for, under the names of its training."""

    name: str
    key: str
    run: str
    """The model whose MLflow run keeps it; empty for the run of all."""
    do: Do
    label: str = ""
    doubt: Callable[[Result], str] | None = None
    alone: bool = False


class Recompression:
    """What every line of one recompression gets. Its MLflow runs are opened when the first step has to be done: where all is found again, nothing is added."""

    by_prefect = True
    """Whether its lines are done by Prefect, whose flow is being run."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root = root
        self.plan = plan
        self.propose = False
        """Whether a person decides about the promotion, whatever the policy says."""
        self.training = 1
        """Counts the trainings of this recipe; the first is the one that may be promoted."""
        self.store = Store(root)
        self.work = root / ".recompress" / "work"
        self.done: list[str] = []
        self.reused: list[str] = []
        self.dataset: DatasetRef | None = None
        """What every MLflow run of this recompression names as its input, once it was brought."""
        self.base: ModelRef | None = None
        """The base model, once it was found, for steps that begin with it instead of the baseline."""
        self.said: dict[tuple[str, ...], tuple[str, str]] = {}
        """What teachers said, by the digests of the teacher and of the text: uri and sha256."""
        self.claims: dict[str, list[dict[str, Any]]] = {}
        """For each variant its steps, with what they promised and what was measured."""
        self.ahead: Callable[[Recompression, Sequence[str], ModelRef, DatasetRef], None] | None = None
        """Where work is shared: does the missing steps of these variants, so that they are found."""
        self.recipe_lease: Held | None = None
        self.holding = ExitStack()
        """What this recompression holds until it ends."""
        self._runs: dict[str, str] = {}

    @property
    def seed(self) -> int:
        """What every random choice of this training follows from. The first has the recipe's own seed; the others' follow from it and cannot be chosen."""
        first = self.plan.recipe.seed
        return first if self.training == 1 else int(sha256_json([first, "training", self.training])[:8], 16) % 2**31

    def again(self, training: int) -> Recompression:
        """The same recompression, for another training: what it does stands beside the first, under names of its own."""
        _ = self.ledger  # opened once, for all of them
        other = copy(self)
        other.training, other.claims = training, {}
        return other

    def called(self, name: str) -> str:
        """The name of a model or of a step of this training."""
        return name if self.training == 1 or not name else f"{name} (training {self.training})"

    def call(self, line: Line[..., Any], *arguments: Any, **named: Any) -> Any:
        """Do a line of the flow, as one of Prefect's tasks where Prefect is to see it."""
        return (line.task if self.by_prefect else line.fn)(self, *arguments, **named)

    def begins(self, what: str) -> None:
        """Told before something is changed that is no step."""

    def say(self, line: str) -> None:
        log.info(line)
        for listen in _listeners:
            listen(line)

    @cached_property
    def ledger(self) -> Ledger:
        """Verified before anything is done, with the heads that the versions of this model keep."""
        return sound_ledger(self.root, open_registry(self.store), self.plan.recipe.register_.model) or open_ledger(self.root)

    @cached_property
    def memory(self) -> Memory:
        """The steps that were finished before, as far as the ledger knows them."""
        return Memory(self.store, self.ledger)

    def be_patient(self) -> None:
        """From here on servers that go away are waited for. Where work begins, one that is not there is named at once."""
        self.store.patience = self.ledger.patience = Patience(PATIENCE_S, self.say)

    def note(self, kind: str, key: str, body: dict[str, Any]) -> None:
        """Write a record of what a step found, once for each key, however often the step is found again."""
        if self.ledger.last(kind, key=key) is None:
            self.ledger.append(kind, {"key": key, "recipe": self.plan.recipe.name, "recipe_sha256": self.plan.sha256, **body}, actor=actor())

    def run_of(self, name: str) -> str:
        """The MLflow run of a model (``baseline`` or a variant), or of the whole recompression (``""``)."""
        if name not in self._runs:
            recipe = self.plan.recipe
            if name:
                self._runs[name] = self.store.open_run(name, {"recompress.model": name, "recompress.recipe": recipe.name}, self.run_of(""))
            else:
                self.store.close_abandoned_runs()
                tags = {"recompress.recipe": recipe.name, "recompress.recipe_sha256": self.plan.sha256, "recompress.policy_sha256": self.plan.policy.sha256}
                self._runs[""] = self.store.open_run(recipe.name, tags)
                self._log_dials()
            if self.dataset is not None:
                self.store.log_dataset(self._runs[name], self.dataset)
        return self._runs[name]

    def _log_dials(self) -> None:
        recipe, client = self.plan.recipe, self.store.client
        dials = {"benchmark": recipe.benchmark, "base": recipe.base.model, "dataset": recipe.dataset.name, "seed": recipe.seed, "policy": recipe.policy}
        for key, value in dials.items():
            client.log_param(self._runs[""], key, value)
        client.log_artifact(self._runs[""], str(self.plan.path), "recipe")
        client.log_artifact(self._runs[""], str(self.root / recipe.policy), "recipe")

    def finish(self, status: str) -> None:
        for run_id in reversed(self._runs.values()):
            self.store.client.set_terminated(run_id, status)

    def curve(self, name: str, prefix: str) -> Callable[[int, Mapping[str, float]], None]:
        """A callback that writes a training's curves into the run of a model: ``curve(step, {"loss": …})``."""

        def write(step: int, values: Mapping[str, float]) -> None:
            for key, value in values.items():
                self.store.client.log_metric(self.run_of(self.called(name)), f"{prefix}.{key}", float(value), step=step)

        return write

    def log_metrics(self, name: str, metrics: Mapping[str, float]) -> None:
        """A model's metrics, once its run exists; a model that was found again as a whole has them already."""
        if name in self._runs:
            for key, value in metrics.items():
                self.store.client.log_metric(self._runs[name], key, value)

    def hold(self, name: str, waiting_for: str) -> None:
        """Hold a lease until this recompression ends; whoever else wants it waits, and so does this one while somebody else has it."""
        self.holding.enter_context(leased(self.ledger, name, self.say, waiting_for))

    def known(self, name: str, key: str, doubt: Callable[[Result], str] | None = None) -> Result | None:
        """The result of a step that was done before; ``None`` where there is none, or where ``doubt`` says why it does not count. One of this run always does."""
        recalled = self.memory.recall(key, name, self.say)
        return None if self._doubts(name, recalled, doubt) else recalled

    def _doubts(self, name: str, recalled: Result | None, doubt: Callable[[Result], str] | None) -> str:
        return doubt(recalled) if recalled is not None and doubt is not None and name not in self.done else ""

    def step(
        self,
        name: str,
        *,
        key: str,
        run: str,
        do: Do,
        label: str = "",
        doubt: Callable[[Result], str] | None = None,
        alone: bool = False,
    ) -> Result:
        """The result of a step, as this recompression comes to results: found again by its key, or done now and remembered. Raises ``ForgedStep`` where MLflow names
        a result that the ledger does not know.

        One process does a step; others that come to the same key wait for it and find what it left. What measures time is done ``alone``: beside no other step of
        this project on this machine.

        ``do(folder)`` works in a folder of its own, of which ``work`` outlives a kill, and returns the result and the files or directories to keep, by name.
        The result comes back with ``artifacts``: for each name its uri and sha256. ``doubt`` says of one that was found again why it does not count; then it is
        done anew, once in a run.
        """
        return self.obtain(Wanted(self.called(name), key, self.called(run), do, label, doubt, alone))

    def obtain(self, step: Wanted) -> Result:
        """How this recompression comes to the result of a step; the one thing that other kinds of recompressions do otherwise."""
        if self.recipe_lease is not None:
            self.recipe_lease.check()
        stored = None
        while stored is None:
            latest = self.ledger.last(KIND, key=step.key)
            recalled = self.memory.recall(step.key, step.name, self.say)
            why = self._doubts(step.name, recalled, step.doubt)
            if recalled is not None and not why:
                return self._found(step, recalled)
            with leased(self.ledger, f"step {step.key}", self.say, step.name) as lease:
                if self.ledger.last(KIND, key=step.key) != latest and (recalled := self.known(step.name, step.key, step.doubt)) is not None:
                    return self._found(step, recalled)  # another process has done it meanwhile
                if why:
                    self.say(f"{step.name} is done again: {why}")
                self.say(f"{step.name}" + (f" · {step.label}" if step.label else ""))
                stored = self._do(step, lease)
        self.done.append(step.name)
        return stored

    def _found(self, step: Wanted, recalled: Result) -> Result:
        if step.name not in (*self.done, *self.reused):  # a step that another line of the flow asks for again
            self.reused.append(step.name)
        return recalled

    def _do(self, step: Wanted, lease: Held) -> Result | None:
        """Do a step and keep what it gives; ``None`` where this process stood still for so long that somebody else does it. Raises ``StorageError`` where there is
        no place to write."""
        folder = self.work / step.key[:24]
        with at_work(self.root, self.say, step.name, alone=step.alone):
            begun = time.monotonic()
            try:
                with locked(folder / LOCK):  # whose lease ran out while this machine slept may still be at work in it
                    _clear(folder)
                    result, files = step.do(folder)
            except OSError as error:
                if error.errno in OUT_OF_ROOM:
                    raise StorageError(
                        f"{step.name}: {OUT_OF_ROOM[error.errno]} at {error.filename or folder}; nothing was kept of this step, mend that and run again"
                    ) from None
                raise
        if not lease.is_mine():
            self.say(f"{step.name}: this process stood still for so long that somebody else does it")
            return None
        place = f"steps/{step.name.split('/')[-1].replace(' ', '-')}-{step.key[:8]}"
        about = {"recipe": self.plan.recipe.name, "seconds": round(time.monotonic() - begun, 1), "made_of": made_of(step.key)}
        stored = self.memory.keep(step.key, step.name, self.run_of(step.run), place, result, files, about)
        shutil.rmtree(folder, ignore_errors=True)
        return stored


def _clear(folder: Path) -> None:
    """Empty the folder of a step: what a killed process left there goes, but for ``work``, from which a training goes on."""
    for entry in folder.iterdir():
        if entry.name not in ("work", LOCK):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def read_plan(recipe: str, home: Path, *, looks: bool = False) -> Plan:
    """The recipe at a path from here or from the project's folder. Raises ``InputError``; nothing of the project is changed.

    Whoever only ``looks`` takes steps as they were read before; they cannot be run. Everybody else reads all of it, and what was read is kept for those."""
    path = Path(recipe) if Path(recipe).is_file() or not (home / recipe).is_file() else home / recipe
    check_project(home)
    known = KnownChains(home, believed=looks)
    plan = read_recipe(path, home, known)
    known.write()
    return plan


Kind = TypeVar("Kind", bound=Recompression)


def recompression(recipe: str, root: str, *, propose: bool = False) -> AbstractContextManager[Recompression]:
    """Read the recipe and hold it for as long as it runs. Raises ``InputError`` before anything is written.

    With ``propose`` what the gate lets through waits for an approval, whatever the policy says."""
    return begun(Recompression, recipe, root, propose=propose)


@contextmanager
def begun(kind: type[Kind], recipe: str, root: str, *, propose: bool = False) -> Iterator[Kind]:
    """The same with a recompression of this ``kind``."""
    home = Path(root).resolve()
    plan = read_plan(recipe, home)
    check_name(home, plan)
    approval_rule(home, plan.policy.approval)  # refused now, and not after hours of work
    run = kind(home, plan)
    run.propose = propose
    with out_of_room(home), recipe_held(run.ledger, plan.recipe.name) as run.recipe_lease, run.holding:
        Promoter(run.ledger, open_registry(run.store), actor()).settle(plan.recipe.register_.model)  # before hours of work, and again before judging
        name = plan.recipe.register_.model
        check_recipe(standing(run.ledger, name), plan.policy, name)
        record_policy(run.ledger, plan)
        run.be_patient()
        try:
            yield run
        except BaseException as error:
            with suppress(Exception):  # where the store is full or away, what went wrong first is what counts
                run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        run.finish("FINISHED")


@contextmanager
def listener(say: Say) -> Iterator[None]:
    """Send what recompressions say to a person as well as to the log."""
    _listeners.append(say)
    try:
        yield
    finally:
        _listeners.remove(say)
