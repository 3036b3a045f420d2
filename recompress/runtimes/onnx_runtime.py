"""ONNX Runtime on the CPU. Imports neither torch nor transformers, so that an image that serves a model needs none of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError, IntegrityError
from recompress.records import Runtime as RuntimeName
from recompress.runtimes.batches import BATCH_SIZE, Batch, Feature, Part, in_order, in_parts, one_answer, with_all
from recompress.runtimes.cutting import NBITS, ONNX, STATIC_INT8
from recompress.runtimes.processor import int8_overflows

if TYPE_CHECKING:
    from recompress.models.checkpoint import Info

log = logging.getLogger(__name__)
ONNX_FILE = "model.onnx"
QUIET = 3
"""Errors only."""
SLOWER = ("SkipLayerNormFusion",)
"""ONNX Runtime's optimizers that are left out, since what they make is slower than what they replace. SkipLayerNormalization takes 33 µs a node, the Add and the
LayerNormalization that it stands for 5 and 7 (its profiler, 2026-11-30). Of an encoder of six layers one text is answered 1.18 times as fast without it as dynamic and 1.14
as static int8; as floats the difference is lost in the rest (``studies/results/lean.md``)."""
CALIBRATED = "calibration_examples"
"""Stands in what is said of an int8 graph that has its ranges from calibration. Others take one range for all that is asked in a call, padding and neighbours
included: an answer would depend on its company."""


class OnnxRuntime:
    """``model.onnx`` of a model directory. Raises ``InputError`` when it is missing and ``IntegrityError`` when ONNX Runtime cannot read it."""

    name: RuntimeName = "onnx"

    def __init__(self, directory: Path, info: Info, threads: int) -> None:
        import onnxruntime

        path = directory / ONNX_FILE
        if not path.is_file():
            raise InputError(f"{directory} has no {ONNX_FILE}")
        if info.onnx.get("int8") and not info.onnx.get("reduce_range") and int8_overflows():
            log.warning("%s: int8 sums can overflow on this processor, which lacks VNNI; make the model again with reduce_range: true", directory)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        # Threads that spin between calls would take the processor from whatever is measured next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("optimization.disable_specified_optimizers", ";".join(SLOWER))
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise IntegrityError(f"{path} is cut off or broken: {str(error).splitlines()[0]}") from None
        self.threads = threads
        self.pad_id = int(info.onnx.get("pad_id", 0))
        self.asks_alone = bool(info.onnx.get("int8")) and CALIBRATED not in info.onnx
        """Whether texts are put to the graph one by one, whoever asks: what is measured is what is served."""
        self.cost = STATIC_INT8 if info.onnx.get("int8") else NBITS if "accuracy_level" in info.onnx else ONNX
        self._inputs = [given.name for given in self.session.get_inputs()]

    def logits(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> list[Float[np.ndarray, "..."]]:
        return in_order(self.in_parts(features, batch_size))

    def in_parts(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> Iterator[Part]:
        return in_parts(features, self._run, self.pad_id, 1 if self.asks_alone else batch_size, self.cost)

    def _run(self, batch: Batch) -> Float[np.ndarray, "batch ..."]:
        return one_answer(self.session.run(None, with_all(batch, self._inputs)))
