"""The runner: chains give the same bytes anywhere, and a method that lies leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.benchmarks import get_benchmark
from recompress.errors import EffectMissing, InputError, IntegrityError
from recompress.integrity.digest import sha256_directory
from recompress.methods.chain import check_chain
from recompress.methods.registry import Claim, Inputs, Method, all_methods, get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.checkpoint import Checkpoint, load
from recompress.settings.base import Settings
from tests.families import checkpoint_of, inputs_of, saved


@pytest.fixture(autouse=True)
def _known() -> None:
    all_methods()


def step(name: str, source: Path, target: Path, benchmark: str = "token-classification", **dials: Any) -> StepReport:
    return run_step(name, get_method(name).config(**dials), source, target, inputs_of(target.parent / f"work-{target.name}", benchmark))


CHAIN: dict[str, dict[str, Any]] = {
    "trim_vocabulary": {"keep_characters": False},
    "prune_structure": {"heads": 0.5, "neurons": 0.25, "layers": 2, "calibration_examples": 8},
    "magnitude": {"sparsity": 0.5},
    "dynamic_int8": {},
}


def run_chain(place: Path) -> list[str]:
    """The digest of each model on the way, from the one in ``0``."""
    for i, (name, dials) in enumerate(CHAIN.items()):
        step(name, place / str(i), place / str(i + 1), **dials)
    return [sha256_directory(place / str(i)) for i in range(len(CHAIN) + 1)]


@pytest.mark.long
def test_a_whole_chain_gives_the_same_bytes_in_a_new_process_and_names_no_path(tmp_path: Path) -> None:
    shutil.copytree(saved("xlm-roberta", tmp_path / "here" / "0"), tmp_path / "there" / "0")
    here = run_chain(tmp_path / "here")
    assert load(tmp_path / "here" / "4").info.steps == tuple(CHAIN)
    assert not any(word in file.read_bytes() for file in (tmp_path / "here" / "4").iterdir() for word in (str(tmp_path).encode(), b"site-packages"))
    code = "import sys, json; from pathlib import Path; from tests.methods.test_runner import run_chain; print(json.dumps(run_chain(Path(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == here


class Nothing(Settings):
    """No dials."""


def fake(run: Any, prove: Any = lambda *_: [Claim("work", 1, 1)], **rest: Any) -> Method:
    return Method(name="fake", family="pruning", config=Nothing, run=run, prove=prove, summary="", source="", **rest)


@pytest.fixture
def run_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    source = saved("bert", tmp_path / "in" / "source")

    def go(method: Method) -> StepReport:
        monkeypatch.setattr("recompress.methods.runner.get_method", lambda _: method)
        return run_step("fake", Nothing(), source, tmp_path / "out" / "target", inputs_of(tmp_path / "work"))

    yield go
    before = sha256_directory(source)
    assert before == sha256_directory(saved("bert", tmp_path / "in" / "fresh")), "the source was touched"


def leaves_nothing(tmp_path: Path) -> bool:
    return not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_promise_that_is_not_kept_is_an_error_that_says_both_numbers(run_fake: Any, tmp_path: Path) -> None:
    with pytest.raises(EffectMissing, match=r"sparsity: asked for 0.5, measured 0\); nothing was written"):
        run_fake(fake(lambda c, *_: c, lambda *_: [Claim("sparsity", 0.5, 0.0, tolerance=0.01), Claim("layers", 3, 3)]))
    assert leaves_nothing(tmp_path)


def test_a_claim_of_nan_is_not_kept(run_fake: Any, tmp_path: Path) -> None:
    with pytest.raises(EffectMissing):
        run_fake(fake(lambda c, *_: c, lambda *_: [Claim("sparsity", 0.5, float("nan"), tolerance=1)]))
    assert leaves_nothing(tmp_path)


def test_no_claims_are_no_proof(run_fake: Any, tmp_path: Path) -> None:
    with pytest.raises(EffectMissing, match="proved nothing"):
        run_fake(fake(lambda c, *_: c, lambda *_: []))
    assert leaves_nothing(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float, run_fake: Any, tmp_path: Path) -> None:
    def poison(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
        checkpoint.torch_network.classifier.weight.data[0, :2] = value
        return checkpoint

    with pytest.raises(IntegrityError, match=r"2 numbers in classifier\.weight that are not finite"):
        run_fake(fake(poison))
    assert leaves_nothing(tmp_path)


def test_outputs_that_are_not_finite_are_refused(run_fake: Any, tmp_path: Path) -> None:
    def overflow(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
        checkpoint.torch_network.classifier.weight.data.fill_(3e38)
        return checkpoint

    with pytest.raises(IntegrityError, match="outputs that are not finite"):
        run_fake(fake(overflow))
    assert leaves_nothing(tmp_path)


def test_what_cannot_be_read_back_is_refused(run_fake: Any, tmp_path: Path) -> None:
    """Effects that live in memory only: a hook that silences a layer, and a number that is in no file."""

    def hook(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
        checkpoint.torch_network.classifier.register_forward_hook(lambda *seen: seen[2] * 0)
        return checkpoint

    def precision(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
        checkpoint.torch_network.bert.embeddings.LayerNorm.eps = 10.0
        return checkpoint

    for method in (hook, precision):
        with pytest.raises(IntegrityError, match="answers differently"):
            run_fake(fake(method))
        assert leaves_nothing(tmp_path)


def test_a_narrower_half_of_the_network_is_refused(run_fake: Any, tmp_path: Path) -> None:
    def fewer(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
        network: Any = checkpoint.torch_network
        network.bert.encoder.layer[0].attention.self.query = torch.nn.Linear(32, 16)
        return checkpoint

    with pytest.raises((IntegrityError, RuntimeError)):
        run_fake(fake(fewer))
    assert leaves_nothing(tmp_path)


def test_a_crash_inside_a_method_leaves_nothing(run_fake: Any, tmp_path: Path) -> None:
    def crash(*_: Any) -> Checkpoint:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fake(fake(crash))
    assert leaves_nothing(tmp_path)


def test_an_existing_target_is_not_overwritten(tmp_path: Path) -> None:
    source = saved("bert", tmp_path / "source")
    step("magnitude", source, tmp_path / "target")
    before = sha256_directory(tmp_path / "target")
    with pytest.raises(InputError, match="exists already"):
        step("magnitude", source, tmp_path / "target", sparsity=0.9)
    assert sha256_directory(tmp_path / "target") == before


def test_a_step_that_cannot_follow_is_refused_by_the_runner_too(tmp_path: Path) -> None:
    source = saved("bert", tmp_path / "source")
    step("onnx_fp32", source, tmp_path / "onnx")
    with pytest.raises(InputError, match="magnitude cannot follow onnx_fp32, which leaves the torch runtime"):
        step("magnitude", tmp_path / "onnx", tmp_path / "target")
    with pytest.raises(InputError, match="its weights cannot be changed any more"):
        load(tmp_path / "onnx").torch_network.eval()
    assert not (tmp_path / "target").exists()


def test_a_step_without_examples_is_refused(tmp_path: Path) -> None:
    inputs = Inputs(benchmark=get_benchmark("token-classification"), train=[], dev=[], seed=0, workdir=tmp_path / "work")
    with pytest.raises(InputError, match="at least one example"):
        run_step("magnitude", get_method("magnitude").config(), saved("bert", tmp_path / "source"), tmp_path / "target", inputs)
    assert not (tmp_path / "target").exists()


def chain(*names: str, **dials: Any) -> list[tuple[str, Settings]]:
    return [(name, get_method(name).config(**(dials if name == names[-1] else {}))) for name in names]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (chain("dynamic_int8", "magnitude"), "magnitude cannot follow dynamic_int8, which leaves the torch runtime; put it before"),
        (chain("trim_vocabulary", "onnx_fp32", "dynamic_int8"), "dynamic_int8 cannot follow onnx_fp32"),
        ([("magnitud", Nothing())], "unknown method 'magnitud'.*did you mean 'magnitude'"),
        ([("magnitude", Nothing())], "magnitude takes settings of the class Magnitude, got Nothing"),
        ([], "at least one step"),
        (chain("magnitude", pattern="4:2"), "pattern 4:2 keeps 4 of 2 weights"),
        (chain("magnitude", pattern="2:4", sparsity=0.7), "sparsity 0.7 contradicts pattern 2:4"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(steps: list[tuple[str, Settings]], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_chain(steps, "token-classification", None)
    assert "\n" not in str(caught.value)


def test_benchmarks_and_architectures_that_a_method_does_not_know_are_refused() -> None:
    steps = chain("tie_embeddings")
    check_chain(steps, "language-modelling", "gpt2")
    with pytest.raises(InputError, match="tie_embeddings does not support the benchmark 'token-classification'"):
        check_chain(steps, "token-classification", None)
    with pytest.raises(InputError, match="tie_embeddings does not support the architecture 'bert'; it supports gpt2, llama, mistral, qwen2, qwen3"):
        check_chain(steps, "language-modelling", "bert")
    with pytest.raises(InputError, match="architecture 'albert' is not known"):
        check_chain(steps, "language-modelling", "albert")


def test_an_int8_engine_that_would_overflow_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.methods.quantization.int8.int8_overflows", lambda: True)
    with pytest.raises(InputError, match="lacks VNNI; set reduce_range: true, or auto"):
        check_chain(chain("dynamic_int8", reduce_range=False), "token-classification", None)
    for fine in (True, "auto"):
        check_chain(chain("dynamic_int8", reduce_range=fine), "token-classification", None)
    with pytest.raises(InputError, match="lacks VNNI"):
        step("dynamic_int8", saved("bert", tmp_path / "source"), tmp_path / "target", reduce_range=False)
    assert not (tmp_path / "target").exists()


def test_a_method_may_return_another_network(tmp_path: Path, run_fake: Any) -> None:
    other = checkpoint_of("bert", seed=3)
    report = run_fake(fake(lambda c, *_: replace(other, info=c.info)))
    assert report.parameters == report.parameters_before
    assert torch.equal(load(tmp_path / "out" / "target").torch_network.classifier.weight, other.torch_network.classifier.weight)
