"""What packed weights cost: an encoder of MiniLM's size with its layers in floats, and packed in each format; then a decoder that writes.

    python -m studies.packed_speed > studies/results/packed_speed.md

Weights and codes are random: time does not depend on them. One thread; in each round every network answers once, one after another, and its processor time is
compared with that of the floats in the same round; the table gives the median of the ratios, and their quartiles, and the median of the same network when each
matrix is unpacked whole at each call. The decoder is ``studies.packed_writing``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from statistics import median, quantiles
from time import process_time
from typing import Any

import torch
from torch import Tensor

from recompress.methods.quantization.awq import rounded_with
from recompress.methods.quantization.grid import FewBits, rounded
from recompress.methods.quantization.levels import by_kmeans, by_nf4
from recompress.methods.quantization.llm_int8 import quantize_matrix
from recompress.models.architecture import encoder_linears
from recompress.models.packed import Vectors, packed_linear, place
from recompress.models.packed.outliers import multiplies_integers
from recompress.models.surgery import weight_of
from studies.packed_writing import print_tables, unpacked_at_each_call

LAYERS, WIDTH, NEURONS, HEADS, WORDS = 6, 384, 1536, 12, 2000
BATCHES = ((1, 32), (4, 32), (8, 64))
ROUNDS = 9
WHOLE = ", unpacked"
"""Of what is called so, each matrix is unpacked whole at each call."""


def vectors(weight: Tensor, books: int, width: int) -> Vectors:
    rows, columns = weight.shape
    codes = torch.randint(0, 256, (rows, columns // width, books)).to(torch.uint8)
    return Vectors(codes, 8, torch.randn(books, 256, width) / books, weight.std(1, keepdim=True))


FORMATS: dict[str, Callable[[Tensor], Any]] = {
    "rtn, gptq, qat: 8 bits": lambda weight: rounded(weight, FewBits(bits=8)),
    "rtn, gptq, qat: 4 bits, groups of 64": lambda weight: rounded(weight, FewBits(bits=4, group_size=64)),
    "rtn, gptq, qat: 3 bits": lambda weight: rounded(weight, FewBits(bits=3)),
    "awq: 4 bits, groups of 64": lambda weight: rounded_with(weight, torch.full((weight.shape[1],), 0.5), FewBits(bits=4, group_size=64)),
    "codebook: nf4, groups of 64": lambda weight: by_nf4(weight, 64),
    "codebook: kmeans, 4 bits": lambda weight: by_kmeans(weight, torch.ones(weight.shape[1]), 4, 1),
    "vector: product, width 4": lambda weight: vectors(weight, 1, 4),
    "vector: additive, 2 books, width 8": lambda weight: vectors(weight, 2, 8),
    "llm_int8: no outliers": lambda weight: quantize_matrix(weight, torch.arange(0)),
    "llm_int8: 1 % outliers": lambda weight: quantize_matrix(weight, torch.arange(0, weight.shape[1], 100)),
}


def encoder() -> Any:
    """MiniLM-L6's shape, over a small vocabulary; the same weights each time."""
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": NEURONS}
    return BertForTokenClassification(BertConfig(vocab_size=WORDS, num_labels=3, **shape)).eval()


def packed(coded: Callable[[Tensor], Any]) -> Any:
    """The encoder with all matrices of its layers in one format."""
    network = encoder()
    for name, linear in list(encoder_linears(network)):
        place(network, name, packed_linear(coded(weight_of(linear)), linear))
    return network


@torch.inference_mode()
def times(networks: dict[str, Any], rows: int, length: int) -> dict[str, list[float]]:
    """Seconds of each network in each round; the first, which warms up, is left out."""
    batch = {"input_ids": torch.randint(5, WORDS, (rows, length)), "attention_mask": torch.ones(rows, length, dtype=torch.long)}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(ROUNDS + 1):
        for name, network in networks.items():
            with unpacked_at_each_call(network) if name.endswith(WHOLE) else nullcontext():
                started = process_time()
                network(**batch)
                seconds[name].append(process_time() - started)
    return {name: every[1:] for name, every in seconds.items()}


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    networks = {"floats": encoder(), **{name: packed(coded) for name, coded in FORMATS.items()}}
    networks |= {f"{name}{WHOLE}": network for name, network in networks.items() if not name.startswith(("floats", "llm_int8"))}
    measured = [times(networks, *batch) for batch in BATCHES]
    integers = "8-bit integers" if multiplies_integers("cpu") else "whole numbers held by floats"
    print("# What packed weights cost\n")
    print(f"`python -m studies.packed_speed`, {date.today().isoformat()}, torch {torch.__version__}, one thread; {LAYERS} layers of width {WIDTH}.")
    print(
        f"Processor time in units of that of 32-bit floats, {ROUNDS} interleaved rounds: the median, in brackets the quartiles; above 1 is slower. Behind the stroke:"
    )
    print("the same network with each matrix unpacked whole at each call.")
    print(f"llm_int8 multiplied {integers}.\n")
    heads = [f"{r} × {c} tokens (floats: {1000 * median(every['floats']):.0f} ms)" for (r, c), every in zip(BATCHES, measured, strict=True)]
    print("| format | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    for name in FORMATS:
        cells = []
        for every in measured:
            low, middle, high = quantiles([one / other for one, other in zip(every[name], every["floats"], strict=True)], n=4)
            whole = [one / other for one, other in zip(every.get(f"{name}{WHOLE}", []), every["floats"], strict=False)]
            cells.append(f"{middle:.2f} ({low:.2f}–{high:.2f})" + (f" / {median(whole):.2f}" if whole else ""))
        print(f"| {name} | " + " | ".join(cells) + " |")
    print_tables()


if __name__ == "__main__":
    main()
