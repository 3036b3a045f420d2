from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.benchmarks import Example
from recompress.data.characters import has_broken, has_hidden, is_nfc, repaired, to_nfc, without_hidden
from recompress.data.clean import Tally, clean, likeness, without_conflicts, without_likes, without_repeats
from recompress.data.formats.bio import continues_nothing, valid_bio


def cleaned(*examples: Example, labels: frozenset[str] | None = None, tagged: bool = True) -> tuple[list[Example], Tally]:
    tally: Tally = Counter()
    return clean(examples, labels, tally, tagged=tagged), tally


def text(words: str, label: str = "a") -> Example:
    return Example((words,), (label,))


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("MeÌ\x81lenchon", "Me\u0301lenchon"),  # UTF-8 read as Latin-1
        ("AbukeviÄ\x8dius", "Abukevičius"),
        ("mouth\x9d", "mouth"),  # a control that explains nothing
        ("MAi\x8fGA", "MAiGA"),
        ("caf\u00e9", "caf\u00e9"),
        ("na\x00", "na"),
        ("lost\ufffd", "lost\ufffd"),
    ],
)
def test_wrong_decodings_are_undone_or_dropped(broken: str, whole: str) -> None:
    assert repaired(broken) == whole


def test_joiners_between_symbols_are_meant_and_others_are_not() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert not has_hidden(family)
    assert without_hidden(f"na{family}") == f"na{family}"
    assert without_hidden("yeah \u200d\ufe0fthe guy") == "yeah the guy"
    assert without_hidden("ki\u200bsu\u00admu\u2066\ufeff") == "kisumu"
    assert not has_hidden("❤\ufe0f 1\ufe0f⃣")


def test_composing_changes_no_character_into_another() -> None:
    assert to_nfc("ﬁ½ o\u0301") == "ﬁ½ \u00f3"


def test_what_a_hidden_character_hid_goes_too() -> None:
    assert without_hidden("na\ufe0f\ufe0f leo") == "na leo"


def test_words_are_composed_repaired_and_counted() -> None:
    rows, tally = cleaned(Example(("o\u0301", "ki\u200bsumu", "mouth\x9d", "na"), ("O", "B-LOC", "O", "O")))
    assert rows == [Example(("\u00f3", "kisumu", "mouth", "na"), ("O", "B-LOC", "O", "O"))]
    assert tally == {"not_nfc": 1, "hidden_characters": 1, "broken_characters": 1}


def test_a_word_of_nothing_is_left_out_with_its_tag_and_the_entity_begins_after_it() -> None:
    rows, tally = cleaned(Example(("\u200b", "Kamau", "leo"), ("B-PER", "I-PER", "O")))
    assert rows == [Example(("Kamau", "leo"), ("B-PER", "O"))]
    assert (tally["empty_words"], tally["invalid_bio"]) == (1, 1)


def test_rows_that_cannot_be_mended_are_left_out() -> None:
    rows, tally = cleaned(Example(("a\ufffd",), ("O",)), Example(("b",), ("B-ANIMAL",)), Example(("\u200b",), ("O",)), labels=frozenset({"O"}))
    assert rows == []
    assert tally["lost_characters"] == tally["unknown_labels"] == tally["no_words"] == 1


def test_spaces_in_texts_are_single_and_a_label_like_a_tag_is_no_tag() -> None:
    rows, tally = cleaned(text("  leo   na\tjana ", "I-agree"), tagged=False)
    assert rows == [text("leo na jana", "I-agree")]
    assert tally == {}


def test_running_text_keeps_its_spaces_and_punctuation() -> None:
    lines = [Example((" = Heading = ",)), Example((" . ",))]
    assert clean(lines, None, Counter(), tagged=False, running=True) == lines
    assert clean(lines, None, Counter(), tagged=False) == [Example(("= Heading =",))]


TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), max_size=8)


@given(TAGS)
def test_valid_bio_has_no_tag_that_continues_nothing_and_changes_no_other(tags: list[str]) -> None:
    mended = valid_bio(tags)
    assert continues_nothing(mended) == []
    wrong = continues_nothing(tags)
    assert [i for i, (a, b) in enumerate(zip(tags, mended, strict=True)) if a != b] == wrong
    brute = [i for i, tag in enumerate(tags) if tag.startswith("I-") and (i == 0 or tags[i - 1] not in (f"B-{tag[2:]}", tag))]
    assert wrong == brute


STRANGE = st.text(st.sampled_from("aé\u0301ọ \u200b\u200d\u00ad\ufeff\x81\x8dÌÄ\ufffd❤\ufe0f\U0001f468.\t\u0323o"), max_size=10)


@given(st.lists(st.tuples(STRANGE, st.sampled_from(["O", "B-X", "I-X"])), min_size=1, max_size=5), st.booleans())
def test_cleaning_twice_is_cleaning_once(pairs: list[tuple[str, str]], tagged: bool) -> None:
    words, tags = zip(*((word.replace(" ", "").replace("\t", ""), tag) for word, tag in pairs), strict=True)
    example = Example(words, tags) if tagged else text(" ".join(word for word, _ in pairs))
    once, _ = cleaned(example, tagged=tagged)
    twice, tally = cleaned(*once, tagged=tagged)
    assert twice == once
    assert not any(tally.values())
    for row in once:
        for word in row.words:
            assert is_nfc(word)
            assert not has_hidden(word)
            assert not has_broken(word)
            assert word.strip() == word != ""


def test_the_more_frequent_labelling_stays_and_a_tie_leaves_none() -> None:
    tally: Tally = Counter()
    rows = [text("leo", "a"), text("leo", "b"), text("leo", "a"), text("jana", "a"), text("jana", "b"), text("kesho", "b")]
    assert without_conflicts(rows, tally) == [text("leo", "a"), text("leo", "a"), text("kesho", "b")]
    assert tally["conflicts"] == 3


def test_repeats_and_leaks_are_dropped_in_order() -> None:
    tally: Tally = Counter()
    rows = [text("b"), text("a"), text("b"), text("c")]
    assert without_repeats(rows, tally) == [text("b"), text("a"), text("c")]
    assert without_likes(rows, {"b"}, "also_in_test", tally) == [text("a"), text("c")]
    assert tally == {"repeats": 1, "also_in_test": 2}


def test_likeness_sees_through_case_punctuation_and_composition_but_not_through_tones() -> None:
    assert likeness(text("“Leo”,  NA jana...")) == likeness(Example(("leo", "na", "jana"))) == "leo na jana"
    assert likeness(text("caf\u00e9")) == likeness(text("Cafe\u0301"))
    assert likeness(text("ọ̀kọ̀")) != likeness(text("ọkọ"))
    assert likeness(text("...")) == "..." != likeness(text("!"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("दिन", "दान"), ("मेरा बिल", "मेरे बिल"), ("দিন", "দান"), ("பால்", "பல"), ("గది", "గాది"), ("ಕವಿ", "ಕವನಿ"), ("කලා", "කලේ")),  # Indic vowel signs
        *(("กิน", "กัน"), ("ມື", "ມີ"), ("កូន", "កាន"), ("မိ", "မီ"), ("བོད", "བུད"), ("ދަރި", "ދިރި")),  # Thai, Lao, Khmer, Burmese, Tibetan, Thaana
    ],
)
def test_vowel_signs_are_letters(one: str, other: str) -> None:
    assert likeness(text(one)) != likeness(text(other))
    assert likeness(text(f"“{one}”,  {one}।")) == likeness(text(f"{one} {one}")) == f"{to_nfc(one)} {to_nfc(one)}"


def test_points_that_may_be_left_away_are_no_letters() -> None:
    for word in ("كَتَبَ", "שָׁלוֹם", "i\u20dd"):
        assert not any(unicodedata.category(letter) == "Mn" for letter in likeness(text(word))), word


def test_a_row_stays_in_its_slice() -> None:
    rows, _ = cleaned(Example(("na", "e\u0301"), ("O", "I-X"), "east"), Example(("leo",), ("O",), "west"))
    assert [row.slice for row in rows] == ["east", "west"]


def test_of_equal_texts_the_first_stays() -> None:
    rows = [Example(("leo",), ("a",), "one"), Example(("na",), ("a",), "two"), Example(("leo",), ("a",), "three")]
    assert [row.slice for row in without_repeats(rows, Counter())] == ["one", "two"]
