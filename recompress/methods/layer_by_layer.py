"""Methods that change one layer after another by what flows into it: the draw of the calibration text, and the walk over the groups of linear layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from recompress.layerwise.engine import Visit, each_layer
from recompress.layerwise.statistics import Kind
from recompress.methods.calibration import calibration_features
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import Checkpoint


class Calibrated(Protocol):
    """Settings of a method that looks at text."""

    @property
    def calibration_examples(self) -> int: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def each_group(checkpoint: Checkpoint, config: Calibrated, inputs: Inputs, method: str, wanted: Collection[Kind], visit: Visit) -> Checkpoint:
    """Let ``visit`` change each group of linear layers with one input, by the statistics in ``wanted`` of as many calibration examples as the settings name.

    Goes on behind the last layer that is done, while method, settings, weights and text are the same. Raises what ``calibration_features`` and ``each_layer``
    do.
    """
    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    depends_on = {"method": method, **config.model_dump(mode="json")}
    each_layer(checkpoint.torch_network, features, visit, wanted=wanted, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or method)
    return checkpoint
