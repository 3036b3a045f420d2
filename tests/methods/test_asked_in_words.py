"""Models that are asked in words go through the methods of models of language, and answer afterwards: on torch, packed, as a graph without a cache, and as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import InputError
from recompress.measure.quality import Beside, evaluate_quality
from recompress.methods.chain import check_chain
from recompress.methods.registry import LABELLED, OF_LANGUAGE, Inputs, all_methods, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Info, load, save
from recompress.models.finetuned import from_finetuned
from recompress.models.pretrained import from_base
from recompress.training import train
from recompress.training.settings import TrainingSettings
from tests.six import checkpoint_of
from tests.tiny import TOPICS, tiny_examples

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 128
QUICK = {"epochs": 1, "learning_rate": 1e-2, "batch_size": 8, "precision": "fp32"}
STEPS: dict[str, dict[str, Any]] = {
    "magnitude": {"sparsity": 0.5},
    "wanda": {"sparsity": 0.5, "calibration_examples": 4},
    "rtn": {"bits": 8, "group_size": 16},
    "gptq": {"bits": 4, "group_size": 16, "calibration_examples": 4},
    "prune_structure": {"layers": 1},
    "trim_vocabulary": {},
    "finetune": QUICK,
    "distill": QUICK,
    "dynamic_int8": {},
    "gguf": {"weights": "q8_0"},
}
QUICKLY = ("rtn", "dynamic_int8", "finetune")
BENCHMARKS = ("few-shot-classification", "text-generation")


def rows(benchmark: str, count: int, seed: int = 0) -> list[Example]:
    topics = tiny_examples(count, "text-classification", seed=seed)
    return topics if benchmark == BENCHMARKS[0] else [Example(row.words, (f"{row.labels[0]} kula", row.labels[0])) for row in topics]


def completed(name: str) -> Any:
    dials = {"shots": 2} if name == BENCHMARKS[0] else {"tokens": 6}
    benchmark: Any = get_benchmark(name, dials)
    return benchmark.completed(rows(name, 40), TOPICS)


def model_of(name: str, seed: int = 0) -> Any:
    checkpoint = checkpoint_of("llama", seed, max_position_embeddings=LENGTH)
    labels = tuple(TOPICS) if name == BENCHMARKS[0] else ()
    checkpoint.info = Info(benchmark=name, labels=labels, max_length=LENGTH, answering=completed(name).answering)
    return checkpoint


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("step", [pytest.param(step, marks=() if step in QUICKLY else pytest.mark.long) for step in STEPS])
def test_a_step_leaves_a_model_that_answers(name: str, step: str, tmp_path: Path) -> None:
    if step == "gguf":
        pytest.importorskip("gguf")
        pytest.importorskip("xllamacpp")
    save(model_of(name), tmp_path / "source")
    asked, method = rows(name, 12, seed=2), get_method(step)
    inputs = Inputs(get_benchmark(name), rows(name, 40), rows(name, 12, seed=1), 0, tmp_path / "work")
    if "teacher" in method.needs:
        save(model_of(name, seed=1), tmp_path / "teacher")
        inputs = replace(inputs, teacher_model=tmp_path / "teacher")
    run_step(step, method.config.model_validate(STEPS[step]), tmp_path / "source", tmp_path / "made", inputs)
    assert load(tmp_path / "made").info.answering == completed(name).answering
    evaluate_quality(tmp_path / "source", asked, tmp_path / "before.parquet", beside=Beside(tmp_path / "source", None))
    quality = evaluate_quality(tmp_path / "made", asked, tmp_path / "after.parquet", beside=Beside(tmp_path / "source", tmp_path / "before.parquet"))
    assert {"accuracy", "accuracy_per_byte"} <= quality.metrics.keys() if name == BENCHMARKS[0] else {"chrf", "equal_tokens"} <= quality.metrics.keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_baseline_is_trained_on_prompts_with_their_answers(name: str, tmp_path: Path) -> None:
    checkpoint = model_of(name)
    checkpoint.torch_network.save_pretrained(tmp_path / "base")
    checkpoint.tokenizer.save_pretrained(tmp_path / "base")
    started = from_base(tmp_path / "base", name, checkpoint.info.labels, LENGTH, 0, checkpoint.info.answering)
    assert started.info == checkpoint.info
    points: list[Any] = []
    schedule = TrainingSettings.model_validate({**QUICK, "epochs": 2})
    train(started, rows(name, 40), rows(name, 12, seed=1), schedule, 0, tmp_path / "work", curve=lambda _, point: points.append(point))
    judged = [point["dev_negative_bits_per_byte"] for point in points if "dev_negative_bits_per_byte" in point]
    assert judged[-1] > judged[0], "what is learned is text, and judged as text"


def test_a_model_of_language_is_taken_for_another_question(tmp_path: Path) -> None:
    checkpoint = model_of(BENCHMARKS[0])
    plain = replace(checkpoint, info=Info(benchmark="language-modelling", labels=(), max_length=LENGTH))
    save(plain, tmp_path / "plain")
    taken = from_finetuned(tmp_path / "plain", BENCHMARKS[0], TOPICS, checkpoint.info.answering)
    assert taken.info == checkpoint.info
    save(taken, tmp_path / "asked")
    back = from_finetuned(tmp_path / "asked", "language-modelling", ())
    assert back.info == plain.info
    assert from_finetuned(tmp_path / "asked", BENCHMARKS[0], TOPICS).info == checkpoint.info, "who asks the same keeps the dials"
    save(checkpoint_of("bert"), tmp_path / "encoder")
    with pytest.raises(InputError, match="was made for token-classification, the data is for few-shot-classification"):
        from_finetuned(tmp_path / "encoder", BENCHMARKS[0], TOPICS)


def test_methods_of_models_of_language_are_those_of_all_of_them() -> None:
    assert {"language-modelling", *BENCHMARKS} == set(OF_LANGUAGE)
    assert not set(OF_LANGUAGE) & set(LABELLED)
    for method in all_methods().values():
        assert len(set(OF_LANGUAGE) & set(method.benchmarks)) in (0, 3), method.name
    with pytest.raises(InputError, match="does not support the benchmark 'few-shot-classification'"):
        check_chain([("qat_int8", get_method("qat_int8").config())], BENCHMARKS[0], None)
