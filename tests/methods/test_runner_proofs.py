"""What the runner hands to a proof, what it compares, what it reports, and when a claim is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recompress.errors import InputError, IntegrityError
from recompress.methods import runner
from recompress.methods.chain import check_chain
from recompress.methods.registry import Claim, Inputs, Method, all_methods, get_method
from recompress.methods.runner import StepReport, parameters_in, run_step
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.settings.base import Settings
from tests.families import inputs_of, saved

Go = Callable[..., StepReport]


class Nothing(Settings):
    """No dials."""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Run a method that is made of a function and, if one is given, a proof; on a model that ``steps`` made."""
    all_methods()

    def run(change: Any, prove: Any = lambda *_: [Claim("work", 1, 1)], steps: tuple[str, ...] = (), **rest: Any) -> StepReport:
        checkpoint = load(saved("bert", tmp_path / "fresh"))
        save(replace(checkpoint, info=replace(checkpoint.info, steps=steps)), tmp_path / "source")
        method = Method(name="fake", family="slimming", config=Nothing, run=change, prove=prove, summary="", source="", **rest)
        monkeypatch.setattr(runner, "get_method", lambda _: method)
        return run_step("fake", Nothing(), tmp_path / "source", tmp_path / "target", inputs_of(tmp_path / "work"))

    return run


def same(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
    return checkpoint


def shifted(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
    checkpoint.torch_network.classifier.bias.data += 1
    return checkpoint


def test_a_proof_gets_the_model_as_it_was_and_the_one_that_was_read_back(go: Go, tmp_path: Path) -> None:
    seen: dict[str, Checkpoint] = {}

    def change(checkpoint: Checkpoint, config: Settings, inputs: Inputs) -> Checkpoint:
        seen["memory"] = checkpoint
        checkpoint.torch_network.classifier.bias.data += 1
        return checkpoint

    def prove(before: Checkpoint, after: Checkpoint, config: Settings, inputs: Inputs) -> list[Claim]:
        seen.update(before=before, after=after)
        return [Claim("work", 1, 1)]

    go(change, prove)
    assert len({id(one.network) for one in seen.values()}) == 3
    biases = {name: one.torch_network.classifier.bias for name, one in seen.items()}
    assert torch.equal(biases["before"], load(tmp_path / "source").torch_network.classifier.bias)
    assert torch.equal(biases["before"] + 1, biases["after"])
    assert load(tmp_path / "target").info.steps == ("fake",)


def test_a_tensor_that_no_answer_depends_on_is_compared_too(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_back(directory: Path) -> Checkpoint:
        checkpoint = load(directory)
        if directory.name != "source":
            checkpoint.torch_network.bert.embeddings.position_embeddings.weight.data[-1] += 1
        return checkpoint

    monkeypatch.setattr(runner, "load", read_back)
    with pytest.raises(IntegrityError, match="position_embeddings.weight is not the same when it is read back"):
        go(same)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_answers_that_are_not_finite_end_the_step_although_every_weight_is(value: float, go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of finite numbers overflow; and infinity is equal to itself."""
    told = SimpleNamespace(logits=lambda features, *_: [torch.full((3,), value).numpy() for _ in features])
    monkeypatch.setattr(runner, "runtime_of", lambda checkpoint: told)
    with pytest.raises(IntegrityError, match="outputs that are not finite"):
        go(shifted)


def test_the_tokenizer_is_compared_too(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_back(directory: Path) -> Checkpoint:
        checkpoint = load(directory)
        if directory.name != "source":
            checkpoint.tokenizer.add_tokens(["another"])
        return checkpoint

    monkeypatch.setattr(runner, "load", read_back)
    with pytest.raises(IntegrityError, match="the tokenizer is not the same when it is read back"):
        go(same)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ({"not_after": {"svd": "it would undo it"}}, "fake cannot follow svd: it would undo it"),
        ({"loses": lambda config, step: True}, "fake begins anew, so that what svd did before it would be lost"),
        ({"benchmarks": ("language-modelling",)}, "fake does not support the benchmark 'token-classification'"),
        ({"architectures": ("gpt2",)}, "fake does not support the architecture 'bert'"),
    ],
)
def test_what_cannot_be_run_on_this_model_is_not_run(rest: dict[str, Any], message: str, go: Go, tmp_path: Path) -> None:
    def never(*_: Any) -> Checkpoint:
        raise AssertionError("it ran")

    with pytest.raises(InputError, match=message):
        go(never, steps=("svd",), **rest)
    assert not (tmp_path / "target").exists()


def test_a_chain_is_held_against_what_earlier_steps_say_of_later_ones() -> None:
    steps = [(name, get_method(name).config()) for name in ("svd", "prune_structure")]
    with pytest.raises(InputError, match="prune_structure cannot follow svd: what it would cut is half of a product"):
        check_chain(steps, "token-classification", "bert")


def test_a_report_says_what_was_there_before_and_what_is_left(tmp_path: Path) -> None:
    source, target = saved("bert", tmp_path / "source"), tmp_path / "target"
    report = run_step("svd", get_method("svd").config(parameters=0.3), source, target, inputs_of(tmp_path / "work"))
    before, after = load(source), load(target)
    assert (report.parameters_before, report.parameters) == (parameters_in(before), parameters_in(after))
    assert (report.size_bytes_before, report.size_bytes) == tuple(sum(file.stat().st_size for file in place.iterdir()) for place in (source, target))
    assert report.parameters < report.parameters_before
    assert report.size_bytes < report.size_bytes_before


@pytest.mark.parametrize(
    ("claim", "is_kept"),
    [
        (Claim("x", 2, 2), True),
        (Claim("x", 2, 2.5, 0.5), True),
        (Claim("x", 2, 1.5, 0.5), True),
        (Claim("x", 2, 1), False),
        (Claim("x", 2, 3), False),
        (Claim("x", 2, 1, bound="at most"), True),
        (Claim("x", 2, 2, bound="at most"), True),
        (Claim("x", 2, 2.5, 0.25, "at most"), False),
        (Claim("x", 2, 3, bound="at least"), True),
        (Claim("x", 2, 2, bound="at least"), True),
        (Claim("x", 2, 1.5, 0.25, "at least"), False),
        *((Claim("x", 2, float("nan"), 9, bound), False) for bound in ("equal", "at most", "at least")),
    ],
)
def test_a_claim_is_kept_within_its_tolerance_and_its_bound(claim: Claim, is_kept: bool) -> None:
    assert claim.kept is is_kept


def test_zeros_that_an_earlier_step_is_sure_of_are_remembered() -> None:
    """Also behind a step whose blocks say nothing of single zeros, and of a pattern the share that it zeroes."""
    magnitude = get_method("magnitude").config
    chain = [("magnitude", magnitude(sparsity=0.6)), ("magnitude", magnitude(sparsity=0.3, block=(2, 2))), ("magnitude", magnitude(sparsity=0.5))]
    with pytest.raises(InputError, match=r"sparsity 0\.5 is less than the 0\.6"):
        check_chain(chain, "token-classification", "bert")
    with pytest.raises(InputError, match=r"sparsity 0\.5 is less than the 0\.75"):
        check_chain([("magnitude", magnitude(pattern="1:4")), ("magnitude", magnitude(sparsity=0.5))], "token-classification", "bert")
    check_chain([("magnitude", magnitude(pattern="3:4")), ("magnitude", magnitude(sparsity=0.5))], "token-classification", "bert")
