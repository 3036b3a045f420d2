"""Two small decoders, trained from scratch for the other benchmarks: a Llama with grouped queries and gated neurons, and a GPT-2.

    RECOMPRESS_DATA_MIRROR=/data python -m studies.decoders /somewhere/decoders           (each about 6 minutes on one core; a folder that is there is kept)

The mirror holds ``wikitext2/valid.txt``, which they learn from, and ``wikitext2/test.txt``, which is kept for measuring. Each of the two folders is a plain
transformers checkpoint (``config.json``, ``model.safetensors``, ``tokenizer.json``), so that any tool can read it. Weights never go into git.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.benchmarks import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAMILIES = ("llama", "gpt2")
VOCABULARY, LENGTH = 1024, 128
WIDTH, LAYERS, HEADS, GROUPS = 128, 4, 4, 2
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "intermediate_size": 3 * WIDTH,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_inner": 4 * WIDTH,
        "n_positions": LENGTH,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}
DEV = 150
"""Lines at the end of the training text that training is judged by."""
EPOCHS, RATE, BATCH = 4, 3e-3, 16


def lines_of(name: str) -> list[Example]:
    """The lines of a text in the mirror that are not blank, without what stands around them."""
    place = os.environ.get("RECOMPRESS_DATA_MIRROR")
    if not place:
        raise SystemExit("RECOMPRESS_DATA_MIRROR names no folder; it must hold wikitext2/valid.txt and wikitext2/test.txt")
    text = (Path(place) / name).read_text(encoding="utf-8")
    return [Example((line.strip(),)) for line in text.splitlines() if line.strip()]


def train_text() -> tuple[list[Example], list[Example]]:
    """What is learned from (and calibrated on), and what training is judged by."""
    lines = lines_of("wikitext2/valid.txt")
    return lines[:-DEV], lines[-DEV:]


def tokenizer_of(examples: Sequence[Example]) -> PreTrainedTokenizerBase:
    """Byte pairs, the most frequent of this text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer: Any = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator((f"{example.words[0]}\n" for example in examples), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<end>", eos_token="<end>", pad_token="<end>", model_max_length=LENGTH)


def make(family: str, folder: Path, *, seed: int = 0, epochs: int = EPOCHS, shape: dict[str, Any] | None = None) -> None:
    """Train a decoder and leave it in ``folder``, in full or not at all."""
    import torch
    from transformers import AutoConfig

    from recompress.benchmarks import get_benchmark
    from recompress.integrity.atomic_directory import new_directory
    from recompress.models.checkpoint import Checkpoint, Info
    from recompress.training.run import train
    from recompress.training.settings import Schedule

    learned, judged = train_text()
    tokenizer = tokenizer_of(learned)
    vocabulary = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **(vocabulary | SHAPES[family] | (shape or {})))
    torch.manual_seed(seed)
    benchmark = get_benchmark("language-modelling")
    network = benchmark.head.auto_model().from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    checkpoint = Checkpoint(network, tokenizer, Info(benchmark=benchmark.name, labels=(), max_length=LENGTH))
    schedule = Schedule(epochs=epochs, learning_rate=RATE, batch_size=BATCH, weight_decay=0.1, warmup=0.05, precision="fp32")
    with tempfile.TemporaryDirectory() as workdir:
        trained = train(checkpoint, learned, judged, schedule, seed, Path(workdir), label=family)
    with new_directory(folder) as partial:
        trained.torch_network.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    for family in args.family or FAMILIES:
        if not (args.folder / family).exists():
            make(family, args.folder / family, epochs=args.epochs)


if __name__ == "__main__":
    main()
