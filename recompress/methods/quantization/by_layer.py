"""What the methods share that store the matrices of the layers in codes: how they are registered, and layer after layer, each seeing what the one before became.

A method gives the matrix for a weight and the statistics of its inputs; what stands in the place of the linear layer, the text and the resuming are here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Kind, Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.grid import check_output
from recompress.methods.registry import Inputs
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import packed_linear
from recompress.models.packed.modules import Matrix
from recompress.settings.base import Settings

PACKED: dict[str, Any] = {"family": "quantization", "gives": "packed", "benchmarks": ALL_BENCHMARKS, "architectures": ALL_ARCHITECTURES}
"""What all of them register alike."""
EVEN_STEPS: dict[str, Any] = {**PACKED, "check_benchmark": check_output}
"""And those whose steps are even."""

Coding = Callable[[Group, Statistics], Mapping[str, Matrix]]
"""``coding(group, statistics)``: the matrices that are to stand in the place of linear layers with the same input, by name; those left out stay."""


SPEED = "studies/results/packed_speed.md"


def written(share: str, texts: str) -> str:
    """What methods of even steps say of speed: ``share`` for a token behind a prompt, ``texts`` for a text of 32 tokens; of ``SPEED``, one thread on a CPU."""
    return f"writing: torch multiplies the codes as they are, and a token takes {share} of the floats' time; a text of 32 tokens takes {texts} times as long ({SPEED})"


def slower(times: str) -> str:
    """What methods of codebooks say of it."""
    return f"nothing: weights are unpacked, once for all texts of a call, so that torch takes {times} times as long for 32 tokens ({SPEED})"


def code_layers(
    checkpoint: Checkpoint, inputs: Inputs, method: str, config: Settings, coding: Coding, *, wanted: Collection[Kind], examples: int, **depends_on: Any
) -> None:
    """Put coded matrices into the layers, from the first to the last. ``examples`` are looked at; ``depends_on`` is what the result depends on beside the
    settings. Raises what ``each_layer`` and ``calibration_features`` raise."""

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        return {name: packed_linear(matrix, group[name]) for name, matrix in coding(group, statistics).items()}

    features = calibration_features(checkpoint, inputs, examples)
    everything = {"method": method, **depends_on, **config.model_dump(mode="json")}
    label = inputs.label or method
    each_layer(checkpoint.torch_network, features, visit, wanted=wanted, depends_on=everything, workdir=inputs.workdir, label=label)
