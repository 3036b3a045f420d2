from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.data.formats import readers, reading
from recompress.data.formats.readers import Format, Reading, read_rows
from recompress.errors import DataRefused


def put(folder: Path, text: str | bytes, name: str = "train.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(reading: Reading) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(row.words, row.labels) for row in reading.rows]


def test_conll_sentences_their_tags_and_their_first_lines(tmp_path: Path) -> None:
    reading = read_rows(put(tmp_path, "Asha B-PER\nalikwenda O\n\n\nKisumu B-LOC\nmjini I-LOC"), "conll")
    assert rows(reading) == [(("Asha", "alikwenda"), ("B-PER", "O")), (("Kisumu", "mjini"), ("B-LOC", "I-LOC"))]
    assert [row.line for row in reading.rows] == [1, 5]
    assert not reading.problems


def test_byte_order_mark_and_windows_line_ends_are_taken_away_and_counted_even_when_strict(tmp_path: Path) -> None:
    reading = read_rows(put(tmp_path, b"\xef\xbb\xbfAsha B-PER\r\nleo O\r\n\r\nna O\r\n"), "conll", strict=True)
    assert rows(reading) == [(("Asha", "leo"), ("B-PER", "O")), (("na",), ("O",))]
    assert (reading.count("byte_order_marks"), reading.count("windows_line_ends")) == (1, 1)


@pytest.mark.parametrize("line", ["kisumu", "O", "ya kesho O", "asha PER", "asha B-", "asha b-PER", "asha B-PER extra"])
def test_a_malformed_conll_line_is_refused_by_place_or_left_out_with_its_sentence(tmp_path: Path, line: str) -> None:
    path = put(tmp_path, f"leo O\n\nna O\n{line}\nya O\n\njana O\n")
    with pytest.raises(DataRefused, match=r"expected 'token TAG'.*train\.txt:4\)"):
        read_rows(path, "conll")
    reading = read_rows(path, "conll", strict=False)
    assert rows(reading) == [(("leo",), ("O",)), (("jana",), ("O",))]
    assert [(problem.kind, problem.line) for problem in reading.problems] == [("malformed_lines", 4)]


def test_an_empty_word_is_refused_or_left_out_alone(tmp_path: Path) -> None:
    path = put(tmp_path, "leo O\n O\njana O\n")
    with pytest.raises(DataRefused, match=r"the word is empty.*train\.txt:2"):
        read_rows(path, "conll")
    reading = read_rows(path, "conll", strict=False)
    assert rows(reading) == [(("leo", "jana"), ("O", "O"))]
    assert reading.count("empty_words") == 1


def test_bytes_that_are_not_utf8_are_located(tmp_path: Path) -> None:
    path = put(tmp_path, b"leo O\n\nkis\xff O\n")
    with pytest.raises(DataRefused, match=r"not UTF-8.*:3\)"):
        read_rows(path, "conll")
    reading = read_rows(path, "conll", strict=False)
    assert (reading.count("not_utf8"), reading.rows[1].words) == (1, ("kis\ufffd",))


@pytest.mark.parametrize("kind", ["conll", "tsv", "jsonl", "lines"])
def test_missing_and_empty_files_are_refused(tmp_path: Path, kind: Format) -> None:
    with pytest.raises(DataRefused, match="is missing"):
        read_rows(tmp_path / "nowhere", kind)
    with pytest.raises(DataRefused):
        read_rows(put(tmp_path, ""), kind)
    with pytest.raises(DataRefused):
        read_rows(put(tmp_path, "\n\n \n"), kind)


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="cannot be read"):
        read_rows(tmp_path, "lines")


WORD = st.text(st.characters(blacklist_characters=" \t\n\r", blacklist_categories=("Cs",)), min_size=1, max_size=6).filter(
    lambda word: word.strip() == word and bool(word) and not word.startswith("\ufeff")
)
TAG = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC"])
SENTENCES = st.lists(st.lists(st.tuples(WORD, TAG), min_size=1, max_size=5), min_size=1, max_size=5)


@given(SENTENCES)
def test_what_is_written_as_conll_is_read_back(tmp_path_factory: pytest.TempPathFactory, sentences: list[list[tuple[str, str]]]) -> None:
    path = put(tmp_path_factory.mktemp("conll"), "\n\n".join("\n".join(f"{word} {tag}" for word, tag in sentence) for sentence in sentences))
    assert [list(zip(words, tags, strict=True)) for words, tags in rows(read_rows(path, "conll"))] == sentences


PIECE = st.sampled_from(["a O", "b B-X", " O", "broken", "c d O", "", "", " ", "e\tI-X", "O", "f O "])


@given(st.lists(PIECE, max_size=12))
def test_reading_whole_sentences_gives_what_reading_line_by_line_gives(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = put(tmp_path_factory.mktemp("conll"), "\n".join([*lines, "", "end O"]))
    fast, slow = Reading(path, strict=False), Reading(path, strict=False)
    readers._read_conll(fast, path.read_text())
    readers._read_sentences(slow, path.read_text(), 1)
    assert (fast.rows, fast.problems) == (slow.rows, slow.problems)


def test_quotes_in_tsv_are_characters_and_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    path = put(tmp_path, 'tweet\tlabel\n"leo\tpositive\nna "ya\x85kwa\u2028 kesho"\tnegative\n')
    reading = read_rows(path, "tsv", text="tweet")
    assert rows(reading) == [(('"leo',), ("positive",)), (('na "ya\x85kwa\u2028 kesho"',), ("negative",))]
    assert [row.line for row in reading.rows] == [2, 3]


def test_tsv_without_its_header_or_with_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"column 'tweet'.*:1\)"):
        read_rows(put(tmp_path, "text\tlabel\nleo\tpositive\n"), "tsv", text="tweet")
    path = put(tmp_path, "tweet\tlabel\nleo\tpositive\nna\tya\tpositive\njana\n\tpositive\nkesho\t\n")
    with pytest.raises(DataRefused, match=r"expected 2 columns, got 3.*:3\)"):
        read_rows(path, "tsv", text="tweet")
    reading = read_rows(path, "tsv", text="tweet", strict=False)
    assert rows(reading) == [(("leo",), ("positive",))]
    assert (reading.count("malformed_lines"), reading.count("empty_words")) == (3, 1)


def test_json_lines(tmp_path: Path) -> None:
    path = put(tmp_path, '{"text": "leo", "label": "a", "slice": "x"}\n{"text": 3, "label": "a"}\n[1]\n{"text": "na\n\n{"text": "jana", "label": "b"}\n')
    with pytest.raises(DataRefused, match=r"expected an object with the strings 'text' and 'label'.*:2\)"):
        read_rows(path, "jsonl")
    reading = read_rows(path, "jsonl", strict=False)
    assert [(row.words[0], row.labels[0], row.slice) for row in reading.rows] == [("leo", "a", "x"), ("jana", "b", "")]
    assert [problem.line for problem in reading.problems] == [2, 3, 4]


def test_plain_text_has_a_sentence_a_line(tmp_path: Path) -> None:
    assert rows(read_rows(put(tmp_path, "leo na jana\n\n  \nkesho\n"), "lines")) == [(("leo na jana",), ()), (("kesho",), ())]


def test_only_a_line_feed_ends_a_line_of_plain_text(tmp_path: Path) -> None:
    assert [row.words for row in read_rows(put(tmp_path, "leo\x85na\u2028kesho\njana\n"), "lines").rows] == [("leo\x85na\u2028kesho",), ("jana",)]


def test_a_row_that_is_longer_than_any_text_is_refused_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST", 20)
    path = tmp_path / "a.txt"
    path.write_text("kula\n" + "x" * 21 + "\nleo\n")
    with pytest.raises(DataRefused, match=r"the row is 21 characters long, at most 20 are taken; are line ends or quotes missing\? \(.*a\.txt:2\)"):
        read_rows(path, "lines")
    lenient = read_rows(path, "lines", strict=False)
    assert [row.words for row in lenient.rows] == [("kula",), ("leo",)]
    assert lenient.count("malformed_lines") == 1
