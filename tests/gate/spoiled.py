"""What the gate is given, spoiled in every way: missing, NaN, empty, stale, short, mismatched, or simply not good enough. Each with the reason that must be given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from recompress.gate import Again, Measured
from recompress.records import Verdict
from tests.gate.cases import ACCEPTED, BASELINE, CANDIDATE, CHAMPION, ROUNDS, case, expected, look, measured, policy, scores, verdict

Changes = dict[str, Any]
NAN, INF = float("nan"), float("inf")
ROLES = ("candidate", "baseline", "champion", "accepted_baseline")


def evaluation(role: str, **update: Any) -> Changes:
    """The case with some fields of one model's evaluation changed."""
    model = case()[role]
    return {role: replace(model, evaluation=model.evaluation.model_copy(update=update))}


def metric(role: str, name: str, value: float | None) -> Changes:
    metrics = dict(case()[role].evaluation.metrics)
    if value is None:
        del metrics[name]
    else:
        metrics[name] = value
    given = case()[role].evaluation.rounds
    return evaluation(role, metrics=metrics, rounds=given | ({name: (value,) * ROUNDS} if name in given and value is not None else {}))


def rounds(name: str, *values: float, **load: float) -> Changes:
    """What the rounds of the candidate gave, and what else the machine did. The metric is the case's."""
    given = case()["candidate"].evaluation
    return evaluation("candidate", rounds=given.rounds | {name: values}, load=given.load | load)


def rows(role: str, change: Callable[[Measured], Measured]) -> Changes:
    return {role: change(case()[role])}


def first_rows(model: Measured, count: int) -> Measured:
    return replace(model, examples=model.examples[:count], slices=model.slices[:count], references=model.references[:count], counts=model.counts[:count])


def with_count(model: Measured, value: float) -> Measured:
    counts = model.counts.astype(float)
    counts[3, 0] = value
    return replace(model, counts=counts)


def swapped(items: Any) -> list[Any]:
    members = list(items)
    members[0], members[-1] = members[-1], members[0]
    return members


def rules(**changes: Any) -> Changes:
    return {"policy": policy(**changes)}


def expecting(**changes: Any) -> Changes:
    return {"expected": expected(policy(), **changes)}


def all_of(change: Callable[[str], Changes]) -> Changes:
    return {key: value for role in ROLES for key, value in change(role).items()}


def small(count: int) -> Changes:
    """Everything measured on ``count`` examples, and everybody says so."""
    wrong = set(range(0, count, 8))
    models = {"candidate": (CANDIDATE, 20e6), "baseline": ("b" * 64, 90e6), "champion": (CHAMPION, 20e6), "accepted_baseline": (ACCEPTED, 90e6)}
    return {name: measured(name, sha, wrong, count=count, size_bytes=size) for name, (sha, size) in models.items()} | expecting(examples=count)


def rarely_defined(totals: np.ndarray) -> dict[str, np.ndarray]:
    """A metric that exists on the sample, but has nothing to count in about a third of the draws."""
    return {"accuracy": np.where((totals[..., 2] < 260) & (totals[..., 2] > 1), np.nan, scores(totals)["accuracy"])}


def grouped(groups: Any, expected: int | None = None) -> Changes:
    """Everybody measured on the same groups, and the split said to hold as many."""
    count = len(set(groups)) if expected is None else expected
    return all_of(lambda role: rows(role, lambda model: replace(model, groups=list(groups)))) | expecting(groups=count)


def pairs() -> list[int]:
    return [i // 2 for i in range(800)]


def more_trainings(
    count: int,
    change: Callable[[Measured], Measured] = lambda model: model,
    *,
    expected_: int | None = None,
    baseline: str = "",
    wrong: Any = None,
) -> Changes:
    """Further trainings like the first, of which the last candidate may be spoilt."""
    mine = measured("small", "0" * 64, set(range(0, 800, 8)) if wrong is None else wrong)
    models = [(f"{i + 1}" * 64, baseline or f"{i + 5}" * 64) for i in range(count)]
    again = []
    for i, (ours, theirs) in enumerate(models):
        candidate = replace(mine, evaluation=mine.evaluation.model_copy(update={"model_sha256": ours}))
        again.append(Again(i, change(candidate), measured("baseline", theirs, set(range(0, 768, 8)) | {3, 777})))
    return {"again": again} | expecting(trainings=tuple(models[: count if expected_ is None else expected_]))


BETTER = measured("small", CANDIDATE, set(range(0, 640, 8)))


WEAK = set(range(0, 800, 4))
"""200 of 800 wrong, 98 in the accepted baseline."""
WIDE: Changes = {"baseline": {"margin": 0.2}, "champion": {"margin": 0.2}, "loss_budget": 0.5}
VERY_WIDE: Changes = {"baseline": {"margin": 0.5}, "champion": {"margin": 0.5}, "loss_budget": 0.9}
BEST = measured("baseline", BASELINE, set(range(0, 800, 20)), size_bytes=90e6)
IN_ALL: Changes = {"baseline": {"margin": 0.1, "slices": {"hau": 0.08, "swa": 0.08}}}
FORGIVEN = expecting(baseline_accepted_by="bob accepted it in ledger record 7: a harder split")
EDITED = "a policy edited after measuring"
CASES: dict[str, tuple[str, Changes]] = {
    # missing
    "no baseline": ("missing-baseline", {"baseline": None}),
    "no baseline, and no limit that needs one": ("missing-baseline", {"baseline": None} | rules(limits=None)),
    "no champion though there is one": ("missing-champion", {"champion": None}),
    "no champion, first promotion allowed, though there is one": (
        "missing-champion",
        {"champion": None, "policy": policy(first_promotion="allowed")},
    ),
    "no metric of the candidate": ("missing-metric", metric("candidate", "accuracy", None)),
    "no metric of the baseline": ("missing-metric", metric("baseline", "accuracy", None)),
    "no metric of the champion": ("missing-metric", metric("champion", "accuracy", None)),
    "no metrics at all": ("missing-metric", evaluation("candidate", metrics={})),
    "a metric that the benchmark does not know": ("missing-metric", rules(metric="bleu")),
    "no size": ("size-missing", metric("candidate", "size_bytes", None)),
    "no size, and no limit on it, where the smallest is to be chosen": ("size-missing", metric("candidate", "size_bytes", None) | rules(limits=None)),
    "no size of the baseline": ("size-missing", metric("baseline", "size_bytes", None)),
    "no latency": ("latency-missing", metric("candidate", "latency_ratio_runtime", None)),
    "no latency, and no limit on it, where the fastest is to be chosen": (
        "latency-missing",
        metric("candidate", "latency_ratio", None) | rules(limits=None, choose="fastest"),
    ),
    "no latency of the longer texts": ("latency-missing", metric("candidate", "latency_p95_ms", None)),
    "no throughput": ("latency-missing", metric("candidate", "throughput_per_s", None)),
    "no steady memory": ("memory-missing", metric("candidate", "steady_memory_bytes", None)),
    "no rounds: an evaluation of an earlier version": ("rounds-missing", evaluation("candidate", rounds={}, load={}) | rules(limits={"times_faster": 1.5})),
    "no rounds of one metric": ("rounds-missing", rounds("throughput_per_s")),
    "no time of the processor": ("rounds-missing", rounds("processor_ratio_runtime")),
    "a NaN of the processor": ("not-a-number", rounds("processor_p95_ms", *[12.0] * 7, NAN)),
    "a busy machine, and only passing time is within the limit": ("machine-too-busy", rounds("processor_ratio_runtime", *[1.4] * 8, processor_share=0.2)),
    "nobody looked at what else ran": ("rounds-missing", evaluation("candidate", load={}) | rules(limits={"times_faster": 1.5})),
    "too few rounds for any bound": ("too-few-rounds", rounds("latency_ratio_runtime", *[3.0] * 4)),
    "too few rounds for this confidence": (
        "too-few-rounds",
        {"accepted_baseline": None, "look": look(budget=1 - 0.998, level=1 - 0.998)}
        | expecting(accepted_baseline_sha256=BASELINE)
        | rules(confidence=0.998, draws=10_000, at_least=None, **VERY_WIDE),
    ),
    "too few processes for their memory": ("too-few-rounds", rounds("peak_memory_bytes", 300e6)),
    "no memory": ("memory-missing", metric("candidate", "peak_memory_bytes", None)),
    "the baseline behind the last promotion was not measured": ("accepted-baseline-missing", {"accepted_baseline": None}),
    "what was spent is not known": ("spent-loss-missing", {"spent_loss": None}),
    "a slice of the policy that is not in the data": ("missing-slice", rules(baseline={"margin": 0.05, "slices": {"hau": 0.08, "swa": 0.08, "yor": 0.08}})),
    "a slice of the data that the policy does not name": ("slice-without-margin", rules(champion={"margin": 0.05, "slices": {"hau": 0.08}})),
    "predictions without a digest": ("predictions-unpinned", evaluation("candidate", predictions_sha256="")),
    # not a number
    "NaN metric": ("not-a-number", metric("candidate", "accuracy", NAN)),
    "infinite metric": ("not-a-number", metric("champion", "accuracy", INF)),
    "a metric that its predictions leave undefined": ("not-a-number", {"scores": lambda totals: {"accuracy": np.full(totals.shape[:-1], np.nan)}}),
    "NaN size": ("not-a-number", metric("candidate", "size_bytes", NAN)),
    "NaN size of the baseline": ("not-a-number", metric("baseline", "size_bytes", NAN)),
    "infinite speed": ("not-a-number", metric("candidate", "latency_ratio_runtime", INF)),
    "a NaN round": ("not-a-number", rounds("latency_ratio_runtime", *[3.0] * 7, NAN)),
    "an infinite round": ("not-a-number", rounds("throughput_per_s", *[150.0] * 7, INF)),
    "NaN memory": ("not-a-number", metric("candidate", "peak_memory_bytes", NAN)),
    "NaN spent": ("not-a-number", {"spent_loss": NAN}),
    "infinitely much spent": ("not-a-number", {"spent_loss": INF}),
    "minus infinitely much spent": ("not-a-number", {"spent_loss": -INF}),
    "NaN count": ("bad-counts", rows("candidate", lambda model: with_count(model, NAN))),
    "infinite count": ("bad-counts", rows("baseline", lambda model: with_count(model, INF))),
    "negative count": ("bad-counts", rows("champion", lambda model: with_count(model, -1))),
    "a model of no size": ("impossible-value", metric("candidate", "size_bytes", 0.0)),
    "a baseline of negative size": ("impossible-value", metric("baseline", "size_bytes", -1.0)),
    "a round without time": ("impossible-value", rounds("latency_p95_ms", *[12.0] * 7, 0.0)),
    "a negative speed": ("impossible-value", metric("candidate", "latency_ratio_runtime", -3.0)),
    "gains saved up": ("impossible-value", {"spent_loss": -0.5}),
    # empty and short
    "no example": ("empty-evaluation", all_of(lambda role: rows(role, lambda model: first_rows(model, 0))) | expecting(examples=0)),
    "no example of the candidate": ("empty-evaluation", rows("candidate", lambda model: first_rows(model, 0))),
    "one example short": ("short-evaluation", rows("candidate", lambda model: first_rows(model, 799))),
    "one example short, all of them": ("short-evaluation", all_of(lambda role: rows(role, lambda model: first_rows(model, 799)))),
    "half a baseline": ("short-evaluation", rows("baseline", lambda model: first_rows(model, 400))),
    "more examples than the split": ("short-evaluation", expecting(examples=700)),
    "fewer examples than asked for": ("too-few-examples", small(480)),
    "a slice too short": ("too-few-examples", rules(min_examples={"overall": 500, "per_slice": 401})),
    "counts cut off": ("mismatched-lengths", rows("candidate", lambda model: replace(model, counts=model.counts[:-1]))),
    "slices cut off": ("mismatched-lengths", rows("champion", lambda model: replace(model, slices=model.slices[:-1]))),
    "references cut off": ("mismatched-lengths", rows("baseline", lambda model: replace(model, references=model.references[:-1]))),
    "counts without rows": ("mismatched-lengths", rows("candidate", lambda model: replace(model, counts=model.counts.sum(axis=0)))),
    "a sample that could not show the margin": (
        "sample-too-small-for-margin",
        {"candidate": BETTER, "accepted_baseline": None}
        | expecting(accepted_baseline_sha256=BASELINE)
        | rules(baseline={"margin": 0.005, "slices": {"hau": 0.08, "swa": 0.08}}),
    ),
    "a slice that could not show its margin": (
        "sample-too-small-for-margin",
        {"candidate": BETTER} | rules(champion={"margin": 0.05, "slices": {"hau": 0.08, "swa": 0.02}}),
    ),
    "a metric that is undefined in many draws": ("undefined-metric", {"scores": rarely_defined} | rules(baseline={"margin": 0.05}, champion={"margin": 0.05})),
    # the look at the test split
    "a variant that was not named": ("not-a-finalist", expecting(finalists=("1" * 64, "2" * 64))),
    "nobody was named": ("not-a-finalist", expecting(finalists=())),
    "no look in the ledger": ("look-missing", {"look": None}),
    "another candidate's look": ("look-mismatch", {"look": look(candidate_sha256="1" * 64)}),
    "a look at another test split": ("look-mismatch", {"look": look(split="1" * 64)}),
    "a look at more than the policy allows": ("look-mismatch", {"look": look(budget=0.1, level=0.1)}),
    "a look at more than all looks share": ("look-mismatch", {"look": look(budget=0.02, level=0.05)}),
    "a look at no level": ("look-mismatch", {"look": look(level=0.0)}),
    "a look that is not a number": ("look-mismatch", {"look": look(level=NAN)}),
    "a look so late that nothing could pass": ("sample-too-small-for-margin", {"candidate": BETTER, "look": look(level=1e-9)}),
    "a look that was refused before": ("look-refused-before", expecting(refused_before=True)),
    # stale
    "another candidate": ("stale-evaluation", expecting(candidate_sha256="1" * 64, finalists=("1" * 64,)) | {"look": look(candidate_sha256="1" * 64)}),
    "another baseline": ("stale-evaluation", expecting(baseline_sha256="1" * 64)),
    "another champion since": ("stale-evaluation", expecting(champion_sha256="1" * 64)),
    "the candidate's evaluation as the baseline's": ("stale-evaluation", {"baseline": case()["candidate"]}),
    "another baseline behind the last promotion": ("stale-evaluation", expecting(accepted_baseline_sha256="1" * 64)),
    "the baseline behind the last promotion on other data": ("different-dataset", evaluation("accepted_baseline", dataset_sha256="1" * 64)),
    "a baseline behind a promotion that nobody made": ("unexpected-baseline", expecting(accepted_baseline_sha256=None)),
    "the champion is gone": ("unexpected-champion", expecting(champion_sha256=None) | rules(first_promotion="allowed")),
    EDITED: ("policy-changed", {"policy": policy(loss_budget=0.5), "expected": expected(policy())}),
    "other data since": ("different-dataset", expecting(dataset_sha256="1" * 64)),
    "a champion measured on older data": ("different-dataset", evaluation("champion", dataset_sha256="1" * 64)),
    # mismatched
    "the same example twice": ("repeated-examples", all_of(lambda role: rows(role, lambda model: replace(model, examples=["t0", *model.examples[:-1]])))),
    "examples in another order": ("different-examples", rows("baseline", lambda model: replace(model, examples=swapped(model.examples)))),
    "examples of another split": ("different-examples", rows("champion", lambda model: replace(model, examples=[f"x{i}" for i in range(800)]))),
    "other references": ("different-examples", rows("baseline", lambda model: replace(model, references=swapped(model.references)))),
    "other slices": ("different-examples", rows("champion", lambda model: replace(model, slices=swapped(model.slices)))),
    "other columns": ("different-counts", rows("baseline", lambda model: replace(model, counts=np.hstack([model.counts, np.zeros((800, 3))])))),
    "a metric that its predictions do not give": ("metric-mismatch", metric("candidate", "accuracy", 0.99)),
    "a baseline made worse on paper": ("metric-mismatch", metric("baseline", "accuracy", 0.5)),
    # groups
    "groups that the predictions lost": ("groups-missing", expecting(groups=400)),
    "groups that the data does not name": ("groups-missing", grouped(range(800), expected=0)),
    "a model measured without groups": ("groups-missing", grouped(range(800)) | {"baseline": case()["baseline"]}),
    "other groups, as many": ("different-examples", grouped(pairs()) | rows("champion", lambda model: replace(model, groups=swapped(pairs())))),
    "groups cut off": ("mismatched-lengths", grouped(range(800)) | rows("candidate", lambda model: replace(model, groups=range(799)))),
    "few groups": ("too-few-groups", grouped([i // 20 for i in range(800)]) | rules(**WIDE)),
    "many groups, one of which holds half of all": ("too-few-groups", grouped([0] * 400 + [*range(1, 401)]) | rules(**WIDE)),
    "few groups in a slice": (
        "too-few-groups",
        grouped([i // 10 for i in range(400)] + [*range(40, 440)])
        | rules(baseline={"margin": 0.3, "slices": {"hau": 0.6, "swa": 0.6}}, champion={"margin": 0.3}, loss_budget=0.9),
    ),
    # trainings
    "a second training that was not made": ("missing-trainings", rules(trainings=2)),
    "a second training that the policy did not ask for": ("missing-trainings", more_trainings(1) | rules()),
    "a second training that nobody expected": ("missing-trainings", more_trainings(1, expected_=0) | rules(trainings=2)),
    "one training of three": ("missing-trainings", more_trainings(1) | rules(trainings=3)),
    "the first training once more": ("repeated-training", more_trainings(1, baseline="b" * 64) | rules(trainings=2)),
    "another training than the run's": ("stale-evaluation", more_trainings(1) | expecting(trainings=(("7" * 64, "8" * 64),)) | rules(trainings=2)),
    "another candidate in the second training": (
        "stale-evaluation",
        more_trainings(1) | expecting(trainings=(("7" * 64, "5" * 64),)) | rules(trainings=2),
    ),
    "a training on other examples": (
        "different-examples",
        more_trainings(1, lambda model: replace(model, examples=swapped(model.examples))) | rules(trainings=2),
    ),
    "a training one example short": ("short-evaluation", more_trainings(1, lambda model: first_rows(model, 799)) | rules(trainings=2)),
    "trainings that lie far apart": ("loss-too-large", more_trainings(1, wrong=set(range(0, 768, 8)) | set(range(1, 400, 10))) | rules(trainings=2)),
    # measured, and not good enough
    "too large": ("size-too-large", metric("candidate", "size_bytes", 31e6)),
    "a byte too large, and nothing else": ("size-too-large", rules(limits={"size_bytes": 19_999_999})),
    "not small enough beside the baseline": ("size-too-large", metric("baseline", "size_bytes", 69e6)),
    "too slow": ("latency-too-high", metric("candidate", "latency_ratio_runtime", 1.49)),
    "fast on the whole, and not surely": ("latency-too-high", rounds("latency_ratio_runtime", *[1.52] * 6, 1.49)),
    "too slow for the longer texts": ("latency-too-high", metric("candidate", "latency_p95_ms", 20.1)),
    "too few texts a second": ("throughput-too-low", metric("candidate", "throughput_per_s", 99.0)),
    "rounds on both sides of the limit": ("machine-too-busy", rounds("latency_ratio_runtime", 1.1, 2.9, 1.3, 3.1, 1.2, 3.0, 1.1, 2.9)),
    "a machine that gave its process too little time": ("machine-too-busy", rounds("latency_ratio_runtime", *[3.0] * 15, 1.49, processor_share=0.6)),
    "a machine whose host was busy": ("machine-too-busy", rounds("throughput_per_s", *[150.0] * 15, 99.0, steal_share=0.1)),
    "a machine that slowed down while it was measured": ("machine-too-busy", rounds("latency_p95_ms", *[12.0] * 12, *[15.0] * 10, 21.0, 12.0)),
    "NaN for what else ran": ("machine-too-busy", rounds("latency_ratio_runtime", *[3.0] * 15, 1.49, processor_share=NAN)),
    "another machine than the limit's": ("other-machine", evaluation("candidate", machine={"processor": "another"})),
    "a machine that nobody named": ("other-machine", evaluation("candidate", machine={})),
    "too much memory while it serves": ("memory-too-high", metric("candidate", "steady_memory_bytes", 401e6)),
    "too much memory once in seven": ("memory-too-high", rounds("peak_memory_bytes", *[300e6] * 6, 501e6)),
    "too much memory": ("memory-too-high", metric("candidate", "peak_memory_bytes", 501e6)),
    "too much lost": ("loss-too-large", {"candidate": measured("small", CANDIDATE, set(range(0, 800, 5)))}),
    "the budget is spent": ("loss-budget-spent", {"spent_loss": 0.1}),
    "a baseline below the floor": ("baseline-below-floor", {"baseline": measured("baseline", BASELINE, WEAK, size_bytes=90e6)} | FORGIVEN),
    "a candidate below the floor": ("candidate-below-floor", {"candidate": measured("small", CANDIDATE, set(range(0, 800, 6)))} | rules(at_least=0.85, **WIDE)),
    "a floor that is reached, but not surely": ("candidate-below-floor", {"baseline": BEST} | rules(at_least=0.86, **WIDE)),
    "a baseline below the floor, where it is compared with nothing": (
        "baseline-below-floor",
        {"baseline": measured("baseline", BASELINE, WEAK, size_bytes=90e6), "accepted_baseline": None} | expecting(accepted_baseline_sha256=None),
    ),
    "a weak baseline": ("weak-baseline", {"baseline": measured("baseline", BASELINE, WEAK, size_bytes=90e6)} | rules(at_least=None)),
    "a baseline that is weak in one slice": (
        "weak-baseline",
        {"baseline": measured("baseline", BASELINE, set(range(0, 384, 8)) | set(range(400, 800, 5)), size_bytes=90e6)} | rules(at_least=None, **IN_ALL),
    ),
    "a baseline that may be weak: its bound lies outside the margin": (
        "weak-baseline",
        {"accepted_baseline": measured("accepted", ACCEPTED, set(range(0, 800, 12)))} | rules(baseline={"margin": 0.05}),
    ),
    "a first promotion without a word": ("first-promotion-not-allowed", {"champion": None} | expecting(champion_sha256=None)),
}


SEVERAL = (
    "a look so late that nothing could pass",
    "no metrics at all",
    "too much lost",
    "no example",
    "the candidate's evaluation as the baseline's",
    "a metric that is undefined in many draws",
    "trainings that lie far apart",
)
"""Cases in which more than one thing is wrong."""


def verdict_of(name: str) -> Verdict:
    """The verdict on a spoiled case. Its policy was recorded before measuring, unless that is what is wrong."""
    changes = CASES[name][1]
    if "policy" in changes and name != EDITED:
        told_then = changes.get("expected", expected(policy()))
        changes = changes | {"expected": told_then.model_copy(update={"policy_sha256": changes["policy"].sha256})}
    return verdict(**changes)
