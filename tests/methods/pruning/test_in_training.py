"""Gradual, movement and dynamic sparse training: against loops and autograd, exactly as sparse as promised at every step, and the same bytes after a kill."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped
from torch.func import functional_call

from recompress.errors import InputError
from recompress.methods.catalogue import example
from recompress.methods.chain import check_chain
from recompress.methods.pruning import movement, wanda
from recompress.methods.pruning.gradual import Gradual
from recompress.methods.pruning.in_training import beside, cubic
from recompress.methods.pruning.magnitude import Magnitude
from recompress.methods.pruning.mask import smallest, sparsity
from recompress.methods.pruning.scope import zeros_of
from recompress.methods.pruning.structure import PruneStructure
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.methods.training.finetune import Finetune
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.surgery import weight_of
from recompress.settings.file import SettingsFile
from recompress.training.run import weights_sha256
from tests.killed import Killed, killed_at
from tests.six import checkpoint_of, each, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
learn = jaxtyped(typechecker=beartype)(movement.learn)
QUICK: dict[str, Any] = {"epochs": 2, "learning_rate": 5e-3, "batch_size": 8, "precision": "fp32"}
ALL = ("gradual", "movement", "platon", "dynamic_sparse")


def run(name: str, place: Path, family: str = "bert", seed: int = 0, **dials: Any) -> Any:
    """The network after 10 steps."""
    method = get_method(name)
    return method.run(checkpoint_of(family), method.config(**(QUICK | dials)), inputs_of(family, place, 40, seed)).torch_network


def step(name: str, family: str, place: Path, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step(name, get_method(name).config(**(QUICK | dials)), place / "source", place / name, inputs_of(family, place / f"work-{name}", 24))


def pruned_before(part: int) -> Checkpoint:
    """A model in which a step before has zeroed one of so many parts of each matrix."""
    checkpoint = checkpoint_of("bert")
    for _, linear in encoder_linears(checkpoint.torch_network):
        linear.weight.data[: len(linear.weight) // part] = 0
    checkpoint.info = replace(checkpoint.info, steps=("magnitude",))
    return checkpoint


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """Where weights are zero when each training step begins."""
    from recompress.training.trainer import SteadyTrainer

    usual, masks = SteadyTrainer.training_step, []

    def look(self: Any, model: Any, *rest: Any, **named: Any) -> Any:
        masks.append([(weight_of(linear) == 0).clone() for _, linear in encoder_linears(model)])
        return usual(self, model, *rest, **named)

    monkeypatch.setattr(SteadyTrainer, "training_step", look)
    return masks


def test_gradual_has_the_zeros_of_the_schedule_at_every_step_and_never_gives_one_back(seen: list[list[torch.Tensor]], tmp_path: Path) -> None:
    network = run("gradual", tmp_path, sparsity=0.8, begin=0.2, end=0.7, updates=3)
    updates = {4: 1 - 2 / 5, 6: 1 - 4 / 5, 7: 0.0}  # step: what is left of the way from 2 to 7
    done = 0.0
    for number, zeros in enumerate(seen):
        if number in updates:
            done = 0.8 - 0.8 * updates[number] ** 3
        assert [int(mark.sum()) for mark in zeros] == [int(done * mark.numel() + 1e-9) for mark in zeros]
    for before, after in zip(seen, seen[1:], strict=False):
        assert all((b | ~a).all() for a, b in zip(before, after, strict=True))
    assert len(seen) == 10
    assert all(int((linear.weight == 0).sum()) == int(0.8 * linear.weight.numel()) for _, linear in encoder_linears(network))


def test_gradual_zeroes_the_smallest(seen: list[list[torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the only update, what goes is what magnitude would choose of the weights of that moment, which the last step of a plain training has."""
    plain = run("finetune", tmp_path / "plain", epochs=1)
    pruned = run("gradual", tmp_path / "pruned", epochs=1, sparsity=0.5, end=1.0, updates=1)
    for (_, linear), (_, sparse) in zip(encoder_linears(plain), encoder_linears(pruned), strict=True):
        size = linear.weight.numel()
        expected = smallest(weight_of(linear).abs().flatten(), size // 2).view(weight_of(linear).shape)
        assert torch.equal(weight_of(sparse), weight_of(linear).masked_fill(expected, 0))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_movement_is_what_autograd_says_of_a_straight_through_mask(family: str) -> None:
    """Six steps of gradient descent on weights and scores, with W * M in the forward pass and M's derivative taken for one by S."""
    import types

    config = movement.Movement(sparsity=0.6, begin=0.0, end=0.6, optimizer="sgd")
    checkpoint = checkpoint_of(family)
    network: Any = checkpoint.torch_network.eval()
    ids = [torch.tensor([feature["input_ids"]]) for feature in features_of(checkpoint, family, 6)]
    linears = dict(encoder_linears(network))
    next(iter(linears.values())).weight.data[0] = 0  # zeros of before are the first to go, and stay
    whole = {name: parameter.detach().clone().requires_grad_() for name, parameter in network.named_parameters()}
    scores = {name: torch.zeros_like(linear.weight).masked_fill(linear.weight == 0, -1e30).requires_grad_() for name, linear in linears.items()}

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        return logits.float().logsumexp(-1).mean() + logits.square().mean()

    def shares(t: int) -> float:
        return cubic(t, 0, 4, 0.0, 0.6)

    masks = {name: torch.ones_like(linear.weight) for name, linear in linears.items()}
    for t, row in enumerate(ids):
        masked = {f"{n}.weight": whole[f"{n}.weight"] * (masks[n] + scores[n] - scores[n].detach()) for n in linears}
        logits = functional_call(network, whole | masked, kwargs={"input_ids": row}).logits
        gradients = torch.autograd.grad(loss_of(logits), [*whole.values(), *scores.values()], allow_unused=True)
        with torch.no_grad():
            for tensor, gradient in zip([*whole.values(), *scores.values()], gradients, strict=True):
                if gradient is not None:
                    tensor -= gradient * (0.1 if any(tensor is w for w in whole.values()) else 1.0)
            for name, score in scores.items():
                count = int(shares(t + 1) * score.numel() + 1e-9)
                flat = score.flatten() if family == "bert" else score.T.flatten()
                gone = smallest(flat, count).view(score.shape if family == "bert" else score.T.shape)
                masks[name] = 1 - (gone if family == "bert" else gone.T).float()

    dense = {name: linear.weight.detach().clone() for name, linear in linears.items()}
    start = {name: torch.zeros_like(weight).masked_fill_(weight == 0, -math.inf) for name, weight in dense.items()}
    with beside(network, movement.DENSE, dense), beside(network, movement.SCORES, start):
        mover, optimizer = movement._mover(network, config, 0.0), torch.optim.SGD(network.parameters(), lr=0.1)
        for t, row in enumerate(ids):
            optimizer.zero_grad()
            loss_of(network(input_ids=row).logits).backward()
            state = types.SimpleNamespace(global_step=t, max_steps=6)
            mover.on_pre_optimizer_step(None, state, None)
            optimizer.step()
            mover.on_optimizer_step(None, state, None)
        for name, linear in linears.items():
            alive = torch.isfinite(getattr(linear, movement.SCORES))
            torch.testing.assert_close(getattr(linear, movement.SCORES)[alive], scores[name].detach()[alive], rtol=1e-4, atol=1e-6)
            assert torch.equal(linear.weight == 0, (masks[name] == 0) | ~alive)
            torch.testing.assert_close(linear.weight.detach(), (whole[f"{name}.weight"] * masks[name]).detach(), rtol=1e-4, atol=1e-6)
            assert int((linear.weight == 0).sum()) == int(0.6 * linear.weight.numel() + 1e-9)
    assert not [name for name, _ in network.named_buffers() if "movement" in name]


def test_scores_fall_where_descent_leads_to_zero() -> None:
    scores, dense = torch.zeros(1, 4), torch.tensor([[1.0, -1.0, 1.0, -2.0]])
    learn(scores, dense * torch.tensor([[0.5, 0.5, -0.5, -0.5]]))
    assert scores.tolist() == [[-0.5, 0.5, 0.5, -1.0]]


def test_what_movement_dropped_may_come_back(seen: list[list[torch.Tensor]], tmp_path: Path) -> None:
    run("movement", tmp_path, sparsity=0.5, begin=0.0, end=0.2, learning_rate=2e-2, prior=0.0)
    back = sum(int((a & ~b).sum()) for before, after in zip(seen, seen[1:], strict=False) for a, b in zip(before, after, strict=True))
    assert back > 0
    assert {int(mark.sum()) / mark.numel() for zeros in seen[3:] for mark in zeros} == {0.5}


@pytest.mark.parametrize("distribution", ["uniform", "erdos_renyi"])
@pytest.mark.parametrize("kind", ["set", "rigl"])
def test_dynamic_sparse_is_as_sparse_at_every_step_and_moves(kind: str, distribution: str, seen: list[list[torch.Tensor]], tmp_path: Path) -> None:
    network = run("dynamic_sparse", tmp_path, "gpt2", kind=kind, distribution=distribution, sparsity=0.75, drop=0.5, until=0.7)
    shapes = [tuple(mark.shape) for mark in seen[0]]
    asked = zeros_of(shapes, 0.75, distribution)
    for zeros in (*seen, [weight_of(linear) == 0 for _, linear in encoder_linears(network)]):
        assert [int(mark.sum()) for mark in zeros] == asked
    moved = [sum(int((a & ~b).sum()) for a, b in zip(before, after, strict=True)) for before, after in zip(seen, seen[1:], strict=False)]
    until = math.ceil(0.7 * len(seen))
    assert sum(moved[:until]) > 0
    assert not any(moved[until:])
    assert not [name for name, _ in network.named_buffers() if "alive" in name]


@pytest.mark.parametrize("start", ["magnitude", "random"])
def test_dynamic_sparse_begins_with_the_zeros_that_are_asked_for(start: str, seen: list[list[torch.Tensor]], tmp_path: Path) -> None:
    smallest_first = [linear.weight.detach().abs() for _, linear in encoder_linears(checkpoint_of("bert").torch_network)]
    run("dynamic_sparse", tmp_path, "bert", sparsity=0.5, start=start, epochs=1, distribution="uniform")
    shared = [
        float((zeros & smallest(size.flatten(), size.numel() // 2).view_as(size)).sum() / zeros.sum())
        for zeros, size in zip(seen[0], smallest_first, strict=True)
    ]
    assert min(shared) == 1 if start == "magnitude" else 0.4 < min(shared) <= max(shared) < 0.6


@pytest.mark.parametrize("family", each())
@pytest.mark.parametrize("name", ALL)
def test_on_every_architecture(name: str, family: str, tmp_path: Path) -> None:
    report = step(name, family, tmp_path, sparsity=0.7, epochs=1)
    claims = {claim["what"]: claim for claim in report.claims}
    assert claims["sparsity"]["measured"] == claims["sparsity"]["asked"] == pytest.approx(0.7, abs=1e-3)
    assert claims["weights moved"]["measured"] == 1
    after = load(tmp_path / name).torch_network
    assert sparsity(after) == claims["sparsity"]["measured"]
    assert after.state_dict().keys() == load(tmp_path / "source").torch_network.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "family", "dials"),
    [
        ("gradual", "bert", {"scope": "global"}),
        ("movement", "gpt2", {"scope": "layer", "every": 2}),
        ("dynamic_sparse", "llama", {"kind": "rigl"}),
        pytest.param("movement", "distilbert", {"scope": "row", "optimizer": "sgd"}, marks=pytest.mark.long),
        pytest.param("platon", "gpt2", {"every": 2}, marks=pytest.mark.long),
        pytest.param("dynamic_sparse", "roberta", {"kind": "set", "start": "random"}, marks=pytest.mark.long),
    ],
)
def test_killed_and_resumed_it_ends_with_the_same_weights(
    name: str, family: str, dials: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights_sha256(run(name, tmp_path / "whole", family, sparsity=0.7, **dials))
    killed_at(monkeypatch, 5)
    with pytest.raises(Killed):
        run(name, tmp_path / "killed", family, sparsity=0.7, **dials)
    monkeypatch.undo()
    assert list((tmp_path / "killed").rglob("seal.json"))
    assert weights_sha256(run(name, tmp_path / "killed", family, sparsity=0.7, **dials)) == whole
    assert weights_sha256(run(name, tmp_path / "killed", family, sparsity=0.7, **dials)) == whole, "killed when the training was over"


def test_sparsity_0_is_plain_training(tmp_path: Path) -> None:
    """The best weights are looked for from the first epoch on, as without pruning; and whatever is dropped grows again, with its weight."""
    plain = weights_sha256(run("finetune", tmp_path / "plain", "llama"))
    for name in ("gradual", "movement", "platon"):
        assert weights_sha256(run(name, tmp_path / name, "llama", sparsity=0.0, begin=0.0, end=0.01)) == plain
    assert weights_sha256(run("dynamic_sparse", tmp_path / "dynamic", "llama", sparsity=0.0)) == plain


@pytest.mark.parametrize("name", ["gradual", "movement", "platon"])
def test_the_result_is_never_of_before_the_zeros_were_complete(name: str, tmp_path: Path) -> None:
    """However early the best epoch on dev is: at first the network still has most of its weights."""
    points: list[float] = []
    inputs = replace(inputs_of("llama", tmp_path, 40), curve=lambda _, point: points.extend(point[key] for key in point if key == "dev_negative_bits_per_byte"))
    config = get_method(name).config(**(QUICK | {"sparsity": 0.98, "end": 0.9, "epochs": 4, "learning_rate": 1e-4, "patience": 1}))
    network = get_method(name).run(checkpoint_of("llama"), config, inputs).torch_network
    assert len(points) == 4, "evaluations of before do not end the training early"
    assert points.index(max(points)) < 3, "the best epoch was one of before"
    assert sparsity(network) == pytest.approx(0.98, abs=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_zeros_of_before_count(name: str, tmp_path: Path) -> None:
    save(pruned_before(2), tmp_path / "source")
    step(name, "bert", tmp_path, sparsity=0.6, epochs=1)
    after = load(tmp_path / name).torch_network
    assert sparsity(after) == pytest.approx(0.6, abs=1e-3)
    stayed = [bool((linear.weight[: len(linear.weight) // 2] == 0).all()) for _, linear in encoder_linears(after)]
    assert all(stayed) == (name != "dynamic_sparse")
    with pytest.raises(InputError, match=f"{name}: sparsity 0.3 is less than the 0.5 that the model has already"):
        run_step(name, get_method(name).config(sparsity=0.3), tmp_path / "source", tmp_path / "x", inputs_of("bert", tmp_path / "w"))


@pytest.mark.parametrize("name", ["gradual", "movement", "platon"])
def test_the_schedule_goes_on_from_the_zeros_of_before(name: str, seen: list[list[torch.Tensor]], tmp_path: Path) -> None:
    """At every step there are as many as the formula says that begins with their share, and not with none."""
    checkpoint, method = pruned_before(4), get_method(name)
    method.run(checkpoint, method.config(**(QUICK | {"sparsity": 0.6, "begin": 0.2, "end": 0.7, "scope": "layer"})), inputs_of("bert", tmp_path, 40))
    for number, zeros in enumerate(seen):
        share = 0.6 - 0.35 * (1 - (max(number, 2) - 2) / 5) ** 3 if number < 7 else 0.6
        assert [int(mark.sum()) for mark in zeros] == [int(share * mark.numel() + 1e-9) for mark in zeros], number


@pytest.mark.parametrize("name", ["gradual", "movement", "platon"])
def test_zeros_of_before_are_never_trained(name: str, seen: list[list[torch.Tensor]], tmp_path: Path) -> None:
    """Not while the schedule waits, either."""
    checkpoint, method = pruned_before(4), get_method(name)
    method.run(checkpoint, method.config(**(QUICK | {"sparsity": 0.5, "begin": 0.5})), inputs_of("bert", tmp_path, 40))
    assert all(bool(zeros[: len(zeros) // 4].all()) for step in seen for zeros in step)


def test_what_is_refused_before_anything_runs() -> None:
    for name in ("gradual", "movement", "platon"):
        with pytest.raises(InputError, match=r"begin is less than end, got 0.8 and 0.7"):
            check_chain([(name, get_method(name).config(begin=0.8))], "language-modelling", "gpt2")
    check_chain([("gradual", get_method("gradual").config()), ("finetune", Finetune())], "token-classification", "xlm-roberta")
    with pytest.raises(InputError, match=r"gradual: sparsity 0.4 is less than the 0.5 that a step before it asks for"):
        check_chain([("wanda", wanda.Wanda(pattern="2:4")), ("finetune", Finetune()), ("gradual", Gradual(sparsity=0.4))], "language-modelling", "llama")
    check_chain([("magnitude", Magnitude(sparsity=0.6)), ("magnitude", Magnitude(sparsity=0.3, block=(2, 2)))], "language-modelling", "llama")
    check_chain(
        [("magnitude", Magnitude(sparsity=0.6)), ("prune_structure", PruneStructure(heads=0.5)), ("magnitude", Magnitude())], "text-classification", "bert"
    )
    with pytest.raises(InputError, match="cannot follow"):
        check_chain([("dynamic_int8", get_method("dynamic_int8").config()), ("movement", movement.Movement())], "text-classification", "bert")


@pytest.mark.parametrize("name", ["magnitude", *ALL, "lora", "finetune"])
def test_the_example_that_a_method_shows_is_no_contradiction(name: str, tmp_path: Path) -> None:
    """As a recipe would read it."""
    (tmp_path / "step.yaml").write_text(example(get_method(name)))
    config = SettingsFile(tmp_path / "step.yaml").read_as(get_method(name).config, (0, name))
    check_chain([(name, config)], "language-modelling", "gpt2")
