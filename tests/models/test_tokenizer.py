"""Tokenizers of others are read as their own libraries read them, and without torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast

from recompress.benchmarks import get_benchmark
from recompress.models.checkpoint import load, save
from recompress.models.pretrained import from_base
from recompress.models.tokenizer import plain_tokenizer, spaced_words
from tests.checkpoints import base_of
from tests.families import TAGS, saved, sentences


def test_words_that_are_given_one_by_one_get_their_space_back(tmp_path: Path) -> None:
    """A byte-level tokenizer without ``add_prefix_space`` would glue all words of a tagged sentence together."""
    base = base_of("roberta", tmp_path / "base", AutoModelForMaskedLM)
    definition = json.loads((base / "tokenizer.json").read_text())
    definition["pre_tokenizer"]["add_prefix_space"] = False
    (base / "tokenizer.json").write_text(json.dumps(definition))
    words = ["ka", "muni", "lo"]
    tokenizer = from_base(base, "token-classification", TAGS, 32, seed=0).tokenizer
    assert tokenizer(words, is_split_into_words=True)["input_ids"] == tokenizer(" ka muni lo")["input_ids"]
    assert get_benchmark("token-classification").encode(tokenizer, [], TAGS, 32) == []


def test_baked_in_padding_and_truncation_are_dropped(tmp_path: Path) -> None:
    base = base_of("bert", tmp_path / "base", AutoModelForMaskedLM)
    definition = json.loads((base / "tokenizer.json").read_text())
    definition["padding"] = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    definition["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    (base / "tokenizer.json").write_text(json.dumps(definition))
    save(from_base(base, "token-classification", TAGS, 32, seed=0), tmp_path / "model")
    whole = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))  # as any other library reads it
    assert (len(whole.encode("ka").ids), len(whole.encode(" ".join(["ka"] * 30)).ids)) == (3, 32)
    tokenizer = load(tmp_path / "model").tokenizer
    assert len(tokenizer("ka")["input_ids"]) == 3
    assert len(tokenizer.backend_tokenizer.encode(" ".join(["ka"] * 30)).ids) == 32


def test_a_sentencepiece_model_is_read_as_its_own_library_reads_it(tmp_path: Path) -> None:
    """Some multilingual encoders come with ``sentencepiece.bpe.model`` and no ``tokenizer.json``."""
    import sentencepiece

    written = io.BytesIO()
    text = (" ".join(words) for words in sentences(300))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=text, model_writer=written, vocab_size=110, hard_vocab_limit=False, minloglevel=2)
    base = base_of("xlm-roberta", tmp_path / "base", AutoModelForMaskedLM)
    (base / "tokenizer.json").unlink()
    (base / "sentencepiece.bpe.model").write_bytes(written.getvalue())
    special = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    (base / "tokenizer_config.json").write_text(json.dumps(special | {"tokenizer_class": "XLMRobertaTokenizer"}))
    tokenizer = from_base(base, "token-classification", TAGS, 32, seed=0).tokenizer
    reference = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    for words in sentences(20, seed=4):
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(" ".join(words))["input_ids"])
        assert pieces == ["<s>", *reference.encode(" ".join(words), out_type=str), "</s>"]


def test_reading_a_tokenizer_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from recompress.models.tokenizer import load_tokenizer as f; f(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved("distilbert", tmp_path / "model"))], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("cut", ["bytes alone", "words before bytes", "digits before bytes"])
def test_words_that_are_given_one_by_one_get_the_tokens_of_running_text(cut: str) -> None:
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut != "words before bytes")
    first = {
        "words before bytes": pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?[^\s\p{N}]+|\s+"), "isolated"),
        "digits before bytes": pre_tokenizers.Digits(individual_digits=True),
    }
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([first[cut], whole]) if cut in first else whole
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=["<s>", "<pad>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator(["Asha's house in 2024 cost 98765 don't re-do it"] * 20, trainer)
    plain = plain_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", pad_token="<pad>"))
    words = ["in", "2024", "Asha's", "don't", "re-do", "98765", "ẹ̀kọ́"]
    spaced = spaced_words(plain)
    assert spaced(words, is_split_into_words=True)["input_ids"] == plain(" " + " ".join(words))["input_ids"]
    assert spaced_words(spaced).backend_tokenizer.to_str() == spaced.backend_tokenizer.to_str(), "one space is enough"


def test_lengths_that_are_baked_into_a_file_are_not_kept_and_rows_are_filled_up_on_the_right(tmp_path: Path) -> None:
    base = base_of("roberta", tmp_path / "base", AutoModelForMaskedLM)
    backend = Tokenizer.from_file(str(base / "tokenizer.json"))
    backend.enable_padding(direction="left", length=24)
    backend.enable_truncation(3)
    backend.save(str(base / "tokenizer.json"))
    tokenizer = from_base(base, "text-classification", ("a", "b"), 32, seed=0).tokenizer
    long, short = " ka muni lo ka muni lo", " ka"
    ids = tokenizer([long, short])["input_ids"]
    assert len(ids[1]) < 24
    assert len(ids[0]) > 3 + 2
    padded = tokenizer([long, short], padding=True)["attention_mask"]
    assert padded[1][0] == 1
    assert padded[1][-1] == 0
