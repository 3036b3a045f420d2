"""Kept text is cut as before and answered as before, to the bit; everything else can still be spelled."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForTokenClassification, AutoTokenizer

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import DataRefused, EffectMissing, InputError
from recompress.methods.probe import probe_text
from recompress.methods.registry import Inputs
from recompress.methods.runner import StepReport, run_step
from recompress.methods.slimming import trim_vocabulary as module
from recompress.methods.slimming.trim_vocabulary import TrimVocabulary, trim_vocabulary
from recompress.methods.slimming.vocabulary import check_trimmed, needed, tokens_of, trimmed
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.runtimes import runtime_of
from tests.families import FAMILIES, SYLLABLES, TAGS, checkpoint_of, inputs_of, saved, sentences


def few(workdir: Path, count: int = 12) -> Inputs:
    """So little text that most of the vocabulary is not used."""
    return replace(inputs_of(workdir, count=count), dev=inputs_of(workdir, count=4).train)


def trim(source: Path, target: Path, inputs: Inputs | None = None, **dials: Any) -> StepReport:
    return run_step("trim_vocabulary", TrimVocabulary(**dials), source, target, inputs or few(target.parent / "work"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Checkpoint, Checkpoint]]:
    place = tmp_path_factory.mktemp("pairs")
    for family in FAMILIES:
        saved(family, place / family / "before")
        trim(place / family / "before", place / family / "after", keep_characters=family != "bert")
    return {family: (load(place / family / "before"), load(place / family / "after")) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_gets_smaller_and_says_by_how_much(family: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]]) -> None:
    before, after = pairs[family]
    assert len(after.tokenizer) < 0.85 * len(before.tokenizer)
    assert after.torch_network.get_input_embeddings().weight.shape[0] == len(after.tokenizer) == after.torch_network.config.vocab_size


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_keep_their_roles_and_configs_their_numbers(family: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]]) -> None:
    before, after = pairs[family]
    for name in ("cls", "sep", "pad", "unk", "mask"):
        assert getattr(after.tokenizer, f"{name}_token") == getattr(before.tokenizer, f"{name}_token")
        assert getattr(after.tokenizer, f"{name}_token_id") is not None
    config = after.torch_network.config
    assert config.pad_token_id == after.tokenizer.pad_token_id == after.torch_network.get_input_embeddings().padding_idx
    if family in ("roberta", "xlm-roberta"):
        assert config.pad_token_id == before.torch_network.config.pad_token_id
        assert config.bos_token_id == after.tokenizer.cls_token_id
        assert config.eos_token_id == after.tokenizer.sep_token_id


KNOWN = sorted({f" {word} " for words in sentences(12) for word in words})
texts = st.lists(st.sampled_from(KNOWN) | st.sampled_from([*SYLLABLES, " ", "kamu", "2026", "😀", "ü", "\u0301"]), max_size=10).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_text_is_cut_and_answered_exactly_as_before(family: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]]) -> None:
    before, after = pairs[family]
    vocabulary = after.tokenizer.get_vocab()
    checked = 0

    @settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(texts)
    def check(text: str) -> None:
        nonlocal checked
        was = before.tokenizer(text)["input_ids"]
        tokens = before.tokenizer.convert_ids_to_tokens(was)
        now = after.tokenizer(text)["input_ids"]
        if not all(token in vocabulary for token in tokens):
            return
        assert now == [vocabulary[token] for token in tokens]
        if len(was) <= 32:
            [old], [new] = (runtime_of(c).logits([{"input_ids": ids}]) for c, ids in ((before, was), (after, now)))
            assert np.array_equal(old, new)
            checked += 1

    check()
    assert checked > 20


@pytest.mark.parametrize("family", FAMILIES)
def test_the_training_text_itself_is_cut_as_before(family: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]], tmp_path: Path) -> None:
    before, after = pairs[family]
    vocabulary = after.tokenizer.get_vocab()
    benchmark = get_benchmark("token-classification")
    rows = few(tmp_path).train
    old, new = (benchmark.encode(checkpoint.tokenizer, rows, TAGS, 32) for checkpoint in (before, after))
    for was, now in zip(old, new, strict=True):
        assert now["input_ids"] == [vocabulary[token] for token in before.tokenizer.convert_ids_to_tokens(was["input_ids"])]
        assert now["units"] == was["units"]
    for a, b in zip(runtime_of(before).logits(old), runtime_of(after).logits(new), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_unseen_words_are_spelled_and_not_lost(family: str, pairs: dict[str, tuple[Checkpoint, Checkpoint]]) -> None:
    before, after = pairs[family]
    unknown = after.tokenizer.unk_token_id
    for words in sentences(40, seed=9):
        text = " ".join(words)
        if before.tokenizer.unk_token_id not in before.tokenizer(text)["input_ids"]:
            assert unknown not in after.tokenizer(text)["input_ids"]
        if family == "roberta":
            assert after.tokenizer.decode(after.tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_reads_the_smaller_model(family: str, tmp_path: Path) -> None:
    trim(saved(family, tmp_path / "before"), tmp_path / "after")
    ours = load(tmp_path / "after")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "after")
    plain = Checkpoint(AutoModelForTokenClassification.from_pretrained(tmp_path / "after"), tokenizer, ours.info)
    text = "kamu lo ŋuri 2026"
    ids = ours.tokenizer(text)["input_ids"]
    assert tokenizer(text)["input_ids"] == ids
    [left], [right] = (runtime_of(c).logits([{"input_ids": ids}]) for c in (ours, plain))
    assert np.array_equal(left, right)


@pytest.mark.parametrize("family", FAMILIES)
def test_trimming_again_finds_nothing_and_is_refused(family: str, tmp_path: Path) -> None:
    trim(saved(family, tmp_path / "before"), tmp_path / "once", few(tmp_path / "w1"))
    with pytest.raises(InputError, match=r"trim_vocabulary finds nothing to leave out: all [\d,]+ tokens are used or needed; raise min_count"):
        trim(tmp_path / "once", tmp_path / "twice", few(tmp_path / "w2"))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_text_that_is_cut_or_answered_otherwise_is_refused(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of the text gone; and, of the one layer that random tokens of a few places never reach, a position of long rows."""
    source = saved(family, tmp_path / "before")
    inputs = few(tmp_path / "work")
    usual = module._counts
    with monkeypatch.context() as now:
        now.setattr(module, "_counts", lambda *given: Counter(dict(usual(*given).most_common(9))))
        with pytest.raises(EffectMissing, match="training texts of kept tokens to look at: asked for at least 1, measured 0"):
            trim(source, tmp_path / "after", inputs, keep_characters=False)
    cut = module._cut_embeddings

    def and_forget_a_place(network: Any, order: list[int]) -> None:
        cut(network, order)
        network.base_model.embeddings.position_embeddings.weight.data[20:] = 0

    monkeypatch.setattr(module, "_cut_embeddings", and_forget_a_place)
    long = replace(inputs, train=[*inputs.train, Example(inputs.train[0].words * 6, inputs.train[0].labels * 6)])
    with pytest.raises(EffectMissing, match="largest change of an output on kept tokens"):
        trim(source, tmp_path / "after", long)


def test_unlabelled_text_counts_and_rare_tokens_go(tmp_path: Path) -> None:
    source = saved("roberta", tmp_path / "before")
    sizes = {}
    more = [Example((" ".join(words),)) for words in sentences(60, seed=3)]
    more = [Example(tuple(example.words[0].split())) for example in more]
    inputs = few(tmp_path / "work")
    for name, given_, dials in (("some", inputs, {}), ("more", replace(inputs, unlabelled=more), {}), ("rare", inputs, {"min_count": 3})):
        trim(source, tmp_path / name, given_, **dials)
        sizes[name] = len(load(tmp_path / name).tokenizer)
    assert sizes["rare"] < sizes["some"] < sizes["more"]


def test_text_beyond_the_longest_sequence_counts_too(tmp_path: Path) -> None:
    source = saved("bert", tmp_path / "before")
    words = tuple(word for words in sentences(30) for word in words)
    inputs = replace(few(tmp_path / "work"), train=[Example(words, ("O",) * len(words))])
    trim(source, tmp_path / "after", inputs)
    before, after = load(source).tokenizer, load(tmp_path / "after").tokenizer
    assert set(before.convert_ids_to_tokens(before(" ".join(words))["input_ids"])) <= set(after.get_vocab())


def test_blank_rows_prove_nothing_and_are_passed_over(tmp_path: Path) -> None:
    inputs = few(tmp_path)
    blank = [Example((" ", "\n"), ("O", "O")), Example((), ())]
    assert probe_text(replace(inputs, train=[*blank, *inputs.train[:2]], unlabelled=inputs.train[2:5]), 4) == inputs.train[:4]


def test_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="needs training text"):
        trim(saved("bert", tmp_path / "before"), tmp_path / "after", replace(few(tmp_path / "work"), train=[]))
    assert not (tmp_path / "after").exists()


def test_embeddings_beyond_the_tokenizer_go_and_too_few_are_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    network: Any = checkpoint.torch_network
    rows = network.get_input_embeddings().weight
    wide = torch.nn.Embedding(len(rows) + 20, rows.shape[1], padding_idx=0)
    wide.weight.data[: len(rows)] = rows.data
    network.set_input_embeddings(wide)
    network.config.vocab_size = len(wide.weight)
    save(checkpoint, tmp_path / "wide")
    trim(tmp_path / "wide", tmp_path / "after")
    after = load(tmp_path / "after")
    assert after.torch_network.config.vocab_size == len(after.tokenizer)
    network.set_input_embeddings(torch.nn.Embedding(9, rows.shape[1]))
    with pytest.raises(InputError, match="the model has 9 embeddings"):
        trim_vocabulary(checkpoint, TrimVocabulary(), few(tmp_path / "work"))


def byte_level(count: int = 500) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = (" ".join(words) for words in sentences(300))
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(vocab_size=count, initial_alphabet=alphabet, show_progress=False))
    return dict(json.loads(tokenizer.to_str()))


def test_merges_on_the_way_to_a_token_stay() -> None:
    definition = byte_level()
    tokens = tokens_of(definition)
    longest = max(tokens, key=lambda number: len(tokens[number]))
    stay = sorted(needed(definition, {longest}, characters=False))
    small = Tokenizer.from_str(json.dumps(trimmed(definition, stay)))
    check_trimmed(Tokenizer.from_str(json.dumps(definition)), small, stay)
    assert len(stay) > 257
    text = tokens[longest].replace("Ġ", " ")
    assert [small.id_to_token(i) for i in small.encode(Tokenizer.from_str(json.dumps(definition)).decode([longest])).ids] == [tokens[longest]], text


def test_byte_level_tokenizers_always_keep_their_bytes() -> None:
    definition = byte_level()
    stay = needed(definition, set(), characters=False)
    assert len(stay) == 256
    small = Tokenizer.from_str(json.dumps(trimmed(definition, sorted(stay))))
    assert small.decode(small.encode("any text, ŋ 😀").ids) == "any text, ŋ 😀"


def test_byte_fallback_pieces_stay() -> None:
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "a": 257, "b": 258, "ab": 259}
    definition = json.loads(Tokenizer(models.BPE(vocabulary, [("a", "b")], unk_token="<unk>", byte_fallback=True)).to_str())
    stay = needed(definition, {257}, characters=False)
    assert stay == {0, *range(1, 257), 257}


def test_the_lowest_score_of_a_unigram_stays_because_unknown_characters_hang_on_it() -> None:
    definition = json.loads(Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -2.0), ("b", -3.0), ("abc", -40.0), ("bc", -50.0)], 0, False)).to_str())
    assert needed(definition, {1}, characters=False) == {0, 1, 4}


def test_other_tokenizers_are_refused() -> None:
    words = json.loads(Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")).to_str())
    with pytest.raises(InputError, match="WordLevel tokenizer cannot be trimmed; known: WordPiece, Unigram, BPE"):
        needed(words, {0}, characters=True)
    suffixes = json.loads(Tokenizer(models.BPE({"a": 0, "b</w>": 1, "ab</w>": 2}, [("a", "b</w>")], end_of_word_suffix="</w>")).to_str())
    with pytest.raises(InputError, match="prefixes or suffixes"):
        needed(suffixes, {0}, characters=True)


def special_last() -> dict[str, Any]:
    """A tokenizer whose special tokens have the highest numbers, as those of some base models have."""
    words = ["ka", "zi", "ku", "la", "leo", "[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(words[5:])
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 7), ("[SEP]", 8)])
    return dict(json.loads(tokenizer.to_str()))


def test_special_tokens_that_get_other_numbers_are_still_put_around_a_text() -> None:
    definition = special_last()
    smaller = Tokenizer.from_str(json.dumps(trimmed(definition, sorted(needed(definition, {4}, characters=False)))))
    assert smaller.encode("leo").tokens == ["[CLS]", "leo", "[SEP]"]
    assert smaller.encode("leo").ids == [smaller.token_to_id(token) for token in ("[CLS]", "leo", "[SEP]")] == [3, 0, 4]


@pytest.mark.parametrize(("family", "expected"), [("roberta", [0, 1, 2, 3, 7]), ("bert", [3, 7])])
def test_where_positions_begin_behind_the_padding_token_it_keeps_its_number(family: str, expected: list[int]) -> None:
    network = checkpoint_of(family).torch_network
    network.config.pad_token_id = 3
    assert module._order(network, {3, 7}, {number: str(number) for number in range(12)}) == expected
