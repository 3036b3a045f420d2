"""Before the test split is looked at: every variant on the dev split, and who of them is judged, in an order that the ledger holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recompress.benchmarks import get_benchmark
from recompress.errors import IntegrityError
from recompress.gate import select
from recompress.integrity.digest import sha256_json
from recompress.records import DatasetRef, Evaluation, ModelRef, Selection
from tasks.ledger.looks import Named, split_digest
from tasks.running.line import line
from tasks.running.recompression import Recompression
from tasks.running.step_keys import step_key
from tasks.steps.evaluate import measure_quality, measure_speeds
from tasks.steps.judge import Champion
from tasks.steps.settled import NAMED, key_then
from tasks.steps.verdict import measured_of
from tasks.tracking.track import Result


@line("try on dev")
def try_on_dev(run: Recompression, models: Sequence[ModelRef], baseline: ModelRef, dataset: DatasetRef) -> list[Evaluation]:
    """Quality on the dev split, with size, speed and memory, of every model. They choose, and promise nothing."""
    qualities = [measure_quality(run, model, dataset, baseline, "dev") for model in models]
    speeds = measure_speeds(run, models, baseline, dataset)
    trials = []
    for model, quality, speed in zip(models, qualities, speeds, strict=True):
        predictions = quality["artifacts"]["predictions"]
        run.log_metrics(model.name, {f"dev_{name}": value for name, value in quality["metrics"].items()})
        trials.append(
            Evaluation(
                model=model.name,
                model_sha256=model.sha256,
                dataset_sha256=dataset.sha256,
                metrics=quality["metrics"] | speed["metrics"],
                slices=quality["slices"],
                predictions_uri=predictions["uri"],
                predictions_sha256=predictions["sha256"],
                machine=speed["machine"],
                rounds=speed["rounds"],
                load=speed["load"],
            )
        )
    return trials


@line("name finalists")
def name_finalists(
    run: Recompression, dataset: DatasetRef, baseline: ModelRef, variants: Sequence[ModelRef], trials: Sequence[Evaluation], champion: Champion
) -> Named:
    """Who is judged on the test split, and in which order. Written in the ledger before any model answers a test example.

    Raises ``IntegrityError`` when the ledger holds that others were named on the same evidence.
    """
    policy, benchmark = run.plan.policy, get_benchmark(run.plan.recipe.benchmark)
    evidence = sha256_json([run.plan.sha256, policy.sha256, dataset.sha256, *(trial.digest for trial in trials if trial.model != "champion")])

    def key_against(version: str) -> str:
        return step_key("finalists", modules=["recompress.gate"], config=policy.as_json(), inputs=[evidence, version], seed=0)

    same = champion.tags.get("recompress.trial") == evidence  # the champion was promoted on this, and may itself be what was chosen then
    then = key_then(run, "finalists", key_against(champion.tags.get("recompress.judged_against", "")), champion.tags, NAMED) if same else ""
    key = then or key_against(champion.version)

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        measured = {trial.model: measured_of(run, trial) for trial in trials}
        beaten = next((m for m in measured.values() if champion.sha256 and m.evaluation.model_sha256 == champion.sha256), None)
        candidates = [measured[model.name] for model in variants]
        chosen = select(policy, lambda totals: benchmark.metrics(totals, dataset.labels), candidates, measured[baseline.name], beaten)
        return {"selection": chosen.as_json()}, {}

    result = run.step("finalists", key=key, run="", do=do, label=f"{len(variants)} variants compared on the dev split")
    named = Named(key, split_digest(dataset), evidence, Selection.model_validate(result["selection"]))
    content = names_in_order(named.selection)
    run.note("finalists-named", key, {"model": run.plan.recipe.register_.model, "split": named.split, "content": content})
    written = run.ledger.last("finalists-named", key=key)
    if written is None or written.body["content"] != content:
        raise IntegrityError("the remembered finalists are not those that the ledger names; whoever changed them chose anew")
    return named


def names_in_order(selection: Selection) -> dict[str, Any]:
    """What the ledger says: the finalists in their order, why each of the others is none, and the digest of all that dev said."""
    finalists = [{"name": trial.name, "sha256": trial.sha256} for trial in selection.finalists]
    return {"finalists": finalists, "others": {t.name: t.reason for t in selection.trials if t.place is None}, "selection": selection.digest}


def finalists_of(variants: Sequence[ModelRef], named: Named) -> list[ModelRef]:
    """The models of the finalists, in the recipe's order."""
    names = {trial.name for trial in named.selection.finalists}
    return [model for model in variants if model.name in names]


def to_be_judged(baseline: ModelRef, variants: Sequence[ModelRef], named: Named, champion: Champion) -> list[ModelRef]:
    """The models that answer the test split: baseline, finalists and champion, and nobody else."""
    finalists = {trial.name for trial in named.selection.finalists}
    reigning = [model for model in variants if model.sha256 == champion.sha256][:1]
    there = [model for model in variants if model.name in finalists or model in reigning]
    return [baseline, *there, *champion.models]
