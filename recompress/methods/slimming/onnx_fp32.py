"""ONNX, in full precision: the same numbers as a graph, for serving without torch.

Answers are those of the network up to the order of its sums. This is also what int8 has to be compared with, to tell what the runtime gains from what the
fewer bits gain.

Source: the ONNX standard, opset 18 and later; ``torch.onnx.export`` with dynamo.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.probe import probe_text
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import ONNX_FILE, Checkpoint
from recompress.models.files import write_config
from recompress.models.onnx_graph import read_graph, weights_in, write_graph
from recompress.models.padding import padding_of
from recompress.runtimes import runtime_of
from recompress.runtimes.export import CLOSE, export_graph
from recompress.settings.base import Settings

PROBES = 8


class OnnxFp32(Settings):
    """Nothing to choose."""


def prove(before: Checkpoint, after: Checkpoint, config: OnnxFp32, inputs: Inputs) -> list[Claim]:
    """Nothing in 8 bits, and the same answers on training text and on random tokens of all lengths."""
    assert isinstance(after.network, Path)
    weights = weights_in(read_graph(after.network))
    draw = np.random.default_rng(0)
    words = len(before.tokenizer)
    features = [{"input_ids": draw.integers(0, words, length).tolist()} for length in range(2, 2 + PROBES)]
    features += inputs.benchmark.encode(before.tokenizer, probe_text(inputs, PROBES), before.info.labels, before.info.max_length)
    pairs = list(zip(runtime_of(before).logits(features), runtime_of(after).logits(features), strict=True))
    size = max(1.0, *(float(np.abs(was).max()) for was, _ in pairs))
    change = max(float(np.abs(was - now).max()) for was, now in pairs)
    return [
        Claim("weights in 8 bits", 0, weights.products_int8 + weights.lookups_int8),
        Claim("largest change of an output", 0, change, tolerance=CLOSE * size),
    ]


@method(
    "onnx_fp32",
    OnnxFp32,
    family="slimming",
    prove=prove,
    gives="onnx",
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="the ONNX standard; torch.onnx.export",
    shrinks="what has to be installed: no torch",
    speeds_up="CPUs, slightly",
)
def export_onnx(checkpoint: Checkpoint, config: OnnxFp32, inputs: Inputs) -> Checkpoint:
    """The same numbers as an ONNX graph, for serving without torch."""
    network = checkpoint.torch_network
    path = inputs.workdir / ONNX_FILE
    write_graph(export_graph(network, segments=checkpoint.reads_segments), path)
    write_config(network, inputs.workdir)
    return Checkpoint(path, checkpoint.tokenizer, replace(checkpoint.info, onnx={"int8": False, "pad_id": padding_of(network)}))
