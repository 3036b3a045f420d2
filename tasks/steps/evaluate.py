"""Measuring: quality on the whole test split, then speed and memory on this machine, all models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recompress.benchmarks import ComparesWith, get_benchmark
from recompress.gate.rounds import rounds_needed, too_busy
from recompress.measure.how_often import LIMITED, MOST, Rounds
from recompress.measure.machine import machine_facts
from recompress.policy import Policy
from recompress.records import DatasetRef, Evaluation, ModelRef, Split
from tasks.data.bring import examples_of
from tasks.running.line import line
from tasks.running.recompression import Recompression
from tasks.running.step_keys import step_key
from tasks.tracking.track import Result

TIMED = [f"recompress.measure.{name}" for name in ("speed", "compared", "size", "latency", "memory", "writing")] + ["recompress.methods.full_precision"]
"""Whose code the figures depend on."""


@line("evaluate")
def evaluate(run: Recompression, models: Sequence[ModelRef], baseline: ModelRef, dataset: DatasetRef) -> list[Evaluation]:
    """Everything that the gate and the page need to know of each model."""
    qualities = [measure_quality(run, model, dataset, baseline) for model in models]
    speeds = measure_speeds(run, models, baseline, dataset)
    return [join(run, *parts, dataset) for parts in zip(models, qualities, speeds, strict=True)]


def join(run: Recompression, model: ModelRef, quality: Result, speed: Result, dataset: DatasetRef) -> Evaluation:
    """One record of both, in MLflow and in the ledger too."""
    return record(run, model, quality, dataset, speed)


def record(run: Recompression, model: ModelRef, quality: Result, dataset: DatasetRef, speed: Result | None = None) -> Evaluation:
    """The same of a model whose speed need not be known."""
    predictions = quality["artifacts"]["predictions"]
    evaluation = Evaluation(
        model=model.name,
        model_sha256=model.sha256,
        dataset_sha256=dataset.sha256,
        metrics=quality["metrics"] | (speed["metrics"] if speed else {}),
        slices=quality["slices"],
        types=quality["types"],
        predictions_uri=predictions["uri"],
        predictions_sha256=predictions["sha256"],
        machine=speed["machine"] if speed else {},
        rounds=speed["rounds"] if speed else {},
        load=speed["load"] if speed else {},
    )
    run.log_metrics(model.name, evaluation.metrics)
    run.note("variant-measured", evaluation.digest, {"model": model.name, "model_sha256": model.sha256, "evaluation_sha256": evaluation.digest})
    return evaluation


def measure_quality(run: Recompression, model: ModelRef, dataset: DatasetRef, baseline: ModelRef, split: Split = "test") -> Result:
    """The benchmark's metrics, and the prediction for each example; beside the baseline's, where the benchmark compares models with it."""
    step = "quality" if split == "test" else f"{split}-quality"
    benchmark = get_benchmark(run.plan.recipe.benchmark)
    compares = isinstance(benchmark, ComparesWith)
    theirs = measure_quality(run, baseline, dataset, baseline, split)["artifacts"]["predictions"] if compares and model.sha256 != baseline.sha256 else None

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        from recompress.measure.quality import Beside, evaluate_quality

        place = folder / "predictions.parquet"
        beside = Beside(run.store.fetch(baseline.uri), None if theirs is None else run.store.fetch(theirs["uri"])) if compares else None
        measured = evaluate_quality(run.store.fetch(model.uri), examples_of(dataset, split), place, label=f"{model.name}/{step}", beside=beside)
        return {"metrics": measured.metrics, "slices": measured.slices, "types": measured.types}, {"predictions": place}

    modules = ["recompress.measure.quality", type(benchmark).__module__]
    others = [baseline.sha256] if compares else []
    key = step_key(step, modules=modules, config={}, inputs=[model.sha256, dataset.sha256, *dataset.slices, *others], seed=0)
    return run.step(f"{model.name}/{step}", key=key, run=model.name, do=do)


def rounds_for(policy: Policy) -> Rounds:
    """As many rounds as the policy's limits need for their bounds, and a few for the page where it has none."""
    limits, least = policy.limits, max(LIMITED, 2 + rounds_needed(policy.alpha))
    if limits is None:
        return Rounds()
    of_speed = limits.times_faster is not None or limits.latency_p95_ms is not None
    of_memory = limits.peak_memory_bytes is not None or limits.steady_memory_bytes is not None
    usual = Rounds()
    return Rounds(
        single=least if of_speed or limits.throughput_per_s is not None else usual.single,
        batches=least if limits.throughput_per_s is not None else None,
        cold=(least if limits.caches == "cold" else rounds_needed(policy.alpha)) if limits.times_faster is not None else None,
        most=MOST if of_speed or limits.throughput_per_s is not None else 1,
        memory=rounds_needed(policy.alpha) if of_memory else 1,
        writing=least if limits.times_faster_writing is not None else None,
    )


def compared_with(policy: Policy) -> list[str]:
    """The runtime whose baseline every model is compared with, where the policy names one."""
    named = policy.limits.against if policy.limits is not None else "runtime"
    return [] if named == "runtime" else [named]


def measure_speeds(run: Recompression, models: Sequence[ModelRef], baseline: ModelRef, dataset: DatasetRef) -> list[Result]:
    """Bytes, parameters, latency, throughput, memory: results of these models on this machine.

    What has to be timed is timed together, interleaved in one process; each model's result is remembered by itself. Times of an earlier run from which nobody can
    tell whether a limit of the policy is kept, because the machine was too busy, are taken anew.
    """
    machine, plan, asked = machine_facts(), rounds_for(run.plan.policy), compared_with(run.plan.policy)
    digests = [baseline.sha256, dataset.sha256, *dataset.slices]
    measured = machine | {"rounds": plan._asdict()}
    keys = {m.name: step_key("speed", modules=TIMED, config=measured | {"beside": [m.runtime, *asked]}, inputs=[m.sha256, *digests], seed=0) for m in models}

    def busy(result: Result) -> str:
        """Why times that were found again tell nothing: a limit of the policy lies inside their noise, and the machine is to blame."""
        timed = {name: result[name] for name in ("metrics", "machine", "rounds", "load")}
        return too_busy(run.plan.policy, Evaluation(model="", model_sha256=baseline.sha256, dataset_sha256=dataset.sha256, slices={}, **timed))

    missing = [m for m in models if run.known(f"{m.name}/speed", keys[m.name], busy) is None]
    timed: dict[str, Result] = {}

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        from recompress.measure.speed import measure_rounds
        from recompress.methods.full_precision import in_full_precision

        if not timed:
            places, start, examples = [run.store.fetch(model.uri) for model in missing], run.store.fetch(baseline.uri), examples_of(dataset, "test")
            others = in_full_precision(start, [*asked, *(model.runtime for model in missing)], examples, folder)
            measurements = measure_rounds(places, start, examples, folder, plan=plan, others=others)
            timed.update({model.name: measurement._asdict() for model, measurement in zip(missing, measurements, strict=True)})
        return {**timed[name], "machine": machine}, {}

    results = []
    for name, key in keys.items():
        label = f"timing {len(missing)} models side by side; nothing else should run now" if missing and not timed else ""
        results.append(run.step(f"{name}/speed", key=key, run=name, do=do, label=label, doubt=busy, alone=not timed))
    return results
