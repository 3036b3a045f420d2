"""Measuring processes on real, tiny model directories: what is told, on which runtime, and how failures end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recompress.errors import DataRefused, RecompressError
from recompress.integrity.digest import sha256_json
from recompress.measure.machine import machine_facts
from recompress.measure.memory import peak_bytes
from recompress.measure.request import Request, ask
from recompress.measure.size import parameters, size_bytes
from recompress.measure.speed import Rounds, measure_all, measure_rounds
from recompress.methods.full_precision import in_full_precision
from recompress.models.checkpoint import ONNX_FILE, save
from recompress.models.onnx_graph import read_graph, weights_in
from tests.tiny import tiny_checkpoint, tiny_examples

TOLD = {
    "latency_p50_ms", "latency_p95_ms", "throughput_per_s", "parameters", "size_bytes", "peak_memory_bytes", "steady_memory_bytes", "size_ratio", "throughput_ratio", "cold_latency_p50_ms",
    "latency_ratio", "latency_ratio_runtime", "cold_latency_ratio", "cold_latency_ratio_runtime",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A baseline, a smaller one, and the baseline exported to ONNX."""
    from recompress.benchmarks import get_benchmark
    from recompress.methods.quantization.dynamic_int8 import DynamicInt8
    from recompress.methods.registry import Inputs
    from recompress.methods.runner import run_step

    folder = tmp_path_factory.mktemp("models")
    save(tiny_checkpoint(layers=3, hidden=64), folder / "base")
    save(tiny_checkpoint(layers=1), folder / "small")
    inputs = Inputs(get_benchmark("token-classification"), tiny_examples(4), tiny_examples(4), 0, folder / "work")
    run_step("dynamic_int8", DynamicInt8(), folder / "base", folder / "int8", inputs)
    return {name: folder / name for name in ("base", "small", "int8")}


def test_all_models_are_measured_beside_the_baseline(models: dict[str, Path], tmp_path: Path) -> None:
    measurements = measure_all([models["base"], models["int8"]], models["base"], tiny_examples(8), tmp_path, repeats=2)
    base, int8 = measurements
    assert [set(one) for one in measurements] == [TOLD, TOLD - {name for name in TOLD if name.endswith("_runtime")}], (
        "nothing of its own runtime stands beside it"
    )
    assert base["latency_ratio"] == base["latency_ratio_runtime"] == base["cold_latency_ratio"] == base["size_ratio"] == base["throughput_ratio"] == 1
    assert int8["latency_ratio"] == base["latency_p50_ms"] / int8["latency_p50_ms"]
    assert int8["throughput_ratio"] == int8["throughput_per_s"] / base["throughput_per_s"]
    assert int8["size_ratio"] == size_bytes(models["base"]) / size_bytes(models["int8"])
    assert all(0 < one["latency_p50_ms"] <= one["latency_p95_ms"] for one in measurements)
    assert all(0 < one["steady_memory_bytes"] <= one["peak_memory_bytes"] for one in measurements)
    assert int8["peak_memory_bytes"] < 0.8 * base["peak_memory_bytes"], "the ONNX runtime brings no torch"
    assert json.loads(json.dumps(measurements)) == measurements


def test_beside_a_baseline_in_the_same_runtime_each_ratio_says_what_it_compares_with(models: dict[str, Path], tmp_path: Path) -> None:
    others = in_full_precision(models["base"], ["torch", "packed", "onnx"], tiny_examples(4), tmp_path / "full")
    assert set(others) == {"onnx"}
    [small, int8] = measure_rounds([models["small"], models["int8"]], models["base"], tiny_examples(8), tmp_path, plan=Rounds(3), others=others)
    ends = ("", "_onnx", "_runtime")
    wanted = {f"{ratio}{end}" for ratio in ("latency_ratio", "cold_latency_ratio", "processor_ratio", "cold_processor_ratio") for end in ends}
    for one in (small, int8):
        assert {name for name in one.rounds if "_ratio" in name} == wanted
        assert {name for name in one.metrics if "latency_ratio" in name} == {name for name in wanted if "latency" in name}
    for name in ("latency_ratio", "cold_latency_ratio", "processor_ratio"):
        assert small.rounds[f"{name}_runtime"] == small.rounds[name] != small.rounds[f"{name}_onnx"]
        assert int8.rounds[f"{name}_runtime"] == int8.rounds[f"{name}_onnx"] != int8.rounds[name]
    full = read_graph(others["onnx"] / ONNX_FILE)
    assert weights_in(full).products_int8 == 0, "in full precision"
    one = int8.metrics
    assert one["cold_latency_ratio"] != one["latency_ratio"]
    assert one["latency_ratio"] / one["latency_ratio_onnx"] == pytest.approx(small.metrics["latency_ratio"] / small.metrics["latency_ratio_onnx"]), (
        "torch / ONNX"
    )
    assert in_full_precision(models["int8"], ["onnx"], tiny_examples(4), tmp_path / "none") == {}, "what is no network of torch has no such twin"


def test_bytes_and_parameters(models: dict[str, Path]) -> None:
    for name in ("base", "small"):
        assert size_bytes(models[name]) == sum(path.stat().st_size for path in models[name].iterdir())
    network = tiny_checkpoint(layers=1).torch_network
    assert parameters(models["small"]) == sum(weight.numel() for weight in network.parameters())
    assert abs(parameters(models["int8"]) - parameters(models["base"])) / parameters(models["base"]) < 0.02


def test_without_text_nothing_is_measured(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no text to measure speed on"):
        measure_all([models["small"]], models["base"], [], tmp_path)


def test_a_process_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text("[1]")
    request = Request(directories=(tmp_path / "gone",), features=(({"input_ids": [1]},),), threads=1, rounds=1, batch_size=1, batches=1)
    with pytest.raises(RecompressError, match=r"recompress.measure.memory ended with code 1: .*gone is no model directory"):
        ask("recompress.measure.memory", request, tmp_path)


def test_the_peak_is_this_process_own_and_not_that_of_the_one_which_started_it() -> None:
    large = bytearray(300 << 20)
    large[::4096] = b"x" * len(large[::4096])
    assert peak_bytes() > 300 << 20
    script = "from recompress.measure.memory import peak_bytes; print(peak_bytes())"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 5 << 20 < int(child.stdout) < 200 << 20


def test_the_machine_says_the_same_of_itself_every_time() -> None:
    facts = machine_facts()
    assert sha256_json(facts) == sha256_json(machine_facts())
    assert {"processor", "instructions", "cores", "threads", "memory_gib", "system", "python", "torch", "onnxruntime"} <= facts.keys()
    assert all(isinstance(value, str) and value for name, value in facts.items() if name != "instructions")
