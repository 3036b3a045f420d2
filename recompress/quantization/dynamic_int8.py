"""Dynamic int8: weights stored in 8 bits, activations rounded to 8 bits as they come, products summed in 32-bit integers.

    W[:, o] ~ s[o] * q[:, o]              q = round(W / s) in [-127, 127],  s[o] = max|W[:, o]| / 127
    x       ~ t * (u - z)                 u in [0, 255],  t = (max x - min x) / 255, taken from each input
    x @ W   ~ t * s * ((u - z) @ q)

An output layer that is tied to the embeddings computes in floats with what the embeddings' 8 bits stand for: the table is stored once.
Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1 and 4, with ranges of activations taken at run time; done by ONNX Runtime's ``quantize_dynamic``.
The result is an ONNX graph: the step leaves the torch runtime.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from recompress.architecture import SIX
from recompress.benchmarks import ALL_BENCHMARKS
from recompress.checkpoint import ONNX_FILE, Checkpoint
from recompress.errors import InputError
from recompress.method import Claim, Inputs, method
from recompress.runtimes.export import export_graph, quiet_export
from recompress.runtimes.graph import read_graph, weights_in, write_graph
from recompress.runtimes.processor import int8_overflows
from recompress.settings import Settings
from recompress.stored import distinct_tensors, write_config

SLACK = 0.03
"""Share of the expected bytes by which the file may differ: scales and names."""
NODE_BYTES = 512
"""What a node of the graph takes at most."""


class DynamicInt8(Settings):
    """What is stored in 8 bits, and how."""

    per_channel: bool = True
    """A scale for each output of a matrix (true) or one for the whole matrix (false, which costs quality and saves next to nothing)."""
    embeddings: bool = True
    """Store the embedding tables in 8 bits too, each with one scale. They are most of a small encoder's bytes and none of its time."""
    reduce_range: bool | Literal["auto"] = "auto"
    """Use 7 of the 8 bits. Needed on x86 processors without VNNI, where sums of 8-bit products overflow; costs some quality. ``auto`` does so where the
    processor at hand needs it: the same recipe then gives other bytes on another processor, and ``recompress.json`` says which; true or false give the same."""


def check(config: DynamicInt8) -> None:
    """Raises ``InputError`` where the result would be wrong on this processor."""
    if config.reduce_range is False and int8_overflows():
        raise InputError("dynamic_int8 overflows on this processor, which lacks VNNI; set reduce_range: true, or auto")


def reduces(config: DynamicInt8) -> bool:
    """Whether 7 bits are used, on this processor."""
    return int8_overflows() if config.reduce_range == "auto" else config.reduce_range


def prove(before: Checkpoint, after: Checkpoint, config: DynamicInt8) -> list[Claim]:
    """All weights of matrix products in 8 bits, the look-up tables as asked, and the bytes that follow from it."""
    assert isinstance(after.network, Path)
    model = read_graph(after.network)
    found = weights_in(model)
    numbers = sum(tensor.numel() for tensor in distinct_tensors(before.torch_network).values())
    expected = 4 * numbers - 3 * (found.products_int8 + found.lookups_int8)
    return [
        Claim("share of matrix weights in 8 bits", 1.0, found.products_int8 / found.products),
        Claim("share of embedding weights in 8 bits", float(config.embeddings), found.lookups_int8 / found.lookups),
        Claim("bits that matrix weights use", 7 if after.info.onnx.get("reduce_range") else 8, found.bits_used),
        Claim("7 bits, where asked or needed", float(reduces(config)), float(after.info.onnx.get("reduce_range", False))),
        Claim("bytes of model.onnx", expected, after.network.stat().st_size, tolerance=SLACK * expected + NODE_BYTES * len(model.graph.node)),
    ]


@method(
    "dynamic_int8",
    DynamicInt8,
    family="quantization",
    prove=prove,
    check=check,
    gives="onnx",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Jacob et al. 2018, arXiv:1712.05877, eq. 1 and 4; ONNX Runtime quantize_dynamic",
    shrinks="bytes, to about a quarter",
    speeds_up="CPUs with VNNI, about three times",
)
def quantize_dynamic_int8(checkpoint: Checkpoint, config: DynamicInt8, inputs: Inputs) -> Checkpoint:
    """Weights in 8 bits, activations rounded to 8 bits as they come; runs on ONNX Runtime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    network = checkpoint.torch_network
    model = export_graph(network)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # else the quantizer asks for a step that changes nothing here
    path = inputs.workdir / ONNX_FILE
    with quiet_export():
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gather"] if config.embeddings else ["MatMul"],
            per_channel=config.per_channel,
            reduce_range=reduces(config),
            weight_type=QuantType.QInt8,
        )
    write_graph(read_graph(path), path)
    write_config(network, inputs.workdir)
    told = {"int8": True, "pad_id": network.config.pad_token_id or 0, **config.model_dump(), "reduce_range": reduces(config)}
    return Checkpoint(path, checkpoint.tokenizer, replace(checkpoint.info, onnx=told))
