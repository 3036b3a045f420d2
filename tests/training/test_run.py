"""Training: it learns, it is deterministic, it resumes to the same bits after SIGKILL, and it refuses in one line."""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import DataRefused, InputError, StorageError, TrainingDiverged
from recompress.runtimes import runtime_of
from recompress.settings.file import read_settings
from recompress.training import train
from recompress.training.precision import choose_precision
from recompress.training.run import weights_sha256
from recompress.training.settings import TrainingSettings
from tests.tiny import TOPICS, tiny_checkpoint, tiny_examples

QUICK = TrainingSettings(epochs=3, learning_rate=5e-3, batch_size=16, precision="fp32")
BENCHMARKS = ("token-classification", "text-classification")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(workdir: Path, schedule: TrainingSettings = QUICK, *, benchmark: str = BENCHMARKS[0], seed: int = 0, **rest: Any) -> str:
    """The digest of a tiny model after training."""
    data = tiny_examples(100, benchmark), tiny_examples(30, benchmark, seed=1)
    return weights_sha256(train(tiny_checkpoint(benchmark), *data, schedule, seed, workdir, **rest).torch_network)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_and_leaves_a_plain_network(tmp_path: Path, benchmark: str, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    points: list[tuple[int, Mapping[str, float]]] = []
    checkpoint = tiny_checkpoint(benchmark)
    schedule = TrainingSettings(epochs=5, learning_rate=5e-3, batch_size=32, precision=precision)
    train(
        checkpoint, tiny_examples(300, benchmark), tiny_examples(40, benchmark, seed=1), schedule, 0, tmp_path,
        curve=lambda step, point: points.append((step, point)), label="a bar",
    )  # fmt: skip
    primary = f"dev_{get_benchmark(benchmark).primary}"
    assert max(point[primary] for _, point in points if primary in point) > 0.9
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    assert {"loss", "learning_rate", "gradient_norm", "dev_loss"} <= {name for _, point in points for name in point}
    network = checkpoint.torch_network
    assert not network.training
    output = network(input_ids=torch.tensor([[2, 5, 3]]), attention_mask=torch.ones(1, 3, dtype=torch.long)).logits
    assert output.dtype == torch.float32
    assert torch.equal(output, type(network).forward(network, input_ids=torch.tensor([[2, 5, 3]]), attention_mask=torch.ones(1, 3, dtype=torch.long)).logits)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a bar" in printed.err


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = run(tmp_path / "a")
    torch.manual_seed(2)
    assert run(tmp_path / "b") == first
    assert run(tmp_path / "c", seed=1) != first
    assert run(tmp_path / "d", seed=-1) != first


def test_the_best_epoch_is_kept_and_early_stopping_stops(tmp_path: Path) -> None:
    points: list[Mapping[str, float]] = []
    schedule = QUICK.model_copy(update={"epochs": 12, "patience": 2, "learning_rate": 1e-2})
    checkpoint = tiny_checkpoint()
    dev = tiny_examples(30, seed=1)
    train(checkpoint, tiny_examples(100), dev, schedule, 0, tmp_path, curve=lambda _, point: points.append(point))
    scores = [point["dev_f1"] for point in points if "dev_f1" in point]
    assert len(scores) < 12
    assert len(scores) - 1 - scores.index(max(scores)) == 2
    benchmark, info = get_benchmark(info_name := checkpoint.info.benchmark), checkpoint.info
    assert info_name == benchmark.name
    with torch.no_grad():
        features = benchmark.encode(checkpoint.tokenizer, dev, info.labels, info.max_length)
        answers = [checkpoint.torch_network(input_ids=torch.tensor([f["input_ids"]])).logits[0].numpy() for f in features]
    predictions = [benchmark.decide(benchmark.unit_logits(logits, f), info.labels) for logits, f in zip(answers, features, strict=True)]
    totals = benchmark.counts([example.labels for example in dev], predictions, info.labels).sum(axis=0)
    assert benchmark.metrics(totals, info.labels)["f1"] == pytest.approx(max(scores))


def test_the_weights_that_were_best_are_kept_where_dev_grows_worse(tmp_path: Path) -> None:
    """Dev texts with the labels of others: the more a model learns, the worse it gets on them."""
    benchmark = get_benchmark("text-classification")
    turned = dict(zip(TOPICS, (*TOPICS[1:], TOPICS[0]), strict=True))
    dev = [dataclasses.replace(example, labels=(turned[example.labels[0]],)) for example in tiny_examples(60, "text-classification", seed=1)]
    points: list[Mapping[str, float]] = []
    checkpoint = tiny_checkpoint("text-classification")
    schedule = QUICK.model_copy(update={"learning_rate": 1e-2})
    train(checkpoint, tiny_examples(160, "text-classification"), dev, schedule, 0, tmp_path, curve=lambda _, point: points.append(point))
    scores = [point[f"dev_{benchmark.primary}"] for point in points if f"dev_{benchmark.primary}" in point]
    assert scores[-1] < max(scores)
    features = benchmark.encode(checkpoint.tokenizer, dev, checkpoint.info.labels, checkpoint.info.max_length)
    answers = [
        benchmark.decide(benchmark.unit_logits(row, f), checkpoint.info.labels)
        for row, f in zip(runtime_of(checkpoint).logits(features), features, strict=True)
    ]
    totals = benchmark.counts([example.labels for example in dev], answers, checkpoint.info.labels).sum(axis=0)
    assert benchmark.metrics(totals, checkpoint.info.labels)[benchmark.primary] == pytest.approx(max(scores))


def test_a_training_on_other_text_does_not_go_on_where_this_one_stopped(tmp_path: Path) -> None:
    schedule, dev = QUICK.model_copy(update={"epochs": 1}), tiny_examples(8, seed=1)

    def weights(place: str, seed: int) -> str:
        return weights_sha256(train(tiny_checkpoint(), tiny_examples(16, seed=seed), dev, schedule, 0, tmp_path / place).torch_network)

    first = weights("a", 0)
    second = weights("a", 2)
    assert second != first
    assert second == weights("b", 2)


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from recompress.training import train, resume
from recompress.training.settings import TrainingSettings
from tests.tiny import tiny_checkpoint, tiny_examples

workdir, minutes, point, number = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if point == "step":
    from recompress.training.trainer import SteadyTrainer
    step = SteadyTrainer.training_step
    SteadyTrainer.training_step = lambda self, *rest: die() if self.state.global_step == number else step(self, *rest)
elif point == "seal":
    from recompress.training import trainer
    seal, calls = trainer.seal, []
    trainer.seal = lambda place: die() if len(calls) == number else (calls.append(1), seal(place))
elif point == "end":
    from recompress.training import run
    run._load_best = die

schedule = TrainingSettings(epochs=6, learning_rate=1e-2, batch_size=16, precision="fp32", patience=2)
train(tiny_checkpoint(), tiny_examples(100), tiny_examples(30, seed=1), schedule, 0, workdir, minutes=minutes)
"""


STOPPING = TrainingSettings(epochs=6, learning_rate=1e-2, batch_size=16, precision="fp32", patience=2)


@pytest.mark.parametrize(
    "minutes, point, number, resumed_at",
    [
        pytest.param(5, "step", 17, 14, id="in the third epoch"),
        pytest.param(0, "step", 17, 17, id="with a checkpoint after each step", marks=pytest.mark.long),
        pytest.param(5, "seal", 1, 7, id="while a checkpoint is written"),
        pytest.param(5, "end", 0, None, id="after it had stopped early", marks=pytest.mark.long),
    ],
)
def test_killed_and_resumed_it_ends_with_the_same_weights(
    root: Path, tmp_path: Path, uninterrupted: str, minutes: float, point: str, number: int, resumed_at: int | None
) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path), str(minutes), point, str(number)]
    killed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    steps: list[int] = []
    assert run(tmp_path, STOPPING, curve=lambda step, _: steps.append(step)) == uninterrupted
    assert steps[:1] == ([] if resumed_at is None else [resumed_at + 1]), "it goes on where it was"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("whole"), STOPPING)


def test_other_settings_never_resume_what_lies_in_the_folder(tmp_path: Path) -> None:
    changed = QUICK.model_copy(update={"weight_decay": 0.1})
    expected = run(tmp_path / "clean", changed)
    run(tmp_path / "used")
    assert run(tmp_path / "used", changed) == expected
    assert run(tmp_path / "used", seed=3) == run(tmp_path / "clean3", seed=3)


def test_only_the_best_and_the_last_checkpoint_are_kept_and_none_is_a_model_with_code(tmp_path: Path) -> None:
    run(tmp_path, minutes=0)
    checkpoints = sorted(tmp_path.glob("checkpoint-*"))
    assert 1 <= len(checkpoints) <= 2
    assert {path.name for place in checkpoints for path in place.iterdir()} == {
        "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "seal.json",
    }  # fmt: skip


def test_zeros_that_are_held_stay_zero(tmp_path: Path) -> None:
    from recompress.methods.pruning.mask import sparsity

    checkpoint = tiny_checkpoint()
    weight = checkpoint.torch_network.bert.encoder.layer[0].intermediate.dense.weight
    with torch.no_grad():
        weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5] = 0
    zeros, before = (weight == 0).clone(), sparsity(checkpoint.torch_network)
    train(checkpoint, tiny_examples(60), tiny_examples(20, seed=1), QUICK, 0, tmp_path, hold=True)
    after = checkpoint.torch_network.bert.encoder.layer[0].intermediate.dense.weight
    assert before == sparsity(checkpoint.torch_network) > 0
    assert torch.equal(after == 0, zeros)


def test_a_loss_that_is_no_number_ends_the_training_in_one_line(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.torch_network.classifier.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"the loss became nan at step 1 of 21; lower learning_rate \(0.005\)"):
        train(checkpoint, tiny_examples(100), tiny_examples(30, seed=1), QUICK, 0, tmp_path)


def test_a_batch_without_labels_teaches_nothing_and_is_no_nan(tmp_path: Path) -> None:
    blank = [Example(("kula", "leo"), ()) for _ in range(40)]
    train(tiny_checkpoint(), [*blank, *tiny_examples(10)], tiny_examples(10, seed=1), QUICK.model_copy(update={"batch_size": 4}), 0, tmp_path)


def test_a_dev_split_without_entities_keeps_the_last_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    never = [Example(("kula", "leo"), ("O", "O"))] * 3
    blank = [Example(("kula", "leo"), ("O", "O"))] * 20
    train(tiny_checkpoint(), blank, never, QUICK.model_copy(update={"epochs": 8}), 0, tmp_path)
    assert "never a number" in caplog.text or "best on dev" in caplog.text


def test_refusals(tmp_path: Path) -> None:
    data = tiny_examples(5), tiny_examples(5)
    for empty in (([], data[1]), (data[0], [])):
        with pytest.raises(DataRefused, match="split is empty"):
            train(tiny_checkpoint(), *empty, QUICK, 0, tmp_path)
    with pytest.raises(DataRefused, match="one for each word"):
        train(tiny_checkpoint(), [Example(("kula", "leo"), ("O",))], data[1], QUICK, 0, tmp_path)
    exported = tiny_checkpoint()
    exported.network = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="ONNX"):
        train(exported, *data, QUICK, 0, tmp_path)


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # as near to a full disk as a test may come: files end at 60 kB
    try:
        with pytest.raises(StorageError, match="no training checkpoint can be written to .* free there") as refused:
            run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_several_trainings_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    alone = run(tmp_path / "a", benchmark=BENCHMARKS[1])
    run(tmp_path / "b", QUICK.model_copy(update={"precision": "bf16"}))
    assert run(tmp_path / "c", benchmark=BENCHMARKS[1]) == alone


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [choose_precision(wanted) for wanted in ("fp32", "bf16")] == ["fp32", "bf16"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for bf16, amx in itertools.product((True, False), repeat=2):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda bf16=bf16: bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert choose_precision("auto") == ("bf16" if bf16 or amx else "fp32")


@pytest.mark.parametrize(
    "text, reason",
    [("epochs: 0", "epochs"), ("warmup: 1.0", "warmup"), ("learning_rate: 0", "learning_rate"), ("precision: fp16", "precision"), ("epoch: 3", "epochs")],
)
def test_dials_are_checked(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "dials.yaml").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_settings(tmp_path / "dials.yaml", TrainingSettings)
    (tmp_path / "dials.yaml").write_text("epochs: 5\nlearning_rate: 2.0e-4\nbatch_size: 32\npatience: 2\nprecision: bf16")
    assert json.loads(read_settings(tmp_path / "dials.yaml", TrainingSettings).model_dump_json())["max_length"] == 128
