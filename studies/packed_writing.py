"""What packed weights cost and save where text is written: SmolLM2-135M-Instruct on torch, in floats and packed, its embeddings too.

Speed: a prompt is read and tokens are written behind it, by all models in turn, processor time on one thread, each round's time beside that of the floats in it.
"Unpacked" is the same model with each matrix unpacked whole at each call. Memory: the largest resident size of a process that opens one model and writes
(``writing_memory_bytes``, as in every run's table), and the same less that of a process whose model is nearly nothing: what is left is the model's own.

``studies.packed_speed`` prints its tables behind its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from time import process_time
from typing import Any

import torch
from torch import nn

from recompress.measure.request import Request, ask
from recompress.measure.writing import MODULE, PROMPT, WRITTEN
from recompress.methods.quantization.grid import FewBits, replace_embeddings, rounded
from recompress.methods.quantization.levels import by_nf4
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint, save
from recompress.models.factored import token_table
from recompress.models.packed import packed_embedding, packed_linear, packed_linears, place
from recompress.models.surgery import weight_of
from recompress.runtimes import open_runtime
from studies.smollm import dense

FORMATS: dict[str, Callable[[torch.Tensor], Any]] = {
    "rtn, gptq, qat: 8 bits": lambda weight: rounded(weight, FewBits(bits=8)),
    "rtn, gptq, qat: 4 bits, groups of 32": lambda weight: rounded(weight, FewBits(bits=4, group_size=32)),
    "codebook: nf4, groups of 64": lambda weight: by_nf4(weight, 64),
}
ROUNDS = 7
PROMPT_IDS = [17 * i % 49_000 + 5 for i in range(PROMPT)]


def models_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each model by what it is called, written to the disk; the first in floats."""
    for number, (name, coded) in enumerate({"floats": None, **FORMATS}.items()):
        checkpoint = dense(folder, 256)
        if coded is not None:
            pack_all(checkpoint.torch_network, coded)
            checkpoint = replace(checkpoint, info=replace(checkpoint.info, runtime="packed", steps=("rtn",)))
        save(checkpoint, folder / str(number))
        yield name, folder / str(number)


def pack_all(network: Any, coded: Callable[[torch.Tensor], Any]) -> None:
    for name, linear in list(encoder_linears(network)):
        place(network, name, packed_linear(coded(weight_of(linear)), linear))
    replace_embeddings(network, packed_embedding(coded(token_table(network).weight.detach())))


def save_nearly_nothing(like: Path, folder: Path) -> None:
    """A model of the same kind with two narrow layers: what its process takes is libraries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from recompress.models.checkpoint import load

    whole = load(like)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(whole.tokenizer), max_position_embeddings=256, **shape))
    save(Checkpoint(network, whole.tokenizer, whole.info), folder)


def peak_bytes(directory: Path, folder: Path) -> int:
    """Of a fresh process that opens a model and writes."""
    request = Request(directories=(directory,), features=(({"input_ids": PROMPT_IDS},),), threads=1, rounds=1, writing_rounds=1, batch_size=1, batches=1)
    return int(ask(MODULE, request, folder)[0]["peak"])


@contextmanager
def unpacked_at_each_call(network: nn.Module) -> Iterator[None]:
    """Every matrix of the network a whole copy in floats, and then a product of floats."""
    for linear in packed_linears(network).values():
        linear.forward = lambda given, linear=linear: nn.functional.linear(given, linear.matrix(), linear.bias)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in packed_linears(network).values():
            del linear.forward


def written(runtime: Any) -> tuple[float, float]:
    """Seconds of the processor for the prompt, and for a token behind it."""
    begun = process_time()
    token = int(runtime.prefill(PROMPT_IDS, PROMPT + WRITTEN).argmax())
    read = process_time()
    for _ in range(WRITTEN - 1):
        token = int(runtime.decode(token).argmax())
    return read - begun, (process_time() - read) / (WRITTEN - 1)


def speeds(models: dict[str, Path]) -> dict[str, list[tuple[float, float]]]:
    """What each model took in each round, packed ones also when they are unpacked at each call; the first round warms up."""
    from recompress.models.checkpoint import load
    from recompress.runtimes import runtime_of

    answering = {name: open_runtime(place) for name, place in models.items()}
    whole: dict[str, Any] = {name: runtime_of(load(place)) for name, place in models.items() if name in FORMATS}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in [*models, *(f"{name}, unpacked" for name in whole)]}
    for _ in range(ROUNDS + 1):
        for name, runtime in answering.items():
            found[name].append(written(runtime))
        for name, runtime in whole.items():
            with unpacked_at_each_call(runtime.network):
                found[f"{name}, unpacked"].append(written(runtime))
    return {name: every[1:] for name, every in found.items()}


def beside(times: list[tuple[float, float]], floats: list[tuple[float, float]], part: int) -> str:
    low, middle, high = quantiles([one[part] / other[part] for one, other in zip(times, floats, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def print_tables() -> None:
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        models = dict(models_in(folder))
        save_nearly_nothing(models["floats"], folder / "nothing")
        libraries = peak_bytes(folder / "nothing", folder / "asked")
        peaks = {name: peak_bytes(place, folder / "asked") for name, place in models.items()}
        found = speeds(models)
        sizes = {name: (place / "model.safetensors").stat().st_size for name, place in models.items()}
    prompt, token = (1000 * median(one[part] for one in found["floats"]) for part in range(2))
    print("\n## Writing: SmolLM2-135M-Instruct\n")
    print(
        f"A prompt of {PROMPT} tokens and {WRITTEN} written behind it, processor time on one thread, in units of that of floats ({prompt:.0f} ms for the prompt,"
    )
    print(
        f"{token:.1f} ms for a token) in the same round, {ROUNDS} rounds. Memory: the peak of a fresh process that opens one model and writes; a process whose model"
    )
    print(f"is nearly nothing takes {libraries / 1e6:.0f} MB, and what is above that is the model's own. In brackets: against floats.\n")
    heads = ("format", "MB on disk", "prompt", "a token", "prompt, unpacked", "a token, unpacked", "peak, MB", "the model's own, MB")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, peak in peaks.items():
        packed = name in FORMATS
        ratios = [
            beside(found[called], found["floats"], part) if packed else "1" for called in (name, f"{name}, unpacked" if packed else name) for part in range(2)
        ]
        own, whole = peak - libraries, peaks["floats"] - libraries
        cells = [f"{sizes[name] / 1e6:.0f}", *ratios, f"{peak / 1e6:.0f} ({peak / peaks['floats']:.2f})", f"{own / 1e6:.0f} ({own / whole:.2f})"]
        print(f"| {name} | {' | '.join(cells)} |")
