"""The baseline in full precision in the runtime that a compressed model answers in, so that speed is compared with the same runtime and not only with torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recompress.benchmarks import Example, benchmark_of
from recompress.measure.compared import TORCH, family_of
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import read_info

KEEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("onnx_fp32", {}),
    "gguf": ("gguf", {"weights": "f32"}),
    "genai": ("onnx_genai", {"weights": "fp32"}),
}
"""For each runtime besides torch the step that keeps every number."""


def in_full_precision(baseline: Path, runtimes: Iterable[str], examples: Sequence[Example], folder: Path) -> dict[str, Path]:
    """Models under ``folder`` with the baseline's numbers, by the runtime that they answer in: one for each of ``runtimes`` that is not torch's. None where the baseline
    is no network of torch. Some of ``examples`` prove that each answers as the baseline does. Raises what ``run_step`` raises."""
    made = {runtime: folder / f"baseline-{runtime}" for runtime in sorted({family_of(runtime) for runtime in runtimes} - {TORCH})}
    if not made or (info := read_info(baseline)).runtime != TORCH:
        return {}
    for runtime, target in made.items():
        method, dials = KEEPS[runtime]
        inputs = Inputs(benchmark_of(info), list(examples), list(examples), 0, folder / f"work-{runtime}")
        run_step(method, get_method(method).config(**dials), baseline, target, inputs)
    return made
