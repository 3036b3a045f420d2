"""Which baseline a new one is held against: by the ledger, on the present split, and never by figures of two splits. And how many rounds a policy asks for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recompress.errors import GateRefused, InputError, IntegrityError
from recompress.integrity.signing import public_pem
from recompress.ledger import LedgerBroken
from recompress.policy import Policy
from recompress.promotion import pins
from recompress.promotion.accepted import accept_baseline, accepted_by, plan_behind
from recompress.records import DatasetRef, Evaluation, ModelRef
from tasks.people.baselines import UNKNOWN
from tasks.steps import accepted
from tasks.steps.accepted import Accepted, accepted_baseline
from tasks.steps.evaluate import rounds_for
from tasks.tracking.memory import Memory
from tests.evidence.stories import DATA, Project, sha
from tests.promotion.stage import MODEL
from tests.promotion.test_pins import BOB, EVE, LOOSE, PEOPLE, SIGNED

NEW = ModelRef(name="baseline", kind="baseline", uri="new", sha256="e" * 64)


class Store:
    """Whatever lies below a folder; the evidence of the project's plans."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch(self, uri: str) -> Path:
        return self.root / uri


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A recompression after two promotions, as far as ``accepted_baseline`` looks at it; ``asked`` are the models that had to answer anew."""
    project = Project(tmp_path)
    project.promote(1)
    project.promote(2)
    run = SimpleNamespace(root=tmp_path, ledger=project.ledger, store=Store(tmp_path), said=list[str](), asked=list[str](), dossiers=project.dossiers)
    run.say, run.memory = run.said.append, Memory(run.store, run.ledger)
    run.plan = SimpleNamespace(policy=Policy.model_validate(LOOSE), recipe=SimpleNamespace(register_=SimpleNamespace(model=MODEL)))

    def recall(memory: Memory, plan: Any) -> Any:
        assert memory is run.memory, "evidence is recalled by what the ledger knows"
        if plan.digest not in run.dossiers:
            raise IntegrityError("it is gone")
        return run.dossiers[plan.digest]

    def quality(run: Any, model: ModelRef, dataset: DatasetRef, baseline: ModelRef) -> dict[str, Any]:
        assert baseline == model, "beside itself"
        run.asked.append(model.uri)
        return {"metrics": {"f1": 0.7}, "slices": {}, "types": {}, "artifacts": {"predictions": {"uri": "predictions", "sha256": sha("anew")}}}

    monkeypatch.setattr("tasks.people.baselines.recall_dossier", recall)
    monkeypatch.setattr(accepted, "measure_quality", quality)
    monkeypatch.setattr(accepted, "check", lambda place, digest: None if place.exists() else _missing(place))
    return run


def _missing(place: Path) -> None:
    raise IntegrityError(f"{place.name} is missing")


def dataset(sha256: str = DATA, slices: tuple[str, ...] = ("swa", "yor")) -> DatasetRef:
    return DatasetRef(name="tiny", benchmark="token-classification", uri="data", sha256=sha256, md5="0", labels=("O",), slices=slices, rows={"test": 4})


def lay_predictions(run: SimpleNamespace) -> Evaluation:
    """The predictions of then are there."""
    evaluation: Evaluation = next(iter(run.dossiers.values())).evaluation("baseline")
    place = run.root / evaluation.predictions_uri
    place.parent.mkdir(parents=True)
    place.touch()
    return evaluation


def lay_model(run: SimpleNamespace) -> None:
    """The model of then is there."""
    (run.root / "then").mkdir()
    for digest, dossier in run.dossiers.items():
        run.dossiers[digest] = dossier.model_copy(update={"baseline_uri": "then"})


def test_before_any_promotion_there_is_nothing_to_be_held_against(run: SimpleNamespace) -> None:
    assert accepted_baseline(run, dataset(), NEW, None) == Accepted()
    run.plan.recipe.register_.model = "another"
    assert accepted_baseline(run, dataset(), NEW, "") == Accepted()


def test_on_the_same_split_its_predictions_of_then_are_taken(run: SimpleNamespace) -> None:
    evaluation = lay_predictions(run)
    assert accepted_baseline(run, dataset(), NEW, "2") == Accepted(sha("baseline"), evaluation, "")
    assert run.asked == []


@pytest.mark.parametrize("change", ["another split", "fewer slices", "its predictions are gone"])
def test_on_another_split_its_model_answers_anew_and_without_its_files_nothing_does(run: SimpleNamespace, change: str) -> None:
    if change != "its predictions are gone":
        lay_predictions(run)
    now = {"another split": dataset("9" * 64), "fewer slices": dataset(slices=("swa",)), "its predictions are gone": dataset()}[change]
    assert accepted_baseline(run, now, NEW, "2") == Accepted(sha("baseline"))
    lay_model(run)
    held = accepted_baseline(run, now, NEW, "2")
    assert held.evaluation is not None
    assert (held.evaluation.model_sha256, held.evaluation.dataset_sha256, held.evaluation.metrics) == (sha("baseline"), now.sha256, {"f1": 0.7})
    assert run.asked == ["then"]
    (run.root / "then").rmdir()
    assert accepted_baseline(run, now, NEW, "2").evaluation is None
    assert "cannot answer the present test split: then is missing" in run.said[-1]


def test_the_same_model_again_is_not_measured(run: SimpleNamespace) -> None:
    assert accepted_baseline(run, dataset("9" * 64), NEW.model_copy(update={"sha256": sha("baseline")}), "2") == Accepted(sha("baseline"))


@pytest.mark.parametrize("how", ["gone", "another verdict"])
def test_evidence_that_is_gone_or_not_the_ledgers_leaves_it_unknown(run: SimpleNamespace, how: str) -> None:
    lay_predictions(run)
    lay_model(run)
    for digest, dossier in list(run.dossiers.items()):
        if how == "gone":
            del run.dossiers[digest]
        else:
            run.dossiers[digest] = dossier.model_copy(update={"verdict": dossier.verdict.model_copy(update={"score": 0.5})})
    assert accepted_baseline(run, dataset(), NEW, "2") == Accepted(UNKNOWN)
    assert "is not to be had" in run.said[-1]


def test_after_a_rollback_it_is_the_one_behind_the_version_that_is_champion(run: SimpleNamespace) -> None:
    first, second = (plan_behind(run.ledger, MODEL, version) for version in ("1", "2"))
    last = plan_behind(run.ledger, MODEL, "")
    assert first is not None
    assert first != second == last
    assert plan_behind(run.ledger, MODEL, "7") is None


def test_a_persons_word_counts_for_these_two_baselines_and_only_signed_where_that_is_asked_for(run: SimpleNamespace) -> None:
    old, ledger = sha("baseline"), run.ledger

    def word(**rule: Any) -> str:
        return accepted_by(ledger, MODEL, NEW.sha256, old, **({"signers": {}, "signed": False} | rule))

    with pytest.raises(InputError, match="needs a reason"):
        accept_baseline(ledger, MODEL, NEW.sha256, old, actor="bob", reason="", signers={}, signed=False)
    with pytest.raises(InputError, match="64 hex digits"):
        accept_baseline(ledger, MODEL, "abc", old, actor="bob", reason="harder", signers={}, signed=False)
    entry = accept_baseline(ledger, MODEL, NEW.sha256, old, actor="bob", reason="harder", signers={}, signed=False)
    assert word() == f"bob accepted it in ledger record {entry.sequence}: harder"
    assert accepted_baseline(run, dataset(), NEW, "2").by == word()
    assert accepted_by(ledger, MODEL, NEW.sha256, "1" * 64, signers={}, signed=False) == ""
    assert word(signers=PEOPLE, signed=True) == "", "the rule became stricter: it stands in the ledger, and counts no more"
    with pytest.raises(GateRefused, match="must be signed"):
        accept_baseline(ledger, MODEL, NEW.sha256, old, actor="bob", reason="harder", signers=PEOPLE, signed=True)
    accept_baseline(ledger, MODEL, NEW.sha256, old, actor="bob", reason="harder", signers=PEOPLE, signed=True, key=BOB)
    assert "harder" in word(signers=PEOPLE, signed=True)
    pins.pin(ledger, MODEL, SIGNED, actor="eve", reason="now", signers={"eve": public_pem(EVE)}, key=EVE)
    assert word(signers=PEOPLE) == "", "what is pinned asks for a signature, and bob is none of those whom it names"
    eve = {"eve": public_pem(EVE)}
    accept_baseline(ledger, MODEL, NEW.sha256, old, actor="eve", reason="harder still", signers=eve, signed=False, key=EVE)
    assert "harder still" in word(signers=eve)
    assert word(signers={"bob": PEOPLE["bob"]}) == "", "her key is no approver's any more"


@pytest.mark.parametrize("change", ["unsigned under a pin", "under a pin that never stood", "of another person"])
def test_a_word_that_could_not_have_been_given_when_it_was_breaks_the_ledger(run: SimpleNamespace, change: str) -> None:
    old, ledger = sha("baseline"), run.ledger
    standing = pins.pin(ledger, MODEL, SIGNED, actor="eve", reason="now", signers={"eve": public_pem(EVE)}, key=EVE)
    body = {"model": MODEL, "person": "eve", "reason": "x", "before": standing.hash, "baseline_sha256": NEW.sha256, "accepted_sha256": old}
    body |= {"under a pin that never stood": {"before": "9" * 64}, "of another person": {"person": "bob"}}.get(change, {})
    ledger.append("baseline-accepted", body, actor="eve")
    with pytest.raises(
        LedgerBroken, match={"unsigned under a pin": "lacks the signature", "of another person": "names 'bob'"}.get(change, "decided under pin 9999")
    ):
        accepted_by(ledger, MODEL, NEW.sha256, old, signers={}, signed=False)


def test_a_policy_gets_as_many_rounds_as_its_bounds_need() -> None:
    def asked(**limits: Any) -> tuple[int, int | None, int | None, int, int, int | None]:
        policy = LOOSE | ({"limits": limits} if limits else {})
        return tuple(rounds_for(Policy.model_validate(policy | {"confidence": confidence, "draws": 100_000})))  # type: ignore[return-value]

    confidence = 0.95
    assert asked() == asked(times_smaller=2.0) == (6, None, None, 1, 1, None)
    assert asked(times_faster=2.0) == (8, None, 5, 3, 1, None)
    assert asked(times_faster=2.0, caches="cold") == (8, None, 8, 3, 1, None)
    assert asked(throughput_per_s=5.0, machine={"cores": "2"}) == (8, 8, None, 3, 1, None)
    assert asked(peak_memory_bytes=5) == (6, None, None, 1, 5, None)
    assert asked(steady_memory_bytes=5, latency_p95_ms=2.0, machine={"cores": "2"}) == (8, None, None, 3, 5, None)
    assert asked(times_faster_writing=2.0) == (6, None, None, 1, 1, 8)
    confidence = 0.999
    assert asked(times_faster=2.0, peak_memory_bytes=5) == (12, None, 10, 3, 10, None)
