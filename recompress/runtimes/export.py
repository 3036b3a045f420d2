"""From torch to ONNX: one graph for all lengths and batch sizes, compared with the network before anybody uses it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from recompress.errors import IntegrityError
from recompress.models.architecture import layers_of
from recompress.models.onnx_data import session_of
from recompress.models.onnx_graph import check_fits, strip
from recompress.models.padding import padding_of
from recompress.models.shared_layers import shares_of
from recompress.runtimes.asking import OUTPUTS, finds_spans, logits_of
from recompress.runtimes.batches import INPUTS, one_answer
from recompress.runtimes.lean import make_lean
from recompress.runtimes.outlines import recall, remember, shape_of
from recompress.runtimes.turned import turn_constants

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

CLOSE = 1e-4
"""The largest difference of a logit, relative to the largest logit, that another order of the same sums may give."""


def export_graph(network: PreTrainedModel, *, one_file: bool = True, segments: bool = False) -> onnx.ModelProto:
    """The network as a graph from ``input_ids`` and ``attention_mask``, and with ``segments`` from ``token_type_ids`` too (all ``[batch, sequence]``, any
    sizes), to ``logits``, or to ``start_logits`` and ``end_logits`` of a head that finds spans. The same network gives the same bytes.

    Raises ``InputError`` for a network that no graph in ``one_file`` can hold, and ``IntegrityError`` when the graph answers differently from the network.
    """
    if one_file:
        check_fits(sum(parameter.numel() for parameter in network.parameters()), "the model")
    names = INPUTS if segments else INPUTS[:2]
    shape = shape_of(network, names)
    if (known := recall(shape, network)) is not None:
        with suppress(IntegrityError):  # something in the graph was not of the shape after all
            return _finished(known, network, names)
    model = _exported(network, names)
    remember(shape, model, network)
    return _finished(model, network, names)


def _finished(model: onnx.ModelProto, network: PreTrainedModel, names: Sequence[str]) -> onnx.ModelProto:
    """Fit to be run, and compared with the network."""
    if shares_of(network) != tuple(range(len(layers_of(network)))):
        model = _stored_once(model)
    turn_constants(model)
    make_lean(model)
    strip(model)
    _check_same(model, network, names)
    return model


def _exported(network: PreTrainedModel, names: Sequence[str]) -> onnx.ModelProto:
    """What torch's exporter makes of it."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            answered = self.network(**dict(zip(names, given, strict=True)))
            return tuple(answered[name] for name in outputs)

    outputs = OUTPUTS if finds_spans(network) else ("logits",)
    ids = torch.ones((2, 5), dtype=torch.long)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    usual, usual_cache = network.config._attn_implementation, getattr(network.config, "use_cache", None)
    try:
        # torch's fused attention guards against rows without a single token: a dozen nodes a layer for a case that a [CLS] excludes.
        network.set_attn_implementation("eager")
        if usual_cache is not None:
            network.config.use_cache = False  # keys and values that decoders keep for generating are no part of the answer
        with quiet_export(), torch.no_grad():
            program: Any = torch.onnx.export(
                Logits(network.eval()).eval(),
                (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(names)],
                dynamo=True,
                verbose=False,
                input_names=list(names),
                output_names=list(outputs),
                dynamic_shapes=((free,) * len(names),),
            )
        model: onnx.ModelProto = program.model_proto
        return model
    finally:
        network.set_attn_implementation(usual)
        if usual_cache is not None:
            network.config.use_cache = usual_cache


def _stored_once(model: onnx.ModelProto) -> onnx.ModelProto:
    """Layers with one set of weights are exported as if each had its own; of equal tensors one stays."""
    import onnx_ir
    from onnx_ir.passes.common import DeduplicateHashedInitializersPass

    graph = onnx_ir.serde.deserialize_model(model)
    DeduplicateHashedInitializersPass()(graph)
    once: onnx.ModelProto = onnx_ir.serde.serialize_model(graph)
    return once


def _check_same(model: onnx.ModelProto, network: PreTrainedModel, names: Sequence[str]) -> None:
    """Two shapes that were not shown to the exporter, with padding: a graph that has frozen a size fails here."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    draw = np.random.default_rng(0)
    with session_of(model, options) as session:
        for batch, length in ((1, 3), (3, 9)):
            ids = draw.integers(0, network.config.vocab_size, (batch, length))
            mask = np.ones_like(ids)
            ids[-1, length - 1] = padding_of(network)
            mask[-1, length - 1] = 0
            given = dict(zip(names, (ids, mask, (np.arange(length) > length // 2) * mask), strict=False))
            logits = one_answer(session.run(None, given))
            with torch.inference_mode():
                expected = logits_of(network, {name: torch.from_numpy(rows) for name, rows in given.items()}).numpy()
            if logits.shape != expected.shape or not np.abs(logits - expected).max() <= CLOSE * max(1.0, float(np.abs(expected).max())):
                raise IntegrityError(f"the exported graph does not answer like the network on {batch} × {length} tokens")


@contextmanager
def quiet_export() -> Iterator[None]:
    """torch's exporter and ONNX Runtime's quantizer warn about packages that nobody asked for; nothing that they say here concerns a person."""
    names = ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
