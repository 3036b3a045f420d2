"""Five ways to write entities become one, from CoNLL with any columns and from lists of tags; and what they cannot say is not invented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.scheme import BILOU, IOB1, IOBES, Entities

from recompress.benchmarks import Example
from recompress.benchmarks.token_classification import entities
from recompress.data.formats.bio import valid_bio
from recompress.data.formats.readers import read_rows
from recompress.data.formats.tag_schemes import TAGS, labels_in_iob2, to_iob2
from recompress.data.infer.looking import look_at
from recompress.data.layout import Tags
from recompress.data.prepare import prepare, summary
from recompress.data.sources import RawPart, SourceSettings, read_raw
from recompress.errors import DataRefused
from tests.data.made_up import IOB2, WORDS

WRITTEN: dict[Tags, tuple[str, ...]] = {
    "iob2": IOB2,
    "iob1": ("I-PER", "B-PER", "O", "O", "I-LOC", "I-LOC", "I-LOC", "O", "O"),
    "io": ("I-PER", "O", "O", "O", "I-LOC", "I-LOC", "I-LOC", "O", "O"),
    "bioes": ("S-PER", "S-PER", "O", "O", "B-LOC", "I-LOC", "E-LOC", "O", "O"),
    "bilou": ("U-PER", "U-PER", "O", "O", "B-LOC", "I-LOC", "L-LOC", "O", "O"),
}
ALONE = ("B-PER", "O", *IOB2[2:])
"""What IO can say of it: two persons that touch would be one."""


@pytest.mark.parametrize("scheme", WRITTEN)
def test_every_scheme_is_recognised_and_becomes_iob2(scheme: Tags, tmp_path: Path) -> None:
    lines = [f"{word} {tag}" for word, tag in zip(WORDS, WRITTEN[scheme], strict=True)]
    (tmp_path / "train.txt").write_text("\n".join([*lines, ""] * 3))
    understood = look_at(tmp_path / "train.txt")
    assert understood.entry.get("tags", "iob2") == scheme
    expected = ALONE if scheme == "io" else IOB2
    assert [row.labels for row in understood.first] == [expected] * 2
    assert understood.labels == ({"PER": 3, "LOC": 3} if scheme == "io" else {"PER": 6, "LOC": 3})
    (tmp_path / "train.jsonl").write_text(json.dumps({"tokens": WORDS, "tags": WRITTEN[scheme]}) + "\n")
    assert look_at(tmp_path / "train.jsonl").first[0].labels == expected


SENTENCES = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), min_size=1, max_size=8).map(valid_bio)


def spelled(tags: tuple[str, ...], scheme: str) -> list[str]:
    """The same entities in another scheme, by its definition."""
    written = list(tags)
    for kind, start, end in entities(tags):
        single, last = {"bioes": ("S", "E"), "bilou": ("U", "L")}[scheme]
        written[start:end] = [f"{single}-{kind}"] if end - start == 1 else [f"B-{kind}", *[f"I-{kind}"] * (end - start - 2), f"{last}-{kind}"]
    return written


@given(SENTENCES)
def test_schemes_with_ends_give_the_same_entities_as_seqeval(tags: tuple[str, ...]) -> None:
    for scheme, theirs in (("bioes", IOBES), ("bilou", BILOU)):
        written = spelled(tags, scheme)
        assert to_iob2(written, scheme) == tags  # type: ignore[arg-type]
        assert {(e.tag, e.start, e.end) for e in Entities([written], theirs).entities[0]} == set(entities(tags))


@given(st.lists(st.sampled_from(["O", "I-X", "I-Y", "B-X", "B-Y"]), min_size=1, max_size=8))
def test_iob1_gives_the_same_entities_as_seqeval(tags: list[str]) -> None:
    legal = all(tag[0] != "B" or (i and tags[i - 1][2:] == tag[2:]) for i, tag in enumerate(tags))
    if legal:
        assert set(entities(to_iob2(tags, "iob1"))) == {(e.tag, e.start, e.end) for e in Entities([tags], IOB1).entities[0]}


def test_what_a_scheme_does_not_allow_begins_an_entity() -> None:
    assert to_iob2(("E-X", "I-X", "O", "I-X", "S-X", "E-X"), "bioes") == ("B-X", "B-X", "O", "B-X", "B-X", "B-X")
    assert to_iob2(("PER", "PER", "LOC", "O", "PER"), "io") == ("B-PER", "I-PER", "B-LOC", "O", "B-PER")
    assert to_iob2(("I-X", "I-X"), "iob2") == ("I-X", "I-X"), "what is wrong in IOB2 is counted where it is repaired"
    assert not TAGS["io"].fullmatch("B-PER")


@pytest.mark.parametrize(
    ("listed", "scheme", "known"),
    [
        (("O", "I-PER", "I-LOC"), "iob2", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")),
        (("O", "B-PER", "I-PER"), "iob2", ("O", "B-PER", "I-PER")),
        (("O", "I-PER", "B-PER"), "iob2", ("O", "I-PER", "B-PER")),
        (("O", "B-DAY"), "iob2", ("O", "B-DAY")),
        (("O", "PER"), "io", ("O", "B-PER", "I-PER")),
        (("PER", "LOC"), "spans", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")),
        (("O", "S-X", "B-X", "E-X"), "bioes", ("O", "B-X", "I-X")),
        (("O", "U-X", "L-X"), "bilou", ("O", "B-X", "I-X")),
    ],
)
def test_listed_labels_are_those_that_rows_carry(listed: tuple[str, ...], scheme: Tags, known: tuple[str, ...]) -> None:
    assert labels_in_iob2(listed, scheme) == known


def test_data_in_io_with_exactly_its_own_labels_listed_has_all_that_its_rows_carry() -> None:
    """CoNLL-2003 as published has no B-PER; what repair makes of it was among no labels, and the run then said that the data was wrong."""
    rows = [Example((f"w{i}", "Asha", "Juma", "na", "Nairobi"), ("O", "I-PER", "I-PER", "O", "I-LOC"), "east") for i in range(5)]
    settings = SourceSettings(benchmark="token-classification", format="conll", source="raw/x", files="{slice}/{split}.txt", labels=("O", "I-PER", "I-LOC"))
    splits, counts = prepare([RawPart("train", "east", rows)], settings)
    carried = {label for row in splits["train"]["east"] for label in row.labels}
    assert summary(splits, counts, settings)["labels"] == ["O", "B-PER", "I-PER", "B-LOC"]
    assert carried == {"O", "B-PER", "I-PER", "B-LOC"}


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER

-DOCSTART- -X- -X- O

Nairobi NNP I-NP I-LOC
Mombasa NNP I-NP B-LOC
"""
CONLL_U = """# sent_id = 1
# text = Asha lives in Dar es Salaam
1\tAsha\tAsha\tPROPN\t_\tB-PER
2\tlives\tlive\tVERB\t_\tO
3\tin\tin\tADP\t_\tO
4\tDar es Salaam\t_\tPROPN\t_\tB-LOC

# sent_id = 2
1\t#\t#\tSYM\t_\tO
2\tJuma\tJuma\tPROPN\t_\tB-PER
"""


def test_conll_2003_as_published(tmp_path: Path) -> None:
    (tmp_path / "eng.train").write_text(CONLL_2003)
    understood = look_at(tmp_path / "eng.train")
    assert {key: understood.entry[key] for key in ("word_column", "tag_column", "group", "tags")} == {
        "word_column": 1,
        "tag_column": 4,
        "group": "-DOCSTART-",
        "tags": "iob1",
    }
    rows = read_rows(tmp_path / "eng.train", "conll", word_column=1, tag_column=4, group="-DOCSTART-", tags="iob1").rows
    assert [(row.words[0], row.labels, row.line, row.group) for row in rows] == [
        ("EU", ("B-ORG", "O", "B-MISC", "O"), 3, "1"),
        ("Peter", ("B-PER", "I-PER"), 8, "1"),
        ("Nairobi", ("B-LOC", "B-LOC"), 13, "11"),
    ]


def test_conll_u_with_comments_numbers_and_words_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(CONLL_U)
    understood = look_at(tmp_path / "a.conllu")
    assert {key: understood.entry[key] for key in ("word_column", "tag_column", "comment")} == {"word_column": 2, "tag_column": 6, "comment": "#"}
    assert [(row.words, row.line) for row in understood.first] == [(("Asha", "lives", "in", "Dar es Salaam"), 3), (("#", "Juma"), 9)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("call NN I-NP", "expected 4 columns, as the lines before, got 3: 'call NN I-NP'"),
        ("call NN I-NP E-X", "expected the word in column 1 and in column -1 a tag like O, B-PER or I-PER (tags: iob1), got 'call NN I-NP E-X'"),
        (" NN I-NP O", "the word is empty"),
    ],
)
def test_a_line_that_is_broken_is_named_and_left_out_with_its_sentence(line: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CONLL_2003.replace("call NN I-NP O", line))
    with pytest.raises(DataRefused) as refused:
        read_rows(tmp_path / "a.txt", "conll", word_column=1, tags="iob1", group="-DOCSTART-")
    assert what in str(refused.value)
    assert str(refused.value).endswith("a.txt:6)")
    reading = read_rows(tmp_path / "a.txt", "conll", word_column=1, tags="iob1", group="-DOCSTART-", strict=False)
    assert [row.words[0] for row in reading.rows] == (["EU"] if line.startswith(" ") else []) + ["Peter", "Nairobi"]


def test_parts_of_speech_are_no_entities(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Asha PROPN\nsleeps VERB\n\nJuma PROPN\neats VERB\n")
    with pytest.raises(DataRefused, match=r"no column holds tags of entities.*tag_column: names it"):
        look_at(tmp_path / "a.conll")


def test_any_columns_give_what_two_columns_give(tmp_path: Path) -> None:
    two, four = tmp_path / "two", tmp_path / "four"
    for folder, form in ((two, "{0} {1}\n"), (four, "{1}\t_\t{0}\tx\n")):
        folder.mkdir()
        (folder / "train.txt").write_text("\n".join("".join(form.format(*pair) for pair in zip(WORDS, IOB2, strict=True)) for _ in range(3)))
    plain = SourceSettings(benchmark="token-classification", format="conll", source="raw/x", files="{split}.txt")
    columns = plain.model_copy(update={"word_column": 3, "tag_column": 1})
    assert [part.examples for part in read_raw(four, columns)] == [part.examples for part in read_raw(two, plain)]
