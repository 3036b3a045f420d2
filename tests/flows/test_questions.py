"""Questions, from somebody's SQuAD file to a promoted model that answers with a place in the text: init, run, predict, serve's input, export, bundle."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from recompress.models.checkpoint import save
from tests.flows.toy_project import run
from tests.tiny import tiny_checkpoint, tiny_examples

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def squad(count: int) -> dict[str, Any]:
    """Questions that a small model learns, a text each, two texts an article. A number keeps texts of the test split out of the others."""
    draw, articles = random.Random(0), []
    for i, example in enumerate(tiny_examples(count, "question-answering", seed=4)):
        question, text = example.words
        start, _, answer = example.labels[0].partition(":")
        asked = {"id": str(i), "question": question, "answers": [{"text": answer, "answer_start": int(start)}] if answer else [], "is_impossible": not answer}
        paragraph = {"context": f"{text} {draw.randint(10, 99)} {i}", "qas": [asked]}
        if i % 2:
            articles[-1]["paragraphs"].append(paragraph)
        else:
            articles.append({"title": f"article {i // 2}", "paragraphs": [paragraph]})
    return {"version": "v2.0", "data": articles}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("questions")
    (place / "asked.json").write_text(json.dumps(squad(900)))
    save(tiny_checkpoint("text-classification", layers=2), place / "base")
    run(place, "init", "project", "--data", "asked.json", "--base", "base")
    folder = place / "project"
    recipe = folder / "recipes" / "asked.yaml"
    text = re.sub(r"learning_rate: \S+", "learning_rate: 3.0e-3", recipe.read_text())
    text = re.sub(r"epochs: \d+ .*", "epochs: 6", text, count=1).replace("distill: {epochs: 5}", "distill: {epochs: 3, learning_rate: 3.0e-3, precision: fp32}")
    recipe.write_text(re.sub(r"batch_size: 32", "batch_size: 16\n  precision: fp32", text, count=1))
    policy = folder / "policies" / "asked.yaml"
    policy.write_text(
        re.sub(r"margin: [0-9.]+", "margin: 0.2", policy.read_text())
        .replace("times_smaller: 2.0", "times_smaller: 1.2")
        .replace("loss_budget: 0.1", "loss_budget: 0.5 #")
    )
    return folder, run(folder, "run")


def test_a_smaller_model_that_answers_is_promoted(project: tuple[Path, dict[str, Any]]) -> None:
    folder, outcome = project
    assert outcome["promotion"]["model"], outcome["summary"]
    measured = {one["model"]: one for one in outcome["evaluations"]}
    assert measured["baseline"]["metrics"]["f1"] > 0.6
    assert {"exact_match", "answer_f1", "no_answer_f1"} <= measured["baseline"]["metrics"].keys()
    assert set(measured["baseline"]["types"]) == {"with an answer", "without an answer"}
    assert "threshold: 0.0" in (folder / "recipes" / "asked.yaml").read_text()
    page = Path(outcome["page"]).read_text()
    assert "f1" in page
    assert run(folder, "run")["done"] == []


def test_the_champion_answers_with_a_place(project: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = project
    context = "leo jana nyumba asha kula cheza"
    [answer] = run(folder, "predict", "asked@champion", "kwa", "--context", context)["predictions"]
    assert (answer["answer"], context[answer["start"] : answer["end"]]) == ("asha", "asha")
    [nothing] = run(folder, "predict", "asked@champion", "kwa", "--context", "leo jana nyumba kula cheza")["predictions"]
    assert (nothing["answer"], nothing["start"], nothing["summary"]) == (None, None, "no answer")
    assert run(folder, "audit", "verify")["holds"]


def test_the_champion_is_exported(project: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = project
    run(folder, "export", "asked@champion", str(tmp_path / "out"), "--to", "onnx")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: question-answering" in card
    assert "start_logits, end_logits" in card
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["BertForQuestionAnswering"]
