"""What a run would do now: the lines of the flow, asked and not carried out.

There is no second list of steps: the tasks of ``flows/whole_way.py`` are called as they are, with a recompression that looks each step up and does none. What a
step would leave is not known before it has run, so that steps after it are known to run again, and after the first measurement that is missing nothing is foreseen.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from recompress.errors import RecompressError
from recompress.integrity.digest import sha256_json
from recompress.ledger import Entry, Ledger
from recompress.recipe import Plan
from recompress.records import DatasetRef, ModelRef
from tasks.ledger.access import check_policy, ledger_if_any
from tasks.ledger.anchors import sound_ledger
from tasks.ledger.keys import approval_rule
from tasks.running.recompression import Recompression, Wanted
from tasks.running.step_keys import differences, made_of
from tasks.tracking.memory import KIND
from tasks.tracking.registry import open_registry
from tasks.tracking.track import Result

State = Literal["found", "changed", "new", "unknown"]
CHOICES = ("finalists", "verdicts")
"""Steps whose result says what comes next, so that without it nothing more is foreseen."""
AFTER = "what comes after is not known before that was done"
WOULD_PROMOTE = "passed, and a run would promote it"


@dataclass(frozen=True)
class Foreseen:
    """One step: whether it is found again, and if not, because of what. ``seconds`` is how long it took last time; ``None`` where nobody wrote that down."""

    step: str
    state: State
    because: tuple[str, ...] = ()
    seconds: float | None = None


class Unforeseen(Exception):
    """The rest of the run depends on a result that is not there yet."""


class Rehearsal(Recompression):
    """A recompression that writes nothing. ``steps`` holds what each line of the flow asked for, in order."""

    by_prefect = False

    def __init__(self, root: Path, plan: Plan) -> None:
        super().__init__(root, plan)
        self.store.reads_only = True
        self.steps: dict[str, Foreseen] = {}
        self.names: dict[str, str] = {}
        """What the digests of inputs stand for, in words."""
        self.doubts: list[str] = []
        self._scratch: Path | None = None
        self._recalled: dict[str, tuple[Result | None, list[str]]] = {}

    @cached_property
    def ledger(self) -> Ledger:
        """The project's, verified; where there is none, an empty one in a folder that goes with it."""
        if ledger_if_any(self.root) is not None and self.store.exists:
            known = sound_ledger(self.root, open_registry(self.store), self.plan.recipe.register_.model)
            if known is not None:
                return known
        self._scratch = Path(tempfile.mkdtemp(prefix="recompress-plan-"))
        return Ledger(self._scratch / "ledger.db")

    def close(self) -> None:
        """Nothing is left of an empty ledger."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def say(self, line: str) -> None: ...

    def note(self, kind: str, key: str, body: dict[str, Any]) -> None: ...

    def known(self, name: str, key: str, doubt: Callable[[Result], str] | None = None) -> Result | None:
        recalled = self._recall(name, key)
        return None if recalled is None or (doubt is not None and doubt(recalled)) else recalled

    def obtain(self, step: Wanted) -> Result:
        """The result as it is kept, or something in its place whose digests are those of nothing. Raises ``Unforeseen`` for a choice that was not made yet."""
        name, self.doubts = step.name, []
        recalled = self._recall(name, step.key)
        if recalled is not None and step.doubt is not None and (why := step.doubt(recalled)):
            self.doubts, recalled = [why], None
        last = self._last(name)
        seconds = None if last is None else last.body.get("seconds")
        if recalled is not None:
            self.steps.setdefault(name, Foreseen(name, "found", seconds=seconds))
            result = recalled
        else:
            self.steps[name] = Foreseen(name, "new" if last is None else "changed", self._because(last, step.key), seconds)
            if name.split(" (training")[0] in CHOICES:
                raise Unforeseen
            result = _nothing(step.key)
        for artifact in result["artifacts"].values():
            self.names[artifact["sha256"]] = f"what {name} leaves"
        return result

    def _recall(self, name: str, key: str) -> Result | None:
        """The result of a step, held against the ledger and its files once in a rehearsal, however many lines ask for it."""
        if not self.store.exists:
            return None
        if key not in self._recalled:
            doubts: list[str] = []
            self._recalled[key] = self.memory.recall(key, name, doubts.append), doubts
        result, doubts = self._recalled[key]
        self.doubts += doubts
        return None if result is None else {**result, "artifacts": {name: dict(artifact) for name, artifact in result["artifacts"].items()}}

    def _last(self, name: str) -> Entry | None:
        """The record of the last time that a step of this name was done for this recipe, or for one from before recipes were written down."""
        return self._last_of_each.get(name)

    @cached_property
    def _last_of_each(self) -> dict[str, Entry]:
        recipe = self.plan.recipe.name
        return {entry.body["step"]: entry for entry in self.ledger.entries(KIND) if entry.body.get("recipe", recipe) == recipe}

    def _because(self, last: Entry | None, key: str) -> tuple[str, ...]:
        if last is None:
            return ()
        if self.doubts:
            return tuple(self.doubts)
        if last.body["key"] == key:
            return ("its result is not to be had any more",)
        before = last.body.get("made_of")
        return tuple(differences(before, made_of(key), self.names)) if before else ("the record of the last time does not say what it was made of",)


def _nothing(key: str) -> Result:
    """What stands for a result that is not there: its digests are those of no bytes."""
    digest = sha256_json(["not made yet", str(key)])
    artifact = {"uri": "", "sha256": digest}
    return {"metrics": {}, "slices": {}, "types": {}, "claims": [], "runtime": "torch", "machine": {}, "rounds": {}, "load": {}, "record": None} | {
        "artifacts": dict.fromkeys(("model", "outputs", "predictions"), artifact)
    }


@dataclass
class Rehearsed:
    """What came of a rehearsal: its steps, and what a run would be refused for or could not begin without."""

    steps: list[Foreseen] = field(default_factory=list)
    then: str = ""
    refused: str = ""
    exit_code: int = 0


def rehearse(run: Rehearsal) -> Rehearsed:
    """Every step that a run would come to, as far as that can be foreseen. Writes nothing. Raises ``IntegrityError`` for a ledger that does not hold."""
    outcome = Rehearsed()
    try:
        _ = run.ledger
        try:
            outcome.then = _lines(run)
        except RecompressError as error:
            outcome.refused, outcome.exit_code = str(error), error.exit_code
    finally:
        run.close()
    outcome.steps = list(run.steps.values())
    return outcome


def all_found(root: Path, plan: Plan) -> bool:
    """Whether a run of the project as it stands has nothing to do: each step is found and what follows from them stands. One that was cut off has, or was edited since."""
    try:
        rehearsed = rehearse(Rehearsal(root, plan))
    except RecompressError:
        return False
    return bool(rehearsed.steps) and all(step.state == "found" for step in rehearsed.steps) and not rehearsed.refused and WOULD_PROMOTE not in rehearsed.then


def _lines(run: Rehearsal) -> str:
    """The lines of ``flows/whole_way.py``, in their order; what comes of them in words."""
    from recompress.promotion.pins import check_recipe, standing
    from tasks.steps.compress import compress
    from tasks.steps.train import train_baseline

    name = run.plan.recipe.register_.model
    approval_rule(run.root, run.plan.policy.approval)
    check_recipe(standing(run.ledger, name), run.plan.policy, name)
    check_policy(run.ledger, run.plan)
    dataset, base = _data(run), _base(run)
    if dataset is None or base is None:
        missing = " and ".join(what for what, there in (("the data", dataset), ("the base model", base)) if there is None)
        return f"not here yet: {missing}; a run brings that first, and {AFTER}"
    baseline = train_baseline(run, dataset, base)
    models = [baseline]
    for variant in run.plan.steps:
        models.append(compress(run, variant, [*models], dataset))
    try:
        return _judged(run, dataset, base, models)
    except Unforeseen:
        first = next(step.step for step in run.steps.values() if step.state != "found")
        return f"{first} has to be done; {AFTER}"


def _judged(run: Rehearsal, dataset: DatasetRef, base: ModelRef, models: list[ModelRef]) -> str:
    """From the comparison on dev to the choice of a champion."""
    from tasks.steps.evaluate import evaluate
    from tasks.steps.finalists import finalists_of, name_finalists, to_be_judged, try_on_dev
    from tasks.steps.judge import champion_among, judge_all
    from tasks.steps.trainings import train_again

    baseline, variants = models[0], models[1:]
    if any(step.state != "found" for step in run.steps.values()):
        raise Unforeseen
    champion = champion_among(run, variants)
    trials = try_on_dev(run, [*models, *champion.models], baseline, dataset)
    if any(step.state != "found" for step in run.steps.values()):
        raise Unforeseen
    named = name_finalists(run, dataset, baseline, variants, trials, champion)
    evaluations = evaluate(run, to_be_judged(baseline, variants, named, champion), baseline, dataset)
    trained = train_again(run, dataset, base, finalists=finalists_of(variants, named))
    if any(step.state != "found" for step in run.steps.values()):
        raise Unforeseen
    judgement = judge_all(run, dataset, baseline, named, evaluations, champion, trained)
    registered = run.plan.recipe.register_.model
    if judgement.chosen is None:
        return f"the gate refuses every variant, as it did; the champion of {registered} stays"
    if next(model for model in variants if model.name == judgement.chosen).sha256 == champion.sha256:
        return f"{judgement.chosen} is champion of {registered} already, and stays (version {champion.version})"
    return f"{judgement.chosen} {WOULD_PROMOTE} to champion of {registered}, or ask for an approval"


def _data(run: Rehearsal) -> DatasetRef | None:
    """The recipe's data where it is here as pinned, with its checks; ``None`` where a run has to bring it first. Raises ``DataRefused``."""
    from tasks.data.bring import bring_data
    from tasks.data.validate import check_key
    from tasks.steps.at_hand import data_is_at_hand

    chosen = run.plan.recipe.dataset
    if not data_is_at_hand(run):
        return None
    dataset = bring_data(run)
    run.names[dataset.sha256] = f"the data of {dataset.name}"
    if dataset.unlabelled is not None:
        run.names[dataset.unlabelled[1]] = f"the data of {chosen.unlabelled}"
    run.step(f"check {chosen.name}", key=check_key(run.root, chosen.name, dataset.slices, chosen.waive), run="", do=_never)
    if chosen.unlabelled is not None:
        run.step(f"check {chosen.unlabelled}", key=check_key(run.root, chosen.unlabelled, None, ()), run="", do=_never)
    return dataset


def _base(run: Rehearsal) -> ModelRef | None:
    """The base model where it is on this machine; ``None`` where a run has to fetch it first. Raises ``InputError`` and ``IntegrityError``."""
    from tasks.steps.at_hand import bases_are_at_hand
    from tasks.steps.train import find_base_model

    if not bases_are_at_hand(run):
        return None
    base: ModelRef = find_base_model(run)
    run.names[base.sha256] = "the base model"
    return base


def _never(folder: Path) -> tuple[Result, dict[str, Path]]:
    raise AssertionError("a rehearsal does nothing")
