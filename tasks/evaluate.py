"""Measuring: quality on the whole test split, speed and memory on this machine, always beside the baseline."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from recompress.benchmarks import get_benchmark
from recompress.digest import sha256_json
from recompress.fingerprint import step_key
from recompress.records import DatasetRef, Evaluation, ModelRef
from tasks.data import examples_of
from tasks.recompression import Recompression
from tasks.track import Result


@task(task_run_name="evaluate {model.name}", cache_policy=NO_CACHE, persist_result=False)
def evaluate(run: Recompression, model: ModelRef, baseline: ModelRef, dataset: DatasetRef) -> Evaluation:
    """Everything that the gate and the page need to know of one model."""
    quality = measure_quality(run, model, dataset)
    speed = measure_speed(run, model, baseline, dataset)
    predictions = quality["artifacts"]["predictions"]
    evaluation = Evaluation(
        model=model.name,
        model_sha256=model.sha256,
        dataset_sha256=dataset.sha256,
        metrics=quality["metrics"] | speed["metrics"],
        slices=quality["slices"],
        types=quality["types"],
        predictions_uri=predictions["uri"],
        predictions_sha256=predictions["sha256"],
        machine=speed["machine"],
    )
    run.log_metrics(model.name, evaluation.metrics)
    run.note("variant-measured", evaluation.digest, {"model": model.name, "model_sha256": model.sha256, "evaluation_sha256": evaluation.digest})
    return evaluation


def measure_quality(run: Recompression, model: ModelRef, dataset: DatasetRef) -> Result:
    """The benchmark's metrics, and the prediction for each example."""
    benchmark = get_benchmark(run.plan.recipe.benchmark)

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        from recompress.measure.quality import evaluate_quality

        measured = evaluate_quality(run.store.fetch(model.uri), examples_of(dataset, "test"), folder / "predictions.parquet")
        return {"metrics": measured.metrics, "slices": measured.slices, "types": measured.types}, {"predictions": folder / "predictions.parquet"}

    key = step_key(
        "quality", modules=["recompress.measure.quality", type(benchmark).__module__], config={}, inputs=[model.sha256, dataset.sha256, *dataset.slices], seed=0
    )
    return run.step(f"{model.name}/quality", key=key, run=model.name, do=do, label=f"predicting {dataset.rows['test']:,} test examples")


def measure_speed(run: Recompression, model: ModelRef, baseline: ModelRef, dataset: DatasetRef) -> Result:
    """Bytes, parameters, latency, throughput, memory: a result of these models on this machine."""
    from recompress.measure.machine import machine_facts

    machine = machine_facts()

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        from recompress.measure.speed import measure

        measured = measure(run.store.fetch(model.uri), run.store.fetch(baseline.uri), examples_of(dataset, "test"), folder)
        return {"metrics": measured, "machine": machine}, {}

    key = step_key(
        "speed",
        modules=["recompress.measure.speed", "recompress.measure.size"],
        config=sha256_json(machine),
        inputs=[model.sha256, baseline.sha256, dataset.sha256, *dataset.slices],
        seed=0,
    )
    return run.step(f"{model.name}/speed", key=key, run=model.name, do=do, label="timing beside the baseline")
