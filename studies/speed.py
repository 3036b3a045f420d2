"""How fast the quickstart's models are, beside what, and how far from what the processor could do.

    make run && python -m studies.speed --date 2026-11-30 --machine "2 cores of an AMD EPYC, no GPU"

1. As the run timed them: how many times as fast as the baseline in torch and in full precision in ONNX Runtime, caches hot and cold, with the lower bound at 95 %.
2. The champion beside the processor's integer peak: products of 8-bit integers that one text of the median length needs, at the best rate that ONNX Runtime's
   ``MatMulInteger`` reaches here on large matrices, and how many times as long the text takes.
3. 32 texts in the order in which they arrive: as ``studies.batches`` measures it, for the champion.

One thread. What a figure should reach stands beside it, reached or not. Writes ``studies/results/speed.json`` and ``.md``.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from recompress.benchmarks import get_benchmark
from recompress.data.splits import read_split
from recompress.gate.rounds import speeds
from recompress.models.checkpoint import Checkpoint, load
from recompress.records import Evaluation
from recompress.runtimes import runtime_of
from studies.batches import BATCHES, DATA, TEXTS, WAYS, timed
from studies.written import arguments, write
from tasks.tracking.registry import fetch_model
from tasks.tracking.track import Store

MODEL, REPORT = "quickstart@champion", "reports/quickstart.json"
LARGE = ((64, 1536, 384), (128, 1536, 384), (128, 384, 1536), (256, 1536, 1536), (256, 4096, 1024))
"""Rows, columns and depth of products at whose best rate the peak is taken."""
ROUNDS, ALPHA = 30, 0.05
WANTED = {
    "champion, hot, beside torch": 30.0,
    "champion, hot, beside ONNX Runtime": 14.0,
    "32 texts as they arrive": 3.0,
    "champion beside the integer peak": 2.4,
}
"""What was set as a goal; of the last, at most."""


def peak() -> float:
    """Products of 8-bit integers in a second that one thread makes at best."""
    best = 0.0
    for rows, columns, depth in LARGE:
        draw = np.random.default_rng(0)
        weights = helper.make_tensor("b", TensorProto.INT8, (depth, columns), draw.integers(-127, 128, (depth, columns), dtype=np.int8).tobytes(), raw=True)
        inputs = [helper.make_tensor_value_info("a", TensorProto.UINT8, (rows, depth))]
        outputs = [helper.make_tensor_value_info("c", TensorProto.INT32, (rows, columns))]
        graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["c"])], "product", inputs, outputs, [weights])
        session = _session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString())
        given = {"a": draw.integers(0, 256, (rows, depth), dtype=np.uint8)}
        seconds = _median(lambda session=session, given=given: session.run(None, given))
        best = max(best, rows * columns * depth / seconds)
    return best


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _median(work: Any) -> float:
    """Seconds of the processor; calls that the clock can hardly see are repeated."""
    taken = []
    for _ in range(ROUNDS):
        begun, calls = process_time(), 0
        while calls < 3 or process_time() - begun < 0.02:
            work()
            calls += 1
        taken.append((process_time() - begun) / calls)
    return statistics.median(taken)


def products(graph: onnx.ModelProto, batch: dict[str, np.ndarray]) -> int:
    """Products of 8-bit integers that a graph makes for a batch: of each node that multiplies integers, the rows that really reach it times its matrix."""
    nodes = [node for node in graph.graph.node if node.op_type == "MatMulInteger"]
    stored = {one.name: tuple(one.dims) for one in graph.graph.initializer}
    names = list(dict.fromkeys(node.input[0] for node in nodes))
    asked = onnx.ModelProto()
    asked.CopyFrom(graph)
    del asked.graph.output[:]
    asked.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    found = dict(zip(names, _session(asked.SerializeToString()).run(names, batch), strict=True))
    return sum(found[node.input[0]].size // stored[node.input[1]][0] * int(np.prod(stored[node.input[1]])) for node in nodes)


def beside_peak(checkpoint: Checkpoint, features: list[dict[str, Any]]) -> dict[str, float]:
    """The champion on a text of the median length."""
    assert isinstance(checkpoint.network, Path)
    median = sorted(features, key=lambda feature: len(feature["input_ids"]))[len(features) // 2]
    runtime: Any = runtime_of(checkpoint)
    graph = onnx.load(checkpoint.network)
    given = {name.name: np.array([median["input_ids"] if name.name == "input_ids" else [1] * len(median["input_ids"])]) for name in graph.graph.input}
    count, rate = products(graph, given), peak()
    seconds = _median(lambda: runtime.logits([median]))
    return {"tokens": len(median["input_ids"]), "products": count, "peak_per_s": rate, "milliseconds": 1000 * seconds, "times_the_peak": seconds * rate / count}


def page(results: dict[str, Any]) -> str:
    """The results for people."""
    lines = [
        "# How fast the quickstart's models are\n",
        f"`python -m studies.speed`, {results['date']}, {results['machine']}. One thread, ratios inside one run; in brackets the lower bound at 95 %.\n",
        "| model | beside torch, hot | beside ONNX Runtime, hot | beside torch, cold | beside ONNX Runtime, cold |\n|---|---:|---:|---:|---:|",
    ]
    for name, found in results["models"].items():
        cells = [found.get(key) for key in ("latency_ratio", "latency_ratio_onnx", "cold_latency_ratio", "cold_latency_ratio_onnx")]
        lines.append(f"| {name} | {' | '.join('–' if cell is None else f'{cell[0]:.2f} (≥ {cell[1]:.2f})' for cell in cells)} |")
    one, texts = results["peak"], results["arrived"]
    lines += [
        f"\nThe champion, {results['champion']}, answers a text of {one['tokens']} tokens in {one['milliseconds']:.2f} ms; its {one['products'] / 1e6:.1f} million products of integers would take",
        f"{one['products'] / one['peak_per_s'] * 1e3:.2f} ms at the peak of {one['peak_per_s'] / 1e9:.0f} thousand million a second.\n",
        "| figure | measured | wanted |\n|---|---:|---:|",
    ]
    for name, value in results["goals"].items():
        reached = value <= WANTED[name] if name.endswith("peak") else value >= WANTED[name]
        lines.append(f"| {name} | {value:.2f} | {'at most' if name.endswith('peak') else 'at least'} {WANTED[name]:g}{'' if reached else ', not reached'} |")
    lines.append(
        f"\n32 texts as they arrive: seconds of one padded batch, which was the way before, by those of the way that the runtime goes ({texts['way']})."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write what came out."""
    told = arguments(__doc__, in_a_project=True)
    torch.set_num_threads(1)
    root = told.project.resolve()
    report = json.loads((root / REPORT).read_text(encoding="utf-8"))
    models = {row["model"]: speeds(Evaluation.model_validate(row), ALPHA) for row in report["evaluations"]}
    checkpoint = load(fetch_model(Store(root), f"models:/{MODEL}"))
    info, runtime = checkpoint.info, runtime_of(checkpoint)
    features = get_benchmark(info.benchmark).encode(checkpoint.tokenizer, read_split(root / DATA, "test"), info.labels, info.max_length)
    found = timed(runtime, [features[start : start + TEXTS] for start in range(0, TEXTS * BATCHES, TEXTS)])
    way = WAYS[1] if getattr(runtime, "asks_alone", False) else WAYS[-1]
    arrived = statistics.median(before / now for before, now in zip(found["seconds"][WAYS[0]], found["seconds"][way], strict=True))
    best, near = models[report["promotion"]["model"]], beside_peak(checkpoint, features)
    goals = dict(zip(WANTED, (best["latency_ratio"][0], best["latency_ratio_onnx"][0], arrived, near["times_the_peak"]), strict=True))
    measured = {"champion": report["promotion"]["model"], "models": models, "peak": near, "arrived": {"way": way, **found}, "goals": goals}
    write("speed", told, measured, page)


if __name__ == "__main__":
    main()
