"""Which three columns are questions, the texts that they are asked about, and answers that stand in these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recompress.data.formats.records import value_at
from recompress.data.infer.looks import Records, by_name, is_text
from recompress.data.questions import QUESTION_ANSWERING, answers_stand

QUESTIONS, CONTEXTS = ("question", "query", "query_text"), ("context", "passage", "paragraph", "document", "text", "article")
ANSWERS, STARTS = ("answers", "answer", "answer_text"), ("answer_start", "start", "answer_begin")


def infer_questions(records: Records, columns: list[str], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]] | None:
    """Three columns of which the third holds parts of the second, for nearly all rows."""
    texts = [column for column in columns if is_text(records, column)]
    starts = [given["answer_start"]] if "answer_start" in given else [column for column in columns if column.lower() in STARTS] + [None]
    for question in [given["question"]] if "question" in given else [column for column in texts if column.lower() in QUESTIONS]:
        for text in [given["text"]] if "text" in given else [column for column in by_name(texts, CONTEXTS) if column != question]:
            for label in [given["label"]] if "label" in given else [column for column in columns if column.lower() in ANSWERS]:
                for start in starts:
                    if label not in (question, text, start) and answers_stand(records[:200], question, text, label, start):
                        dials = {"benchmark": QUESTION_ANSWERING, "question": question, "text": text, "label": label}
                        why = {"question": "what is asked", "text": "what it is asked about", "label": "answers, which stand in that text"}
                        plain = any(isinstance(value_at(record, label), str) for record in records[:50])
                        return dials | ({"answer_start": start} if start and plain else {}), why, []
    return None
