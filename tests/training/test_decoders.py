"""Training on running text: the windows that the benchmark scores, its metric on dev, and the same bytes after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recompress.benchmarks import Example
from recompress.benchmarks.language_modelling import LanguageModelling
from recompress.errors import DataRefused
from recompress.methods.pruning.mask import sparsity
from recompress.methods.registry import Claim
from recompress.methods.runner import run_step
from recompress.methods.training.finetune import Finetune
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.pretrained import from_base
from recompress.runtimes import runtime_of
from recompress.training import train
from recompress.training.judge import token_costs
from recompress.training.run import weights_sha256
from recompress.training.settings import TrainingSettings
from recompress.training.trainer import cross_entropy
from tests.six import DECODERS, LENGTH, byte_tokenizer, checkpoint_of, each, inputs_of, texts

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = TrainingSettings(epochs=2, learning_rate=1e-2, batch_size=8, precision="fp32")
PRIMARY = "negative_bits_per_byte"


def by_the_benchmark(checkpoint: Checkpoint, examples: list[Example]) -> dict[str, float]:
    benchmark, info = LanguageModelling(), checkpoint.info
    counts = benchmark.read(runtime_of(checkpoint), checkpoint.tokenizer, examples, info.max_length, "test")
    return {name: float(value) for name, value in benchmark.metrics(benchmark.counts([()] * len(counts), counts, ()).sum(axis=0), ()).items()}


def run(workdir: Path, family: str = "llama", schedule: TrainingSettings = QUICK, **rest: Any) -> Checkpoint:
    return train(checkpoint_of(family), texts(60), texts(20, seed=1), schedule, 0, workdir, **rest)


def test_pieces_are_the_windows_that_are_scored() -> None:
    """All tokens of each slice in order, and for each token but the first of a window the bytes that the benchmark counts."""
    tokenizer, examples = byte_tokenizer(), texts(32)
    pieces = LanguageModelling().pieces(tokenizer, examples, LENGTH)
    expected = []
    for name in ("yor", "swa"):
        ids = tokenizer("".join(f"{example.words[0]}\n" for example in examples if example.slice == name), verbose=False)["input_ids"]
        windows = [ids[start : start + LENGTH] for start in range(0, len(ids), LENGTH)]
        expected += [window for window in windows if len(window) > 1]
    assert [piece["input_ids"] for piece in pieces] == expected
    assert {len(window) for window in expected} != {LENGTH}, "a last window is shorter"
    for piece in pieces:
        assert piece["labels"] == [*piece["input_ids"][1:], -100]
        assert len(piece["units"]) == len(piece["bytes"]) == len(piece["input_ids"]) - 1
    counts = LanguageModelling().read(runtime_of(checkpoint_of("gpt2")), tokenizer, examples, LENGTH, "test")
    assert sum(int(row[2]) for row in counts) == sum(sum(piece["bytes"]) for piece in pieces)
    assert sum(int(row[1]) for row in counts) == sum(len(piece["bytes"]) for piece in pieces)


def test_token_costs_add_up_to_the_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, 5, 7, generator=draw), torch.randint(0, 7, (3, 5), generator=draw)
    labels[0, 2:] = -100
    costs = token_costs(logits, labels)
    assert (costs[0, 2:] == 0).all()
    by_hand = [-torch.log_softmax(logits[i, j], -1)[labels[i, j]] for i in range(3) for j in range(5) if labels[i, j] >= 0]
    torch.testing.assert_close(costs.sum(), torch.stack(by_hand).sum())
    torch.testing.assert_close(cross_entropy(logits, labels), torch.stack(by_hand).mean())


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_learns_and_dev_is_judged_as_the_benchmark_does(family: str, tmp_path: Path) -> None:
    points: list[Mapping[str, float]] = []
    before = by_the_benchmark(checkpoint_of(family), texts(20, seed=1))
    trained = run(tmp_path, family, curve=lambda _, point: points.append(point))
    after = by_the_benchmark(trained, texts(20, seed=1))
    best = max((point for point in points if f"dev_{PRIMARY}" in point), key=lambda point: point[f"dev_{PRIMARY}"])
    assert after[PRIMARY] > before[PRIMARY] + 1
    for name in (PRIMARY, "perplexity"):
        assert best[f"dev_{name}"] == pytest.approx(after[name], rel=1e-4)
    assert best["dev_loss"] == pytest.approx(np.log(after["perplexity"]), rel=0.05)
    assert trained.torch_network.config.use_cache is True
    assert not trained.torch_network.training


@pytest.mark.parametrize("family", DECODERS)
def test_a_baseline_is_trained_from_a_plain_decoder(family: str, tmp_path: Path) -> None:
    """What a recipe does first: the base model with its own head, fine-tuned, stored, and given to a step."""
    checkpoint = checkpoint_of(family)
    checkpoint.torch_network.save_pretrained(tmp_path / "base")
    checkpoint.tokenizer.save_pretrained(tmp_path / "base")
    started = from_base(tmp_path / "base", "language-modelling", (), LENGTH, 0)
    save(train(started, texts(40), texts(10, seed=1), QUICK, 0, tmp_path / "work"), tmp_path / "baseline")
    assert by_the_benchmark(load(tmp_path / "baseline"), texts(20, seed=2))[PRIMARY] > by_the_benchmark(checkpoint, texts(20, seed=2))[PRIMARY]
    report = run_step("finetune", Finetune(learning_rate=1e-3, precision="fp32"), tmp_path / "baseline", tmp_path / "more", inputs_of(family, tmp_path / "w"))
    assert all(Claim(**claim).kept for claim in report.claims)


@pytest.mark.parametrize("family", each())
def test_finetuning_holds_zeros_on_every_architecture(family: str, tmp_path: Path) -> None:
    from recompress.models.architecture import encoder_linears

    checkpoint = checkpoint_of(family)
    for _, linear in encoder_linears(checkpoint.torch_network):
        linear.weight.data[torch.rand(linear.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.4] = 0
    zeros = sparsity(checkpoint.torch_network)
    checkpoint.info = replace(checkpoint.info, steps=("magnitude",))  # zeros that nobody pruned train like other weights
    save(checkpoint, tmp_path / "source")
    report = run_step("finetune", Finetune(learning_rate=1e-2, precision="fp32"), tmp_path / "source", tmp_path / "target", inputs_of(family, tmp_path / "w"))
    assert sparsity(load(tmp_path / "target").torch_network) == zeros > 0.3
    assert {claim["what"]: claim["measured"] for claim in report.claims}["weights moved"] == 1


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from recompress.training.trainer import SteadyTrainer
from tests.training.test_decoders import run

step = SteadyTrainer.training_step
def die_at(self, *rest):
    if self.state.global_step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *rest)
SteadyTrainer.training_step = die_at
run(Path(sys.argv[1]), "gpt2", minutes=float(sys.argv[2]))
"""


@pytest.mark.long
def test_killed_and_resumed_it_ends_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    expected = weights_sha256(run(tmp_path / "whole", "gpt2").torch_network)
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), "0", "9"], cwd=root, capture_output=True, text=True, check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    steps: list[int] = []
    assert weights_sha256(run(tmp_path / "killed", "gpt2", curve=lambda step, _: steps.append(step)).torch_network) == expected
    assert steps[0] == 10


def test_text_without_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="shorter than two tokens"):
        train(checkpoint_of("gpt2"), texts(9), [Example(("",))], QUICK, 0, tmp_path)
