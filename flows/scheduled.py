"""A recipe at its time, as a Prefect worker runs it.

recompress schedule recipes/quickstart.yaml --cron "15 3 * * *"
"""

from __future__ import annotations

from pathlib import Path

from prefect import State, flow

from flows.recompress import recompress
from tasks.running.recompression import Outcome, Say
from tasks.schedule.ending import ended
from tasks.watch.tell import begin_telling, tell_people


@flow(name="scheduled", flow_run_name="{recipe}", retries=2, retry_delay_seconds=60, validate_parameters=False, persist_result=False)
def scheduled(recipe: str, root: str = ".") -> State:
    """Do what ``recompress run RECIPE`` does, and tell people. What may pass is tried again, twice, a minute later."""

    def do(home: Path, say: Say) -> Outcome:
        begin_telling(home)
        outcome = recompress.fn(recipe, str(home))
        tell_people(home, say)
        return outcome

    return ended(root, do)
