"""The whole way: data, checks, baseline, variants, finalists, measures, verdicts, promotion, page.

recompress run recipes/quickstart.yaml
"""

from __future__ import annotations

from prefect import flow

from tasks.data.bring import bring_data
from tasks.data.validate import check_data
from tasks.running.recompression import Outcome, recompression
from tasks.steps.compress import compress_all
from tasks.steps.evaluate import evaluate
from tasks.steps.finalists import finalists_of, name_finalists, to_be_judged, try_on_dev
from tasks.steps.judge import judge_all, present_champion
from tasks.steps.promote import promote
from tasks.steps.report import write_report
from tasks.steps.train import find_base_model, train_baseline
from tasks.steps.trainings import train_again
from tasks.workers.share import share_work


@flow(name="recompress", flow_run_name="{recipe}", validate_parameters=False, persist_result=False)
def recompress(recipe: str, root: str = ".", propose: bool = False, workers: int = 1, pool: str = "") -> Outcome:
    """Bring every variant of a recipe up to date, and promote the best one that passes its policy; with ``propose`` a person decides about that. ``workers`` compress
    variants at the same time: processes of this machine, or of those that take work from a Prefect work ``pool``."""
    with recompression(recipe, root, propose=propose) as run:
        share_work(run, workers, pool)
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
