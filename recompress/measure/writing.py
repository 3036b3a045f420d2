"""How fast models of language write: all of them in one fresh process, one after the other on the same prompts, in an order that rotates.

    python -m recompress.measure.writing request.json answer.json

    token_ms              the time of one token behind the first, and token_processor_ms that of the processor
    prefill_per_s         tokens of a prompt, by the time until the first token behind it is there
    first_token_p50_ms    that time
    decode_per_s          tokens behind the first, by the time that they took, one after another
    writing_memory_bytes  the largest resident size of a process of its own that opens the model and writes

Tokens are taken as they come: a stop token does not end a measurement, so that all models write equally many.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from recompress.benchmarks import ReadsOn, benchmark_of
from recompress.measure.load import Watch
from recompress.measure.memory import peak_bytes
from recompress.measure.request import Request, ask, open_all, reply
from recompress.measure.rounds import RESOLUTION
from recompress.models.checkpoint import read_info
from recompress.runtimes.generation import Continues, can_continue

PROMPTS, PROMPT, WRITTEN = 2, 64, 16
"""So many prompts, of so many tokens at most, and so many tokens behind each."""
ROUNDS = 3
MODULE = "recompress.measure.writing"
Figures = dict[str, float]
Rounds = dict[str, list[float]]


def can_write(model: Path) -> bool:
    """Whether it is a model of language on a runtime that keeps what was read."""
    info = read_info(model)
    return isinstance(benchmark_of(info), ReadsOn) and info.runtime != "onnx"


def measure_writing(models: Sequence[Path], request: Request, folder: Path) -> Mapping[Path, tuple[Figures, Rounds, Figures]]:
    """Figures of those of ``models`` that can write, with ``prefill_ratio`` beside the first of them, the baseline; what each round gave; and what else the
    machine did meanwhile. Empty where the first cannot, because nothing would stand beside the others."""
    chosen = [model for model in models if can_write(model)]
    if not chosen or chosen[0] != models[0]:
        return {}
    prompts = {model: request.features[request.directories.index(model)] for model in chosen}

    def asked(together: Sequence[Path], place: str) -> list[dict[str, Any]]:
        alone = request.model_copy(update={"directories": tuple(together), "features": tuple(prompts[model] for model in together)})
        answers: list[dict[str, Any]] = ask(MODULE, alone, folder / place)
        return answers

    answers = asked(chosen, "writing")
    results = {}
    for model, answer in zip(chosen, answers, strict=True):
        [memory] = asked([model], "writing-memory")
        ratio = answer["figures"]["prefill_per_s"] / answers[0]["figures"]["prefill_per_s"]
        results[model] = answer["figures"] | {"prefill_ratio": ratio, "writing_memory_bytes": memory["peak"]}, answer["rounds"], answer["load"]
    return results


def timed(runtime: Continues, prompt: Sequence[int], written: int) -> tuple[float, float, float]:
    """Seconds until the first token is there, of all behind it, and of the processor for these."""
    started = perf_counter()
    token = int(runtime.prefill(prompt, len(prompt) + written).argmax())
    first, working = perf_counter(), process_time()
    for _ in range(written - 1):
        token = int(runtime.decode(token).argmax())
    return first - started, perf_counter() - first, process_time() - working


def answer(request: Request) -> list[dict[str, Any]]:
    """Open the models that ``request`` names and let them write."""
    runtimes = [can_continue(runtime) for runtime in open_all(request)]
    prompts = [
        [feature["input_ids"][: min(PROMPT, runtime.positions - WRITTEN)] for feature in given[:PROMPTS]]
        for runtime, given in zip(runtimes, request.features, strict=True)
    ]
    rounds = request.writing_rounds or min(ROUNDS, request.rounds)
    seconds = np.zeros((len(runtimes), len(prompts[0]), rounds + 1, 3))
    watch = Watch()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + 1):
            for i in range(len(prompts[0])):
                for place in range(len(runtimes)):
                    model = (place + i + turn) % len(runtimes)
                    seconds[model, i, turn] = timed(runtimes[model], prompts[model][i], WRITTEN)
    finally:
        gc.enable()
    common = {"peak": float(peak_bytes()), "load": watch.load()}
    return [_told(seconds[i, :, 1:], [len(prompt) for prompt in asked]) | common for i, asked in enumerate(prompts)]


def _told(seconds: np.ndarray[Any, Any], lengths: Sequence[int]) -> dict[str, Any]:
    """``[prompts, rounds, 3]``: the seconds of prompts, of what was written behind them, and of the processor for that."""
    prefill, decode, worked = (seconds[..., part].sum(axis=0) for part in range(3))
    tokens = len(lengths) * (WRITTEN - 1)
    rounds = {
        "prefill_per_s": (sum(lengths) / prefill).tolist(),
        "first_token_p50_ms": (1000 * np.median(seconds[..., 0], axis=0)).tolist(),
        "decode_per_s": (tokens / decode).tolist(),
        "token_ms": (1000 * decode / tokens).tolist(),
        "token_processor_ms": (1000 * np.maximum(worked, RESOLUTION) / tokens).tolist(),
    }
    return {"figures": {name: float(np.median(values)) for name, values in rounds.items() if name != "token_processor_ms"}, "rounds": rounds}


if __name__ == "__main__":
    reply(answer)
