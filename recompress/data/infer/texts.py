"""Which column is the text and which its one label; without a label it is running text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recompress.data.infer.looks import LABELS, Records, best_text, by_name, distinct, inside, is_label, is_plain, is_text, mean_length
from recompress.errors import DataRefused

PROMPTS = ("prompt", "instruction", "question", "input", "source", "document", "article")
REFERENCES = ("reference", "references", "completion", "response", "output", "answer", "target", "summary", "highlights")
"""What people call what a model is asked to write about, and what it should write."""
ASKED_IN_WORDS = ("few-shot-classification",)
"""Benchmarks of the same data, for models of language."""


def infer_texts(
    records: Records, columns: list[str], names: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    every = [*columns, *inside(records, columns)]
    texts = [column for column in every if is_text(records, column)]
    if "text" not in given and not texts:
        raise DataRefused(f"no column is text; there are: {', '.join(columns)} (text: names one)")
    text = given.get("text") or best_text(records, texts)
    notes = []
    others = [column for column in texts if column != text and mean_length(records, column) > 20 and distinct(records, column) > len(records) / 10]
    if others and "text" not in given:
        notes.append(f"{', '.join(map(repr, others[:3]))} could be the text too; text: says which, and text_pair: that both are read")
    if given.get("benchmark") == "text-generation":
        return _prompts(records, columns, texts, given)
    if given.get("benchmark") == "language-modelling":
        return {"benchmark": "language-modelling", "text": text}, {"text": "the text"}, notes
    labels = [given["label"]] if "label" in given else [column for column in by_name(columns, LABELS) if column != text and is_label(records, column)]
    if not labels and (called := [column for column in by_name(columns, LABELS) if column.lower() in LABELS and column != text and is_plain(records, column)]):
        labels = called[:1]
        notes.append(f"{called[0]!r} is taken for the label by its name alone: its values hardly repeat, or some are missing; label: names another")
    if not labels:
        if given.get("benchmark") in ("text-classification", *ASKED_IN_WORDS):
            raise DataRefused(f"no column holds a label for each text; there are: {', '.join(columns)} (label: names one)")
        return {"benchmark": "language-modelling", "text": text}, {"text": "the text; no column could be a label"}, notes
    label = labels[0] if labels[0].lower() in LABELS or "label" in given else min(labels, key=lambda column: distinct(records, column))
    if others := [other for other in labels if other != label and distinct(records, other) <= len(records) / 5]:
        notes.append(f"{', '.join(map(repr, others[:3]))} could be the label too; label: says which")
    kinds = distinct(records, label)
    what = f"{kinds:,} different values" + (", named by the file itself" if names.get(label) else "")
    benchmark = given.get("benchmark") if given.get("benchmark") in ASKED_IN_WORDS else "text-classification"
    return {"benchmark": benchmark, "text": text, "label": label}, {"text": "the text", "label": what}, notes


def _prompts(records: Records, columns: list[str], texts: list[str], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Which column is the prompt and which the right text, by what people call them; else the first two columns of text."""
    prompt = given.get("text") or next(iter(by_name([*texts], PROMPTS)), texts[0])
    others = [column for column in texts if column != prompt]
    if "label" not in given and not others:
        raise DataRefused(f"no second column is text that could be right; there are: {', '.join(columns)} (label: names the right text)")
    right = given.get("label") or next(iter(by_name(others, REFERENCES)), others[0])
    return {"benchmark": "text-generation", "text": prompt, "label": right}, {"text": "the prompt", "label": "the text that is right"}, []
