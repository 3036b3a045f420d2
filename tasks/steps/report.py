"""The page of a recompression: written once, kept with its MLflow run, and put where a person finds it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recompress.benchmarks import get_benchmark
from recompress.gate.looks_left import left_after
from recompress.gate.rounds import speeds
from recompress.integrity.digest import sha256_file, sha256_json
from recompress.integrity.durable import flush, flush_tree
from recompress.records import DatasetRef, Evaluation, ModelRef, Selection
from recompress.report.figures import metric, metric_name
from recompress.report.page import TEMPLATE
from tasks.data.validate import DataCheck
from tasks.ledger.looks import Named, history_of
from tasks.running.line import line
from tasks.running.recompression import Outcome, Recompression
from tasks.running.step_keys import step_key
from tasks.steps.judge import Judgement
from tasks.steps.promote import Promotion
from tasks.tracking.track import Result

Variants = Sequence[ModelRef]


@line("report")
def write_report(
    run: Recompression,
    dataset: DatasetRef,
    base: ModelRef,
    checks: DataCheck,
    variants: Variants,
    evaluations: Sequence[Evaluation],
    named: Named,
    judgement: Judgement,
    promotion: Promotion,
) -> Outcome:
    """The page and the outcome. The page is remembered like any step, so that the same facts are never drawn twice."""
    primary = run.plan.policy.metric
    summary = summarise(evaluations, named.selection, judgement, promotion, primary)
    left = looks_left(run, named, judgement, promotion)
    facts = made_from(run, dataset, base, checks, promotion, evaluations)
    steps = {model.name: run.claims.get(model.name, []) for model in variants}

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        from recompress.report.page import page

        html = page(
            title=run.plan.recipe.name,
            summary=summary,
            primary=primary,
            evaluations=evaluations,
            selection=named.selection,
            looks=left,
            verdicts=judgement.verdicts,
            winner=promotion.model,
            facts=facts,
            steps=steps,
            recipe_text=run.plan.path.read_text(encoding="utf-8"),
            speeds={evaluation.model: speeds(evaluation, run.plan.policy.alpha) for evaluation in evaluations},
        )
        (folder / "report.html").write_text(html, encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(outcome(summary), indent=2), encoding="utf-8")
        return {}, {"page": folder / "report.html", "json": folder / "report.json"}

    def outcome(text: str) -> dict[str, Any]:
        return {
            "recipe": run.plan.recipe.name,
            "metric": primary,
            "summary": text,
            "looks": left,
            "promotion": promotion.as_json(),
            "finalists": [trial.name for trial in named.selection.finalists],
            "dev": named.selection.as_json(),
            "evaluations": [evaluation.as_json() for evaluation in evaluations],
            "verdicts": {name: verdict.as_json() for name, verdict in judgement.verdicts.items()},
            "made_from": facts,
        }

    digest = sha256_json([run.plan.sha256, outcome(summary), steps])
    key = step_key("report", modules=["recompress.report.page"], config={}, inputs=[digest, sha256_file(TEMPLATE)], seed=0)
    result = run.step("report", key=key, run="", do=do)
    place = publish(run, result)
    text = "\n".join([summary, *([left["told"]] if left else []), str(place)])
    if not run.done:
        text = f"Nothing had to be done again: all {len(run.reused)} steps were found.\n{text}"
    return Outcome(exit_code=promotion.exit_code, text=text, as_json=outcome(summary) | {"page": str(place), "done": run.done, "reused": run.reused})


def summarise(evaluations: Sequence[Evaluation], selection: Selection, judgement: Judgement, promotion: Promotion, primary: str) -> str:
    """One sentence: what was promoted and what it costs and gains, or why nothing was."""
    if promotion.model is None:
        refused = "; ".join(
            [f"{name}: {', '.join(verdict.reasons) or 'not chosen'}" for name, verdict in judgement.verdicts.items()]
            + [f"{trial.name}: not judged ({trial.reason})" for trial in selection.trials if trial.place is None]
        )
        return f"Nothing was promoted. {promotion.reason or refused}"
    baseline, winner = evaluations[0].metrics, next(e for e in evaluations if e.model == promotion.model).metrics
    return (
        f"{promotion.model} is champion of {promotion.registered} (version {promotion.version}): "
        f"{baseline['size_bytes'] / winner['size_bytes']:.1f} times smaller than the baseline, {faster(winner)}, "
        f"{metric_name(primary)} {metric(winner[primary], primary)} against {metric(baseline[primary], primary)}."
    )


def faster(metrics: Mapping[str, float]) -> str:
    """How many times as fast, and than what."""
    of_runtime = metrics.get("latency_ratio_runtime", metrics["latency_ratio"])
    besides = f" and {metrics['latency_ratio']:.1f} times as in torch" if of_runtime != metrics["latency_ratio"] else ""
    writes = f", writes {metrics['decode_ratio']:.1f} times as fast" if "decode_ratio" in metrics else ""
    return f"{of_runtime:.1f} times as fast as it in the same runtime{besides}{writes}"


def looks_left(run: Recompression, named: Named, judgement: Judgement, promotion: Promotion) -> dict[str, Any]:
    """How many looks this test split has had, at what level the next one is judged, and what that means to a person. Empty before the first."""
    history = history_of(run.ledger, run.plan.recipe.register_.model, named.split)
    verdict = judgement.verdicts.get(promotion.model or "") or next(iter(judgement.verdicts.values()), None)
    return left_after(history, verdict, alpha=run.plan.policy.alpha, power=run.plan.policy.power)


def made_from(
    run: Recompression, dataset: DatasetRef, base: ModelRef, checks: DataCheck, promotion: Promotion, evaluations: Sequence[Evaluation]
) -> dict[str, dict[str, Any]]:
    """The lineage, as tables of name and value."""
    recipe = run.plan.recipe
    return {
        "Data": {
            "data set": f"{dataset.name} ({', '.join(dataset.slices)})",
            "examples": ", ".join(f"{split} {rows:,}" for split, rows in dataset.rows.items()),
            "md5 (DVC)": dataset.md5,
            "sha256": dataset.sha256,
            "checks": checks.summary,
            **({"texts that belong together": checks.together} if checks.together else {}),
        },
        "Base model": {"model": recipe.base.model, "revision": recipe.base.revision or "–", "sha256": base.sha256},
        "Decision": {
            "policy": recipe.policy,
            "policy sha256": run.plan.policy.sha256,
            "rule": run.plan.policy.choose,
            "registered as": promotion.registered,
            "version": promotion.version or "–",
            "ledger head": promotion.ledger_head or "–",
        },
        "Machine": dict(evaluations[0].machine) | {"recipe sha256": run.plan.sha256, "benchmark": get_benchmark(recipe.benchmark).name},
    }


def publish(run: Recompression, result: Result) -> Path:
    """Copy the page to ``reports/<recipe>.html``; whole or not at all."""
    place = run.root / "reports" / f"{run.plan.recipe.name}.html"
    place.parent.mkdir(exist_ok=True)
    for label, suffix in (("page", ".html"), ("json", ".json")):
        target = place.with_suffix(suffix)
        partial = target.with_suffix(suffix + ".partial")
        shutil.copyfile(run.store.fetch(result["artifacts"][label]["uri"]), partial)
        flush(partial)
        partial.replace(target)
    flush_tree(place, run.root)
    return place
