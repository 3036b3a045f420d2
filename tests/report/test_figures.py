"""A share is shown in percent, and what is no share is not: in the sentence of a run, on the page, and in a README's table."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from recompress.gate.rounds import speeds
from recompress.records import Evaluation, Selection
from recompress.report.figures import axis_name, change, change_name, metric, metric_name
from recompress.report.page import page
from recompress.report.readme import table
from tasks.steps.promote import Promotion
from tasks.steps.report import faster, summarise

BITS = "negative_bits_per_byte"


@pytest.mark.parametrize(
    ("name", "value", "shown", "moved", "called"),
    [
        ("accuracy", 0.8125, "81.2", "-1.5", "accuracy"),
        ("f1", 0.5, "50.0", "-1.5", "F1"),
        (BITS, -0.99234, "0.992", "+0.015", "bits per byte"),
    ],
)
def test_each_as_people_read_it(name: str, value: float, shown: str, moved: str, called: str) -> None:
    assert (metric(value, name), change(-0.015, name), metric_name(name)) == (shown, moved, called)
    assert (metric(None, name), change(None, name)) == ("–", "")
    assert change_name(name) == ("± bits per byte" if name == BITS else "± points")
    assert axis_name(BITS) == "negative bits per byte", "up is better in the pictures"


def evaluation(model: str, value: float) -> Evaluation:
    metrics = {BITS: value, "size_bytes": 1e6, "latency_p50_ms": 2.0, "latency_ratio": 1.0}
    return Evaluation(
        model=model, model_sha256="a" * 64, dataset_sha256="d" * 64, metrics=metrics, slices={}, machine={}, predictions_uri="p", predictions_sha256="e" * 64
    )


def test_bits_per_byte_stand_as_such_wherever_a_run_is_told() -> None:
    rows = [evaluation("baseline", -0.944), evaluation("gptq_4", -0.992)]
    chosen = Promotion(model="gptq_4", registered="stories", version="1")
    sentence = summarise(rows, Selection(examples=10, trials=()), SimpleNamespace(verdicts={}), chosen, BITS)
    assert sentence.endswith("bits per byte 0.992 against 0.944.")
    told: dict[str, Any] = {"title": "t", "summary": sentence, "looks": {}, "verdicts": {}, "facts": {}, "steps": {}, "recipe_text": ""}
    html = page(primary=BITS, evaluations=rows, selection=Selection(examples=10, trials=()), winner="gptq_4", **told)
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", html)]
    assert cells[1:3] == ["bits per byte", "± bits per byte"]
    assert {"0.944", "0.992", "+0.048"} <= set(cells)
    assert not any("-99" in cell or "99.2" in cell for cell in cells)
    report = {"metric": BITS, "evaluations": [row.as_json() for row in rows], "dev": {"trials": []}, "verdicts": {}, "promotion": {"model": "gptq_4"}}
    assert table(report).splitlines()[-1] == "| gptq_4 | 0.992 | 1.0 | 1.0 | 2.00 | 1.0 | 1.0 | – |"


def test_how_many_times_as_fast_is_said_with_what_it_is_compared_with_and_its_bound() -> None:
    timed = {"latency_ratio": (6.0,) * 7 + (5.9,), "cold_latency_ratio_runtime": (2.5,) * 8, "latency_ratio_runtime": (3.0, 3.0), "processor_ratio": (9.0,) * 8}
    row = evaluation("gptq_4", -0.9).model_copy(update={"rounds": timed})
    shown = speeds(row, 0.05)
    assert shown == {"latency_ratio": (6.0, 6.0), "cold_latency_ratio_runtime": (2.5, 2.5), "latency_ratio_runtime": (3.0, 0.0)}
    assert speeds(row, 0.01)["latency_ratio"] == (6.0, 5.9), "surer, and less"
    told: dict[str, Any] = {"title": "t", "summary": "s", "looks": {}, "verdicts": {}, "facts": {}, "steps": {}, "recipe_text": ""}
    told |= {"primary": BITS, "selection": Selection(examples=10, trials=()), "winner": None}
    html = page(evaluations=[evaluation("baseline", -0.9), row], speeds={"gptq_4": shown}, **told)
    table = html.split("and than what</h2>")[1].split("</table>")[0]
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", table)]
    heads = ["model", "same runtime, hot", "torch, hot", "ONNX Runtime, hot", "same runtime, cold", "torch, cold", "ONNX Runtime, cold"]
    assert cells == [*heads, "gptq_4", "3.00", "6.00 (≥ 6.00)", "–", "2.50 (≥ 2.50)", "–", "–"]
    assert "and than what" not in page(evaluations=[row], **told), "an evaluation of an earlier version had no rounds"


def test_a_model_that_writes_has_a_line_of_how_fast() -> None:
    writes = {"decode_per_s": 156.04, "prefill_per_s": 217.0, "first_token_p50_ms": 39.2, "writing_memory_bytes": 185.8e6}
    row = evaluation("q4_1", -0.9).model_copy(update={"rounds": {"decode_ratio": (6.3,) * 8, "decode_ratio_runtime": (2.0, 2.0)}})
    row = row.model_copy(update={"metrics": row.metrics | writes})
    told: dict[str, Any] = {"title": "t", "summary": "s", "looks": {}, "verdicts": {}, "facts": {}, "steps": {}, "recipe_text": ""}
    told |= {"primary": BITS, "selection": Selection(examples=10, trials=()), "winner": "q4_1"}
    rows = [evaluation("baseline", -0.9), row]
    html = page(evaluations=rows, speeds={one.model: speeds(one, 0.05) for one in rows}, **told)
    table = html.split("How fast each writes</h2>")[1].split("</table>")[0]
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", table)]
    assert cells[7:] == ["q4_1", "156.0", "2.00", "6.30 (≥ 6.30)", "217", "39.2", "185.8"]
    assert "How fast each writes" not in page(evaluations=rows[:1], **told)


def test_a_summary_says_both_where_the_runtime_is_another() -> None:
    assert faster({"latency_ratio": 11.0, "latency_ratio_runtime": 5.04}) == "5.0 times as fast as it in the same runtime and 11.0 times as in torch"
    assert faster({"latency_ratio": 2.0, "latency_ratio_runtime": 2.0}) == faster({"latency_ratio": 2.0}) == "2.0 times as fast as it in the same runtime"
    assert faster({"latency_ratio": 2.0, "decode_ratio": 6.26}) == "2.0 times as fast as it in the same runtime, writes 6.3 times as fast"
