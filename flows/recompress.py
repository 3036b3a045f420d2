"""The whole way as a flow of Prefect.

recompress run recipes/quickstart.yaml
"""

from __future__ import annotations

from prefect import flow

from flows.whole_way import whole_way
from tasks.running.interrupt import ending_at_once_inside
from tasks.running.recompression import Outcome, recompression
from tasks.workers.share import share_work


@flow(name="recompress", flow_run_name="{recipe}", validate_parameters=False, persist_result=False)
def recompress(recipe: str, root: str = ".", propose: bool = False, workers: int = 1, pool: str = "") -> Outcome:
    """Bring every variant of a recipe up to date, and promote the best one that passes its policy; with ``propose`` a person decides about that. ``workers`` compress
    variants at the same time: processes of this machine, or of those that take work from a Prefect work ``pool``."""
    with ending_at_once_inside(), recompression(recipe, root, propose=propose) as run:
        share_work(run, workers, pool)
        return whole_way(run)
