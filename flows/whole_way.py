"""The lines of a recompression, in their order: data, checks, baseline, variants, finalists, measures, verdicts, promotion, page."""

from __future__ import annotations

from tasks.data.bring import bring_data
from tasks.data.validate import check_data
from tasks.running.interrupt import ending_at_once
from tasks.running.prefect_server import named_server
from tasks.running.recompression import Outcome, Recompression, Say, begun, listener
from tasks.steps.compress import compress_all
from tasks.steps.evaluate import evaluate
from tasks.steps.finalists import finalists_of, name_finalists, to_be_judged, try_on_dev
from tasks.steps.judge import judge_all, present_champion
from tasks.steps.promote import promote
from tasks.steps.repetition import Repetition
from tasks.steps.report import write_report
from tasks.steps.train import find_base_model, train_baseline
from tasks.steps.trainings import train_again


def whole_way(run: Recompression) -> Outcome:
    """Bring every variant of a recipe up to date, and promote the best one that passes its policy."""
    dataset = bring_data(run)
    checks = check_data(run, dataset)

    base = find_base_model(run)
    baseline = train_baseline(run, dataset, base)
    variants = compress_all(run, run.plan.steps, baseline, dataset)
    champion = present_champion(run, variants)

    trials = try_on_dev(run, [baseline, *variants, *champion.models], baseline, dataset)
    named = name_finalists(run, dataset, baseline, variants, trials, champion)
    evaluations = evaluate(run, to_be_judged(baseline, variants, named, champion), baseline, dataset)

    trained = train_again(run, dataset, base, finalists=finalists_of(variants, named))
    judgement = judge_all(run, dataset, baseline, named, evaluations, champion, trained)
    promotion = promote(run, dataset, base, checks, evaluations, judgement, variants, champion, trained)
    return write_report(run, dataset, base, checks, variants, evaluations, named, judgement, promotion)


def found_again(recipe: str, root: str, say: Say, *, propose: bool = False) -> Outcome | None:
    """What a run comes to that has nothing to do, within seconds and without a server; ``None`` where it has, and where a server is named, which sees every run."""
    if named_server() is not None:
        return None
    with ending_at_once(), listener(say), begun(Repetition, recipe, root, propose=propose) as run:
        return run.repeat(whole_way)
