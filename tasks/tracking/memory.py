"""The memory of finished steps, believed only as far as the ledger knows it.

MLflow keeps a step's result and its files; the ledger keeps, from before MLflow is told that the step is finished, where the result lies and what its bytes hash
to. Whoever finds a step again begins with the ledger's record, so nothing that MLflow's database says is believed. Its tags are compared all the same: one that
names another result than the ledger does was laid there by somebody, and that is told and not worked around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recompress.errors import IntegrityError
from recompress.ledger import Entry, Ledger
from tasks.ledger.access import actor
from tasks.tracking.reading import KeptRun
from tasks.tracking.track import Result, Store

KIND = "step-kept"


class ForgedStep(IntegrityError):
    """MLflow names another result of a step than the ledger does."""


@dataclass(frozen=True)
class Memory:
    """What a project's MLflow keeps of finished steps, and what its ledger knows of them."""

    store: Store
    ledger: Ledger

    def recall(self, key: str, step: str, doubt: Callable[[str], None]) -> Result | None:
        """The result of a finished step as the ledger knows it; ``None`` when it has to be done again, and ``doubt`` is told why.

        Of several records the latest that MLflow still has counts. Raises ``ForgedStep`` where MLflow names a result that the ledger does not know.
        """
        known = self.ledger.entries(KIND, key=key)
        runs = self.store.runs_with_step(key)
        if not known:
            if runs:
                doubt(
                    f"{step}: MLflow holds a result of it that the ledger does not know (an earlier version or another project made it, or somebody laid it there), "
                    "so the step is done again"
                )
            return None
        for line in forged(key, known, runs, own=self.store.is_own):
            raise ForgedStep(line)
        for entry in reversed(known):
            try:
                return self.store.read_step(entry.body["run"], entry.body["place"], entry.body["sha256"])
            except (OSError, IntegrityError, ValueError, KeyError) as error:
                doubt(f"{step}: a stored result is not what it was, so the step runs again: {error}")
        return None

    def knows(self, key: str) -> bool:
        """Whether the ledger knows of a result of this step, whatever became of it."""
        return self.ledger.last(KIND, key=key) is not None

    def keep(self, key: str, step: str, run_id: str, place: str, result: Result, files: Mapping[str, Path], about: Mapping[str, Any] | None = None) -> Result:
        """Store a step's result: its files, then the ledger's record, then the tag. What is cut off in between is done again or found, and never half believed.

        ``about`` is what the record says besides: how long the step took, and what its key is made of."""
        if self.store.is_own and not self.knows(key):
            self.store.retire_step(key)  # before the record: or what an earlier version left would look forged once the ledger knows the step

        def anchor(sha256: str) -> None:
            body = {
                **(about or {}),
                "key": key,
                "step": step,
                "run": run_id,
                "home": self.store.relative(self.store.home_of(run_id)),
                "place": f"{place}/step.json",
                "sha256": sha256,
            }
            self.ledger.append(KIND, body, actor=actor())

        return self.store.keep(run_id, place, key, result, files, anchor)


def forged(key: str, known: list[Entry], runs: list[KeptRun], *, own: bool) -> Iterator[str]:
    """A line for each tag that names a result which no record of this step knows. In a store that projects share, only runs that a record names are this project's."""
    results = {(entry.body["run"], f"{entry.body['place']}#{entry.body['sha256']}") for entry in known}
    mine = {entry.body["run"] for entry in known}
    last = known[-1]
    for run in runs:
        run_id, tag = run.id, run.tags[f"step.{key}"]
        if (own or run_id in mine) and (run_id, tag) not in results:
            yield (
                f"step {last.body['step']} was forged: the tag step.{key[:8]}… of MLflow's run {run_id} names a result with sha256 {tag.rpartition('#')[2][:12]}…, "
                f"ledger record {last.sequence} knows {last.body['sha256'][:12]}…; find out who laid it there, then take it away "
                f"(MlflowClient().delete_tag('{run_id}', 'step.{key}')) and run again: what the ledger knows is found without it"
            )
