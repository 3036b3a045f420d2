"""Whether everything that a run begins with lies on this machine as it is pinned, so that nothing has to be fetched for it."""

from __future__ import annotations

from recompress.data.sources import read_settings_of
from recompress.models.base import WEIGHTS
from recompress.models.hub import is_cached
from recompress.recipe import BaseChoice
from tasks.data.pins import is_here, pins_of
from tasks.running.recompression import Recompression


def data_is_at_hand(run: Recompression) -> bool:
    """The recipe's data, labelled and unlabelled."""
    chosen = run.plan.recipe.dataset
    pins = [pin for name in filter(None, (chosen.name, chosen.unlabelled)) for pin in pins_of(run.root, name, read_settings_of(run.root, name).source)]
    return all(is_here(run.root, pin) for pin in pins)


def bases_are_at_hand(run: Recompression) -> bool:
    """The base, and the baseline where one is given."""
    return all(_is_at_hand(run, choice) for choice in (run.plan.recipe.base, run.plan.recipe.baseline.given) if choice is not None)


def _is_at_hand(run: Recompression, base: BaseChoice) -> bool:
    """What is no hub id is looked for where it must be."""
    if base.model.startswith("models:/"):
        return run.store.is_local and run.store.exists
    if base.model.startswith("package://") or (run.root / base.model).is_dir() or base.revision is None:
        return True
    return is_cached(base.model, base.revision, WEIGHTS)
