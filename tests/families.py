"""A tiny random model of each encoder family, with a tokenizer of the family's kind, trained on invented words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.benchmarks import Example, get_benchmark
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import Checkpoint, Info, save
from recompress.models.heads import head_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert")
TAGS = ("O", "B-LOC", "I-LOC")
TOPICS = ("food", "sport", "work")
HIDDEN, HEADS, LAYERS, NEURONS = 32, 4, 3, 64
SYLLABLES = ("ka", "mu", "ni", "lo", "wa", "ẹ̀", "tọ́", "sh", "ŋu", "ri", "é")


def sentences(count: int, seed: int = 0) -> list[tuple[str, ...]]:
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(150)] + [".", ",", "2026", "😀"]
    return [tuple(draw.choices(words, k=draw.randint(3, 8))) for _ in range(count)]


def examples(count: int, benchmark: str = "token-classification", seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    if benchmark == "text-classification":
        return [Example((" ".join(words),), (draw.choice(TOPICS),)) for words in sentences(count, seed)]
    return [Example(words, tuple(draw.choices(TAGS, k=len(words)))) for words in sentences(count, seed)]


@cache
def _tokenizer_json(family: str) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    text: Iterator[str] = (" ".join(words) for words in sentences(400))
    if family in ("bert", "distilbert"):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        special = ["[PAD]", "[unused]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer.train_from_iterator(text, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False))
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)])
        return tokenizer.to_str()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if family == "roberta":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False)
        tokenizer.train_from_iterator(text, trainer)
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        return tokenizer.to_str()
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(text, trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer.to_str()


def tokenizer_of(family: str) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    bert = family in ("bert", "distilbert")
    names = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]") if bert else ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
    cls, sep, pad, unk, mask = names
    backend = Tokenizer.from_str(_tokenizer_json(family))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk, mask_token=mask, model_max_length=32, padding_side="right"
    )


def config_of(family: str, vocabulary: int, labels: int) -> Any:
    from transformers import AutoConfig

    if family == "distilbert":
        shape = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": NEURONS}
    else:
        shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": NEURONS}
    ids = {"pad_token_id": 0} if family in ("bert", "distilbert") else {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return AutoConfig.for_model(family, vocab_size=vocabulary, max_position_embeddings=64, num_labels=labels, **shape, **ids)


def network_of(config: Any, auto_model: Any, seed: int = 0) -> PreTrainedModel:
    """Random everywhere, biases and norms too, so that nothing is equal by being zero."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = auto_model.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


def checkpoint_of(family: str, benchmark: str = "token-classification", seed: int = 0) -> Checkpoint:
    tokenizer = tokenizer_of(family)
    labels = TAGS if benchmark == "token-classification" else TOPICS
    config = config_of(family, len(tokenizer), len(labels))
    return Checkpoint(network_of(config, head_of(benchmark).auto_model(), seed), tokenizer, Info(benchmark=benchmark, labels=labels, max_length=32))


def inputs_of(workdir: Path, benchmark: str = "token-classification", count: int = 40, seed: int = 0) -> Inputs:
    every = examples(count, benchmark, seed)
    return Inputs(benchmark=get_benchmark(benchmark), train=every, dev=every[:8], seed=seed, workdir=workdir)


def features_of(checkpoint: Checkpoint, count: int = 6, seed: int = 0) -> list[dict[str, list[int]]]:
    info = checkpoint.info
    return get_benchmark(info.benchmark).encode(checkpoint.tokenizer, examples(count, info.benchmark, seed), info.labels, info.max_length)


def saved(family: str, directory: Path, benchmark: str = "token-classification", seed: int = 0) -> Path:
    save(checkpoint_of(family, benchmark, seed), directory)
    return directory
