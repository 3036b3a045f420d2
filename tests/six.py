"""A tiny random model of each architecture, over the invented words of ``tests.tiny``: encoders with a head, decoders that model language."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recompress.benchmarks import Example, get_benchmark
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import Checkpoint, Info
from recompress.models.heads import head_of
from recompress.models.number_head import put_in
from tests.tiny import PLAIN, TAGS, TOPICS, tiny_examples, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert")
DECODERS = ("gpt2", "llama")
SIX = (*ENCODERS, *DECODERS)
"""Those that every test of a family goes through."""
KIN = ("mistral", "qwen2", "qwen3")
"""Decoders that differ from ``llama`` in little: biases, norms of heads."""
CLASSIFIERS = ("gpt2-classifier", "llama-classifier")
"""Decoders with a head for labels; the tokenizer has a padding token of its own, which is not number 0."""
READERS = ("bert-reader",)
"""An encoder with a head that finds answers in a text; its tokenizer gives segments."""
LATER = (*KIN, "roberta", "xlm-roberta", "distilbert", "gpt2-classifier", "bert-reader", "roberta-labels", "distilbert-number")
"""Kinds whose like is asked anyway. Where each takes long, they wait for ``make prove``."""
KINDS = {"bert-pairs": "pair-classification", "roberta-labels": "multi-label-classification", "distilbert-number": "text-regression"}
"""Encoders with other questions: two texts, several labels, a number."""
STANDARD = (100.0, 9.0)
"""Of the numbers that a model of numbers learned from."""
LANGUAGE, ANSWERS = "language-modelling", "question-answering"
HIDDEN, NEURONS, LAYERS, HEADS = 32, 64, 2, 4
LENGTH = 16


def each(families: Iterable[str] = SIX) -> list[Any]:
    """Families as parameters of a test that takes long for each."""
    return [pytest.param(family, marks=pytest.mark.long if family in LATER else ()) for family in families]


def benchmark_of(family: str) -> str:
    """Both kinds of head are met."""
    if family in READERS:
        return ANSWERS
    if family in KINDS:
        return KINDS[family]
    return LANGUAGE if family in (*DECODERS, *KIN) else "token-classification" if family in ("bert", "xlm-roberta") else "text-classification"


def architecture_in(family: str) -> str:
    """The config's ``model_type``."""
    return family.rpartition("-")[0] if family in (*CLASSIFIERS, *READERS, *KINDS) else family


def byte_tokenizer(padding: str | None = "<end>") -> PreTrainedTokenizerBase:
    """One token for each byte but the most frequent pairs, as decoders have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<end>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator((" ".join(example.words) for example in texts(60)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<end>", eos_token="<end>", pad_token=padding, model_max_length=LENGTH)


def config_of(family: str, vocabulary: int, labels: int = 3, **changes: Any) -> Any:
    from transformers import AutoConfig

    family = architecture_in(family)
    if family == "distilbert":
        shape = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": NEURONS}
    elif family == "gpt2":
        shape = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_inner": NEURONS, "bos_token_id": 0, "eos_token_id": 0}
    else:
        shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": NEURONS}
    if family in ("llama", *KIN):
        shape |= {"head_dim": HIDDEN // HEADS} if family == "qwen3" else {}
        shape |= {"num_key_value_heads": 2, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0}
    return AutoConfig.for_model(
        family, **({"vocab_size": vocabulary, "max_position_embeddings": 64, "num_labels": labels, "pad_token_id": 0} | shape | changes)
    )


def checkpoint_of(family: str, seed: int = 0, **changes: Any) -> Checkpoint:
    """Random everywhere, biases and norms too, so that nothing is equal by being zero."""
    import torch

    benchmark = benchmark_of(family)
    tokenizer = byte_tokenizer() if benchmark == LANGUAGE else byte_tokenizer("<pad>") if family in CLASSIFIERS else tiny_tokenizer()
    labels = {"token-classification": TAGS, LANGUAGE: ()}.get(benchmark, head_of(benchmark).outputs or TOPICS)
    config = config_of(family, len(tokenizer), len(labels) or 2, **{"pad_token_id": tokenizer.pad_token_id} | changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = head_of(benchmark).auto_model().from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    standard = STANDARD if head_of(benchmark).answer == "number" else None
    if standard is not None:
        put_in(network, standard)
    length = 3 * LENGTH if family in CLASSIFIERS else LENGTH  # short texts are to be whole, so that there is something to fill up
    return Checkpoint(network.eval(), tokenizer, Info(benchmark=benchmark, labels=labels, max_length=length, standard=standard))


def texts(count: int, seed: int = 0) -> list[Example]:
    """Lines of text with letters of one, two, three and four bytes, in two slices."""
    draw = random.Random(seed)
    words = (*PLAIN, "ẹ̀kọ́", "nyùmbá", "😀", "ŋu")
    return [Example((" ".join(draw.choices(words, k=draw.randint(1, 9))),), (), "swa" if i % 3 else "yor") for i in range(count)]


def examples_of(family: str, count: int = 40, seed: int = 0) -> list[Example]:
    benchmark = benchmark_of(family)
    return texts(count, seed) if benchmark == LANGUAGE else tiny_examples(count, benchmark, seed=seed)


def inputs_of(family: str, workdir: Path, count: int = 40, seed: int = 0) -> Inputs:
    every = examples_of(family, count, seed)
    return Inputs(benchmark=get_benchmark(benchmark_of(family)), train=every, dev=every[:8], seed=seed, workdir=workdir)


def features_of(checkpoint: Checkpoint, family: str, count: int = 6, seed: int = 1) -> list[dict[str, list[int]]]:
    info = checkpoint.info
    return get_benchmark(info.benchmark).encode(checkpoint.tokenizer, examples_of(family, count, seed), info.labels, info.max_length)
