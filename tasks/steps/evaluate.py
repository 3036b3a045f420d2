"""Measuring: quality on the whole test split, then speed and memory on this machine, all models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from recompress.benchmarks import get_benchmark
from recompress.integrity.fingerprint import step_key
from recompress.records import DatasetRef, Evaluation, ModelRef
from tasks.data.bring import examples_of
from tasks.running.recompression import Recompression
from tasks.tracking.track import Result


@task(task_run_name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate(run: Recompression, models: Sequence[ModelRef], baseline: ModelRef, dataset: DatasetRef) -> list[Evaluation]:
    """Everything that the gate and the page need to know of each model."""
    qualities = [measure_quality(run, model, dataset) for model in models]
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
    )
    run.log_metrics(model.name, evaluation.metrics)
    run.note("variant-measured", evaluation.digest, {"model": model.name, "model_sha256": model.sha256, "evaluation_sha256": evaluation.digest})
    return evaluation


def measure_quality(run: Recompression, model: ModelRef, dataset: DatasetRef) -> Result:
    """The benchmark's metrics, and the prediction for each example."""
    benchmark = get_benchmark(run.plan.recipe.benchmark)

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        from recompress.measure.quality import evaluate_quality

        place = folder / "predictions.parquet"
        measured = evaluate_quality(run.store.fetch(model.uri), examples_of(dataset, "test"), place, label=f"{model.name}/quality")
        return {"metrics": measured.metrics, "slices": measured.slices, "types": measured.types}, {"predictions": place}

    modules = ["recompress.measure.quality", type(benchmark).__module__]
    key = step_key("quality", modules=modules, config={}, inputs=[model.sha256, dataset.sha256, *dataset.slices], seed=0)
    return run.step(f"{model.name}/quality", key=key, run=model.name, do=do)


def measure_speeds(run: Recompression, models: Sequence[ModelRef], baseline: ModelRef, dataset: DatasetRef) -> list[Result]:
    """Bytes, parameters, latency, throughput, memory: results of these models on this machine.

    What has to be timed is timed together, interleaved in one process; each model's result is remembered by itself.
    """
    from recompress.measure.machine import machine_facts
    from recompress.measure.speed import measure_all

    machine = machine_facts()
    digests = [baseline.sha256, dataset.sha256, *dataset.slices]
    modules = ["recompress.measure.speed", "recompress.measure.size", "recompress.measure.latency", "recompress.measure.memory"]
    keys = {m.name: step_key("speed", modules=modules, config=machine, inputs=[m.sha256, *digests], seed=0) for m in models}
    missing = [m for m in models if run.store.recall(keys[m.name], run.say) is None]
    timed: dict[str, Result] = {}

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        if not timed:
            places = [run.store.fetch(model.uri) for model in missing]
            measurements = measure_all(places, run.store.fetch(baseline.uri), examples_of(dataset, "test"), folder)
            timed.update({model.name: metrics for model, metrics in zip(missing, measurements, strict=True)})
        return {"metrics": timed[name], "machine": machine}, {}

    results = []
    for name, key in keys.items():
        label = f"timing {len(missing)} models side by side; nothing else should run now" if missing and not timed else ""
        results.append(run.step(f"{name}/speed", key=key, run=name, do=do, label=label))
    return results
