"""Questions about texts, in every layout in which people have them; answers that stand where they say, and those that do not."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recompress.benchmarks import Example
from recompress.benchmarks.answers import read
from recompress.data.clean import Tally, clean
from recompress.data.formats.readers import read_rows
from recompress.data.infer.explain import explain
from recompress.data.infer.looking import look_at
from recompress.data.observe import observe_balance, observe_rows, read_prepared
from recompress.data.prepare import prepare, write
from recompress.data.sources import SourceSettings, read_raw
from recompress.data.splits import labels_of, preparation, read_split
from recompress.errors import DataRefused

TEXTS = ("Asha Juma alikwenda Nairobi jana.", "Kisumu ni mji. Bibi anakaa Kisumu, na Asha pia.")
ASKED: list[dict[str, Any]] = [
    {
        "id": "a1",
        "question": "Nani alikwenda?",
        "context": TEXTS[0],
        "answers": [{"text": "Asha Juma", "answer_start": 0}, {"text": "Asha", "answer_start": 0}],
    },
    {"id": "a2", "question": "Wapi?", "context": TEXTS[0], "answers": [{"text": "Nairobi", "answer_start": 20}]},
    {"id": "b1", "question": "Bibi anakaa wapi?", "context": TEXTS[1], "answers": [{"text": "Kisumu", "answer_start": 27}]},
    {"id": "b2", "question": "Kesho?", "context": TEXTS[1], "answers": []},
]
EXPECTED = [
    (("Nani alikwenda?", TEXTS[0]), ("0:Asha Juma", "0:Asha")),
    (("Wapi?", TEXTS[0]), ("20:Nairobi",)),
    (("Bibi anakaa wapi?", TEXTS[1]), ("27:Kisumu",)),
    (("Kesho?", TEXTS[1]), ("",)),
]


def squad(rows: list[dict[str, Any]], *, impossible: bool = True) -> dict[str, Any]:
    """SQuAD's own nesting: an article for each text, the questions of a paragraph together."""
    articles = []
    for number, text in enumerate(dict.fromkeys(row["context"] for row in rows)):
        asked = [{key: row[key] for key in ("id", "question", "answers")} for row in rows if row["context"] == text]
        for one in asked:
            if impossible:
                one["is_impossible"] = not one["answers"]
                one["plausible_answers"] = [{"text": "na", "answer_start": 3}] if not one["answers"] else []
        articles.append({"title": f"Article_{number}", "paragraphs": [{"context": text, "qas": asked}]})
    return {"version": "v2.0", "data": articles}


def columns(answers: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {"text": [answer["text"] for answer in answers], "answer_start": [answer["answer_start"] for answer in answers]}


def in_every_layout(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The same questions as different tools write them, each with the dials that read it."""
    folder.mkdir(exist_ok=True)
    names = {"text": "context", "label": "answers"}
    files = {name: folder / name for name in ("squad.json", "rows.jsonl", "rows.json", "rows.parquet", "rows.csv", "plain.tsv")}
    files["squad.json"].write_text(json.dumps(squad(ASKED)))
    files["rows.jsonl"].write_text("".join(json.dumps({**row, "answers": columns(row["answers"])}) + "\n" for row in ASKED))
    files["rows.json"].write_text(json.dumps(ASKED, indent=1))
    pq.write_table(pa.Table.from_pylist([{**row, "answers": columns(row["answers"])} for row in ASKED]), files["rows.parquet"])
    with files["rows.csv"].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "context", "answers"])
        writer.writerows([row["question"], row["context"], json.dumps(columns(row["answers"]))] for row in ASKED)
    with files["plain.tsv"].open("w", newline="") as file:
        tabs = csv.writer(file, delimiter="\t")
        tabs.writerow(["question", "context", "answer", "answer_start"])
        for row in ASKED:
            first = row["answers"][0] if row["answers"] else {"text": "", "answer_start": ""}
            tabs.writerow([row["question"], row["context"], first["text"], first["answer_start"]])
    return {
        "squad.json": (files["squad.json"], {"format": "squad"}),
        "rows.jsonl": (files["rows.jsonl"], {"format": "jsonl", **names}),
        "rows.json": (files["rows.json"], {"format": "json", **names}),
        "rows.parquet": (files["rows.parquet"], {"format": "parquet", **names}),
        "rows.csv": (files["rows.csv"], {"format": "csv", **names}),
        "plain.tsv": (files["plain.tsv"], {"format": "tsv", "text": "context", "label": "answer", "answer_start": "answer_start"}),
    }


LAYOUTS = ("squad.json", "rows.jsonl", "rows.json", "rows.parquet", "rows.csv", "plain.tsv")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(layout: str, tmp_path: Path) -> None:
    path, dials = in_every_layout(tmp_path)[layout]
    rows = read_rows(path, dials.pop("format"), benchmark="question-answering", **dials).rows
    first_only = layout == "plain.tsv"
    assert [(row.words, row.labels[:1] if first_only else row.labels) for row in rows] == [
        (words, labels[:1] if first_only else labels) for words, labels in EXPECTED
    ]
    assert rows[0].group == rows[1].group != rows[2].group == rows[3].group
    assert all(
        text[span.start : span.end] == span.text for (_, text), labels in ((row.words, row.labels) for row in rows) for span in map(read, labels) if span
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised(layout: str, tmp_path: Path) -> None:
    path, dials = in_every_layout(tmp_path)[layout]
    understood = look_at(path)
    assert understood.benchmark == "question-answering"
    assert {key: understood.entry.get(key) for key in dials} == dials
    assert understood.labels == {"answerable": 3, "unanswerable": 1}
    assert "'Nani alikwenda?'  '0:Asha Juma'" in explain(understood)


def test_other_data_with_a_question_column_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("question,text,answer\n" + "".join(f"how {i},some text {i},{'yes' if i % 2 else 'no'}\n" for i in range(40)))
    assert look_at(path).benchmark == "text-classification"


def test_squad_without_unanswerable_questions(tmp_path: Path) -> None:
    path = tmp_path / "v1.json"
    path.write_text(json.dumps(squad(ASKED[:3], impossible=False)))
    assert [row.labels for row in read_rows(path, "squad").rows] == [labels for _, labels in EXPECTED[:3]]
    assert [row.group for row in read_rows(path, "squad").rows] == ["Article_0", "Article_0", "Article_1"]


@pytest.mark.parametrize(
    "answers, why",
    [
        (
            [{"text": "Nairobi", "answer_start": 19}],
            r"the answer 'Nairobi' of question 'a2' should begin at character 19, where ' Nairob' stands; it stands at 20",
        ),
        ([{"text": "Mombasa", "answer_start": 20}], "it does not stand in the text at all"),
        ([{"text": "Nairobi", "answer_start": "here"}], "is a number of characters, got 'here'"),
        ([{"text": "Nairobi", "answer_start": -1}], "is a number of characters"),
        ([{"text": " ", "answer_start": 0}], "question 'a2' has an answer without text"),
        ({"text": ["Nairobi"], "answer_start": []}, "question 'a2' has 1 answers and 0 places"),
        ([17], "question 'a2' has answers that are no pairs"),
    ],
    ids=str,
)
def test_an_answer_that_does_not_stand_there_is_named_with_file_and_question(answers: Any, why: str, tmp_path: Path) -> None:
    broken = [dict(row) for row in ASKED]
    broken[1]["answers"] = answers
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(squad(broken, impossible=False)))
    with pytest.raises(DataRefused, match=why) as refused:
        read_rows(path, "squad")
    assert str(refused.value).endswith(f"({path}:2)")
    counted = read_rows(path, "squad", strict=False)
    assert (len(counted.rows), counted.count("malformed_lines")) == (3, 1)


def test_a_plain_answer_without_a_place_has_to_stand_there_once(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text(f'question,context,answer\n"Nani?","{TEXTS[0]}",Asha Juma\n"Wapi?","{TEXTS[1]}",Kisumu\n')
    with pytest.raises(DataRefused, match=r"the answer 'Kisumu' of the question stands 2 times in its text; answer_start: says .*plain\.csv:3\)"):
        read_rows(path, "csv", benchmark="question-answering", text="context", label="answer")


@pytest.mark.parametrize("content, why", [("[]", "expected SQuAD's JSON"), ('{"data": []}', "expected SQuAD's JSON"), ('{"data": [', "not JSON")])
def test_what_is_not_squad_is_refused(content: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataRefused, match=why):
        read_rows(tmp_path / "x.json", "squad")


def test_answers_move_with_the_characters_that_are_repaired_before_them() -> None:
    text = "  \u200bẸ̀kọ́ ti  Ìbàdàn\u00ad ni Ìbàdàn."
    text = unicodedata.normalize("NFD", text)
    answer = unicodedata.normalize("NFD", "Ìbàdàn")
    starts = [i for i in range(len(text)) if text.startswith(answer, i)]
    tally: Tally = Tally()
    rows = [Example((" Níbo  ni? ", text), (f"{start}:{answer}",), "yor", "a") for start in starts]
    first, second = clean(rows, None, tally, tagged=False, spans=True)
    assert first.words[0] == "Níbo ni?"
    assert first.words[1].startswith("  Ẹ̀kọ́ ti  Ìbàdàn ni"), "spaces stay, because answers are counted in characters"
    places = [read(row.labels[0]) for row in (first, second)]
    assert [place.text for place in places if place] == ["Ìbàdàn"] * 2
    assert [first.words[1][place.start : place.end] for place in places if place] == ["Ìbàdàn"] * 2
    assert places[0] != places[1]


def test_what_is_lost_in_repair_is_left_out_and_counted() -> None:
    tally: Tally = Tally()
    rows = [Example(("Nani?", "Asha \u0085\u0086 hapa"), ("5:\u0085\u0086",)), Example(("", "Asha"), ("0:Asha",))]
    assert clean(rows, None, tally, tagged=False, spans=True) == []
    assert (tally["lost_answers"], tally["no_words"]) == (1, 1)


def many(articles: int) -> dict[str, Any]:
    """Two paragraphs with three questions in each article, a third of them without an answer."""
    return {
        "data": [
            {
                "title": f"Title {a}",
                "paragraphs": [
                    {
                        "context": f"Mji wa {a} una watu {p} na {a * 7}.",
                        "qas": [
                            {"id": f"{a}-{p}-{q}", "question": f"Swali {q} la {a} na {p}?", "answers": [{"text": str(a), "answer_start": 7}] * (q > 0)}
                            for q in range(3)
                        ],
                    }
                    for p in range(2)
                ],
            }
            for a in range(articles)
        ]
    }


def settings_for(folder: Path, **more: Any) -> SourceSettings:
    return SourceSettings.model_validate(
        {
            "benchmark": "question-answering",
            "format": "squad",
            "source": str(folder),
            "files": "{slice}.json",
            "split_off": {"test": {"share": 0.3}, "dev": {"share": 0.2}},
        }
        | more
    )


def test_articles_stay_together_and_both_kinds_of_questions_are_in_each_split(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    out.mkdir()
    (raw / "swa.json").write_text(json.dumps(many(40)))
    settings = settings_for(raw)
    splits, counts = prepare(read_raw(raw, settings), settings)
    write(splits, counts, settings, out)
    rows = {split: read_split(out, split) for split in ("train", "dev", "test")}
    assert [len(rows[split]) for split in ("test", "dev")] == [72, 36]
    groups = {split: {row.group for row in rows[split]} for split in rows}
    assert not groups["train"] & groups["test"] | groups["dev"] & groups["test"] | groups["train"] & groups["dev"]
    assert all({bool(row.labels[0]) for row in rows[split]} == {True, False} for split in rows)
    assert preparation(out)["labels"] == ["start", "end"]
    assert labels_of(out) == ("start", "end")
    parts = read_prepared(out, ["swa"])
    seen = observe_rows(parts, settings)
    assert not seen[["missing_labels", "unknown_labels", "group_elsewhere", "conflicts", "repeats", "in_train"]].to_numpy().any()
    balance = observe_balance(parts, settings)
    assert balance["label_balance"].max() < 0.01
    assert balance["labels_train_lacks"].max() == 0


def test_another_group_may_be_named_and_rows_without_groups_are_drawn_by_kind(tmp_path: Path) -> None:
    (tmp_path / "swa.json").write_text(json.dumps(many(30)))
    by_text = settings_for(tmp_path, group="context")
    [part] = read_raw(tmp_path, by_text)
    assert len({example.group for example in part.examples}) == 60
    splits, _ = prepare([part], by_text)
    part.examples = [Example(example.words, example.labels, example.slice) for example in part.examples]
    alone, _ = prepare([part], by_text)
    for made in (splits, alone):
        test = made["test"]["swa"]
        assert 54 <= len(test) <= 60
        assert 0.3 <= sum(not row.labels[0] for row in test) / len(test) <= 0.37


def test_real_questions_are_read_and_split_by_article(mirror: Path) -> None:
    settings = settings_for(mirror / "xquad", files="xquad.{slice}.json")
    [part] = read_raw(mirror / "xquad", settings, strict=True)
    assert (part.slice, len(part.examples), len({example.group for example in part.examples})) == ("en", 1190, 48)
    splits, _ = prepare([part], settings)
    groups = {split: {row.group for rows in slices.values() for row in rows} for split, slices in splits.items()}
    assert sum(map(len, groups.values())) == 48
