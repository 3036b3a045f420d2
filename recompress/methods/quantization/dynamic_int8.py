"""Dynamic int8: weights stored in 8 bits, activations rounded to 8 bits as they come, products summed in 32-bit integers.

    W[:, o] ~ s[o] * q[:, o]              q = round(W / s) in [-127, 127],  s[o] = max|W[:, o]| / 127
    x       ~ t * (u - z)                 u in [0, 255],  t = (max x - min x) / 255, taken from each input
    x @ W   ~ t * s * ((u - z) @ q)

The range of an input is that of all that is asked in one call, padding and neighbours included, so that a text asked in company may get another answer than
alone. Recompress asks such graphs one text at a time, when it measures as when it serves; whoever puts batches to the graph gets answers that were not judged.
``static_int8`` has its ranges from calibration and knows no company.

Where a head reads the first token alone, so does the last layer (``recompress.runtimes.lean.first``): its ranges are those of one token, and no wider.

An output layer that is tied to the embeddings computes in floats with what the embeddings' 8 bits stand for: the table is stored once.
Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1 and 4, with ranges of activations taken at run time; done by ONNX Runtime's ``quantize_dynamic``.
The result is an ONNX graph: the step leaves the torch runtime.
"""

from __future__ import annotations

from dataclasses import replace

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.quantization.int8 import Int8, check, exported, int8_claims, onnx_settings, reduces, table_of
from recompress.methods.quantization.int8_graph import answers_claim
from recompress.methods.quantization.int8_tables import check_steps
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import ONNX_FILE, Checkpoint
from recompress.models.files import write_config
from recompress.models.onnx_graph import read_graph, write_graph
from recompress.runtimes.export import quiet_export


class DynamicInt8(Int8):
    """What is stored in 8 bits, and how."""


def prove(before: Checkpoint, after: Checkpoint, config: DynamicInt8, inputs: Inputs) -> list[Claim]:
    """All weights of matrix products in 8 bits, with scales as asked, the look-up tables as asked, the bytes that follow from it, and answers close to those in
    floats."""
    return [*int8_claims(before, after, config), answers_claim(before, after, inputs)]


@method(
    "dynamic_int8",
    DynamicInt8,
    family="quantization",
    prove=prove,
    check=check,
    check_steps=check_steps,
    gives="onnx",
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="Jacob et al. 2018, arXiv:1712.05877, eq. 1 and 4; ONNX Runtime quantize_dynamic",
    shrinks="bytes, to about a quarter",
    speeds_up="CPUs with VNNI, about three times, for texts asked one by one: those of a batch would share their ranges",
)
def quantize_dynamic_int8(checkpoint: Checkpoint, config: DynamicInt8, inputs: Inputs) -> Checkpoint:
    """Weights in 8 bits, activations rounded to 8 bits as they come; runs on ONNX Runtime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    network = checkpoint.torch_network
    table = table_of(network, config)
    model = exported(network if table is None else table.network, segments=checkpoint.reads_segments)
    path = inputs.workdir / ONNX_FILE
    with quiet_export():
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gather"] if config.embeddings else ["MatMul"],
            per_channel=config.per_channel,
            reduce_range=reduces(config),
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[] if table is None else table.kept(model),
        )
    write_graph(read_graph(path), path)
    if table is not None:
        table.write(path)
    write_config(network, inputs.workdir)
    return Checkpoint(path, checkpoint.tokenizer, replace(checkpoint.info, onnx=onnx_settings(network, config)))
