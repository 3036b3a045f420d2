"""Decoders: kept tokens keep their logits, tied and untied output layers follow, and bytes never go."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recompress.benchmarks import Example, get_benchmark
from recompress.methods.registry import Inputs
from recompress.methods.runner import StepReport, run_step
from recompress.methods.slimming.trim_vocabulary import TrimVocabulary
from recompress.models.checkpoint import Checkpoint, Info, load, save
from recompress.models.pretrained import from_base
from recompress.runtimes import runtime_of
from tests.six import LANGUAGE, LENGTH, checkpoint_of, config_of, texts

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = [Example((f"the old man saw {what} and the sea",), (), slice_) for what in ("a fish", "the wind", "his hands") for slice_ in ("a", "b")]


def pieces_tokenizer() -> Any:
    """As Llama has it: text is not split into words, spaces are marks, what is not known becomes bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer: Any = trainers.BpeTrainer(vocab_size=460, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False)
    backend.train_from_iterator((" ".join(example.words) for example in (*texts(80), *WORDS)), trainer)
    definition = json.loads(backend.to_str())
    definition["added_tokens"] = definition["added_tokens"][:3]  # bytes are pieces like others
    backend = Tokenizer.from_str(json.dumps(definition))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=LENGTH)


def decoder(kind: str) -> Checkpoint:
    if kind == "gpt2":
        return checkpoint_of("gpt2")
    tied = kind == "llama-tied"
    tokenizer = pieces_tokenizer()
    config = config_of("llama", len(tokenizer), 2, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2, pad_token_id=None)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config).eval()
    return Checkpoint(network, tokenizer, Info(benchmark=LANGUAGE, labels=(), max_length=LENGTH))


KINDS = ("gpt2", "llama-tied", "llama-untied")


def inputs_for(train: list[Example], workdir: Path) -> Inputs:
    return Inputs(benchmark=get_benchmark(LANGUAGE), train=train, dev=train[:4], seed=0, workdir=workdir)


def trim(source: Path, target: Path, train: list[Example], **dials: Any) -> StepReport:
    return run_step("trim_vocabulary", TrimVocabulary(**dials), source, target, inputs_for(train, target.parent / "work"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Checkpoint, Checkpoint]]:
    place = tmp_path_factory.mktemp("pairs")
    for kind in KINDS:
        save(decoder(kind), place / kind / "before")
        trim(place / kind / "before", place / kind / "after", WORDS, keep_characters=kind != "llama-untied")
    return {kind: (load(place / kind / "before"), load(place / kind / "after")) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_it_gets_smaller_and_bytes_and_special_tokens_stay(kind: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]]) -> None:
    before, after = pairs[kind]
    vocabulary = after.tokenizer.get_vocab()
    assert len(vocabulary) < len(before.tokenizer.get_vocab())
    network: Any = after.torch_network
    assert network.get_output_embeddings().weight.shape[0] == network.config.vocab_size == len(vocabulary)
    assert (network.get_output_embeddings().weight is network.get_input_embeddings().weight) == (kind != "llama-untied")
    from tokenizers.pre_tokenizers import ByteLevel

    always = {"<end>", *ByteLevel.alphabet()} if kind == "gpt2" else {"<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))}
    assert always <= vocabulary.keys()
    assert after.tokenizer.eos_token_id == network.config.eos_token_id == network.generation_config.eos_token_id
    for text in ("ŋ 😀 \n\t never seen!", "the old man"):
        assert after.tokenizer.decode(after.tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_kept_tokens_is_cut_and_answered_as_before(kind: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]]) -> None:
    before, after = pairs[kind]
    vocabulary, was = after.tokenizer.get_vocab(), before.tokenizer.get_vocab()
    columns = [was[token] for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    checked = 0
    for example in (*WORDS, *texts(60, seed=5)):
        old = before.tokenizer(example.words[0], truncation=True, max_length=LENGTH)["input_ids"]
        tokens = before.tokenizer.convert_ids_to_tokens(old)
        if not all(token in vocabulary for token in tokens):
            continue
        new = after.tokenizer(example.words[0], truncation=True, max_length=LENGTH)["input_ids"]
        assert new == [vocabulary[token] for token in tokens]
        [a], [b] = (runtime_of(c).logits([{"input_ids": ids}]) for c, ids in ((before, old), (after, new)))
        assert np.abs(a[:, columns] - b).max() <= 1e-6 * np.abs(a).max()
        checked += 1
    assert checked >= len(WORDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_text_is_read_on_as_before(kind: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]]) -> None:
    """Across line ends too, where a tokenizer that does not split words may join what no row alone holds."""
    before, after = pairs[kind]
    vocabulary = after.tokenizer.get_vocab()
    benchmark: Any = get_benchmark(LANGUAGE)
    old, new = (benchmark.pieces(checkpoint.tokenizer, WORDS, LENGTH) for checkpoint in (before, after))
    assert [[vocabulary[token] for token in before.tokenizer.convert_ids_to_tokens(one["input_ids"])] for one in old] == [one["input_ids"] for one in new]


def test_plain_transformers_reads_the_smaller_decoder_and_trimming_again_finds_nothing(tmp_path: Path) -> None:
    for kind in KINDS:
        place = tmp_path / kind
        save(decoder(kind), place / "before")
        trim(place / "before", place / "after", WORDS)
        trim(place / "after", place / "again", WORDS)
        assert (place / "after" / "model.safetensors").read_bytes() == (place / "again" / "model.safetensors").read_bytes()
        ours = load(place / "after")
        tokenizer = AutoTokenizer.from_pretrained(place / "after")
        plain = Checkpoint(AutoModelForCausalLM.from_pretrained(place / "after"), tokenizer, ours.info)
        ids = tokenizer("the old sea")["input_ids"]
        assert ids == ours.tokenizer("the old sea")["input_ids"]
        [left], [right] = (runtime_of(c).logits([{"input_ids": ids}]) for c in (ours, plain))
        assert np.array_equal(left, right)


def test_a_real_small_llama_keeps_what_it_tells(mirror: Path, tmp_path: Path) -> None:
    """Trimmed to the tokens of some of its stories, it goes on with these as before, greedily, and perplexity on them falls or stays."""
    shutil.copytree(mirror / "stories260k", tmp_path / "base", ignore=shutil.ignore_patterns("stories.txt"))
    stories = [Example((line,)) for line in (mirror / "stories260k" / "stories.txt").read_text().splitlines() if line.strip()][:12]
    save(from_base(tmp_path / "base", LANGUAGE, (), 128, 0), tmp_path / "source")
    report = trim(tmp_path / "source", tmp_path / "target", stories, keep_characters=False)
    assert report.parameters < report.parameters_before
    before, after = load(tmp_path / "source"), load(tmp_path / "target")
    benchmark: Any = get_benchmark(LANGUAGE)
    rows = [benchmark.read(runtime_of(checkpoint), checkpoint.tokenizer, stories, 128, "") for checkpoint in (before, after)]
    cost = [sum(int(row[0]) for row in table) for table in rows]
    assert [[row[1:] for row in table] for table in rows][0] == [row[1:] for row in rows[1]]
    assert cost[1] <= cost[0]
    start = " ".join(stories[0].words[0].split()[:8])
    continuations = []
    for checkpoint in (before, after):
        ids = torch.tensor([checkpoint.tokenizer(start)["input_ids"]])
        network: Any = checkpoint.torch_network
        continuations.append(checkpoint.tokenizer.decode(network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0]))
    assert replace(before.info, steps=("trim_vocabulary",)) == after.info
    assert continuations[0] == continuations[1]
