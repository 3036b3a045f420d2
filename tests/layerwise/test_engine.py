"""The engine: statistics of later layers are those behind changed ones, kills cost nothing, and memory holds one layer's statistics."""

from __future__ import annotations

import os
import signal
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from recompress.errors import IntegrityError
from recompress.layerwise import storage
from recompress.layerwise.engine import Group, each_layer, groups_of
from recompress.layerwise.statistics import Statistics
from recompress.methods.registry import get_method
from recompress.models.architecture import encoder_linears, layers_of, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of
from recompress.runtimes.batches import pad_batch
from recompress.training.run import weights_sha256
from tests.cut import deep, share_two
from tests.six import SIX, checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


def batch_of(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in pad_batch(features, 0).items()}


def halve(group: Group, _: Statistics) -> Mapping[str, nn.Module]:
    for linear in group.values():
        weight_of(linear).mul_(0.5)
    return {}


def by_hand(checkpoint: Checkpoint, features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """X^T X of each linear layer, each layer halved before the whole network runs again, from the text to the end."""
    network: Any = checkpoint.torch_network
    hessians: dict[str, torch.Tensor] = {}
    names = {module: name for name, module in encoder_linears(network)}
    for layer in layers_of(network):
        linears = [linear for group in groups_of(layer) for linear in group]
        for linear in linears:
            hessians[names[linear]] = torch.zeros(shape_of(linear)[1], shape_of(linear)[1], dtype=torch.float64)

        def watch(module: nn.Module, given: Any) -> None:
            rows = given[0][0].double()
            hessians[names[module]] += rows.T @ rows

        hooks = [linear.register_forward_pre_hook(watch) for linear in linears]
        with torch.no_grad():
            for feature in features:
                network(**batch_of([feature]))
        for hook in hooks:
            hook.remove()
        for linear in linears:
            weight_of(linear).mul_(0.5)
    return hessians


@pytest.mark.parametrize("family", SIX)
def test_a_later_layer_sees_what_earlier_ones_became(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family)
    features = features_of(checkpoint, family, 7)
    expected = by_hand(checkpoint_of(family), features)
    seen: dict[str, Statistics] = {}

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        seen.update(dict.fromkeys(group, statistics))
        return halve(group, statistics)

    each_layer(checkpoint.torch_network, features, visit, wanted=("hessian", "squares"), depends_on={}, workdir=tmp_path, label="halve")
    assert seen.keys() == expected.keys()
    for name, statistics in seen.items():
        assert statistics.tokens == sum(len(feature["input_ids"]) for feature in features)
        torch.testing.assert_close(statistics["hessian"].double(), expected[name], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(statistics["squares"], expected[name].diagonal(), rtol=1e-4, atol=1e-4)
    halved = {name: linear.weight for name, linear in encoder_linears(checkpoint.torch_network)}
    for name, linear in encoder_linears(checkpoint_of(family).torch_network):
        assert torch.equal(halved[name], linear.weight * 0.5)


def test_batches_of_one_shape_that_are_padded_otherwise_see_their_own_text(tmp_path: Path) -> None:
    """Four texts of 5 to 8 tokens, and four of 8: both are four rows of eight, and what is padding in the first is text in the second."""
    features = [
        {"input_ids": [1 + (7 * i + k) % 20 for k in range(length)], "attention_mask": [1] * length} for i, length in enumerate((5, 5, 6, 8, 8, 8, 8, 8))
    ]
    expected = by_hand(checkpoint_of("bert"), features)
    seen: dict[str, Statistics] = {}

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        seen.update(dict.fromkeys(group, statistics))
        return halve(group, statistics)

    each_layer(checkpoint_of("bert").torch_network, features, visit, wanted=("squares",), depends_on={}, workdir=tmp_path, label="halve")
    for name, hessian in expected.items():
        torch.testing.assert_close(seen[name]["squares"], hessian.diagonal(), rtol=1e-4, atol=1e-4)


def test_layers_with_one_set_of_weights_are_changed_once(tmp_path: Path) -> None:
    shared, visits = share_two(deep("bert")), list[str]()
    before = {name: weight_of(linear).clone() for name, linear in encoder_linears(shared.torch_network)}

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        visits.extend(group)
        return halve(group, statistics)

    each_layer(shared.torch_network, features_of(shared, "bert"), visit, wanted={"squares"}, depends_on={}, workdir=tmp_path, label="halve")
    assert sorted(visits) == sorted(before)
    for name, linear in encoder_linears(shared.torch_network):
        assert torch.equal(weight_of(linear), before[name] * 0.5), name


STEPS: dict[str, dict[str, Any]] = {"wanda": {}, "sparsegpt": {"pattern": "2:4"}, "gptq": {"bits": 3}}


def run(name: str, family: str, workdir: Path) -> Checkpoint:
    method = get_method(name)
    return method.run(checkpoint_of(family, num_hidden_layers=3), method.config(**STEPS[name]), inputs_of(family, workdir, 24))


@pytest.mark.parametrize(("name", "family"), [("wanda", "bert"), ("sparsegpt", "llama"), ("gptq", "gpt2")])
def test_a_kill_at_any_file_costs_nothing_but_time(name: str, family: str, tmp_path: Path) -> None:
    """The child kills itself while it writes its n-th file; called again in the same folder, the work ends with the same bytes."""
    expected = weights_sha256(run(name, family, tmp_path / "whole").torch_network)
    finished = False
    for moment in range(1, 200, 9):
        child = os.fork()
        if child == 0:
            _run_and_die(name, family, tmp_path / str(moment), moment)
        _, status = os.waitpid(child, 0)
        finished = not os.WIFSIGNALED(status)
        if finished:
            break
        assert weights_sha256(run(name, family, tmp_path / str(moment)).torch_network) == expected
    assert finished
    assert moment > 15


def _run_and_die(name: str, family: str, workdir: Path, moment: int) -> None:
    real, left = storage.save_file, moment

    def save(tensors: Any, path: Path) -> None:
        nonlocal left
        if left == 0:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        real(tensors, path)

    storage.save_file = save  # type: ignore[assignment]
    run(name, family, workdir)
    os._exit(0)


def test_what_was_done_is_not_done_again_and_another_step_starts_anew(tmp_path: Path) -> None:
    def go(depends_on: dict[str, Any], stop_at: int) -> int:
        checkpoint, visits = checkpoint_of("gpt2"), 0

        def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
            nonlocal visits
            if visits == stop_at:
                raise KeyboardInterrupt
            visits += 1
            return halve(group, statistics)

        features = features_of(checkpoint, "gpt2")
        try:
            each_layer(checkpoint.torch_network, features, visit, wanted={"squares"}, depends_on=depends_on, workdir=tmp_path, label="halve")
        except KeyboardInterrupt:
            return -visits
        return visits

    assert go({"a": 1}, 6) == -6
    assert go({"a": 1}, 99) == 4
    assert go({"a": 1}, 99) == 0
    assert go({"a": 2}, 99) == 8


def test_work_on_another_text_or_another_model_starts_anew(tmp_path: Path) -> None:
    def go(count: int, seed: int = 0) -> int:
        checkpoint, groups = checkpoint_of("gpt2"), []
        checkpoint.torch_network.lm_head.weight.data[0, 0] += seed
        features = features_of(checkpoint, "gpt2", count)
        visit = lambda group, statistics: (groups.append(group), halve(group, statistics))[1]  # noqa: E731
        each_layer(checkpoint.torch_network, features, visit, wanted={"squares"}, depends_on={}, workdir=tmp_path, label="halve")
        return len(groups)

    assert go(4) > 0
    assert go(4) == 0
    assert go(5) > 0
    assert go(5, seed=1) > 0


def test_activations_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    layers_of(checkpoint.torch_network)[0].query.bias.data[0] = float("inf")
    with pytest.raises(IntegrityError, match=r"flows into .* is not finite"):
        each_layer(checkpoint.torch_network, features_of(checkpoint, "bert"), halve, wanted={"squares"}, depends_on={}, workdir=tmp_path, label="x")


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, each storage once, less those that the network had at the beginning."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()
        for tensor in network.state_dict().values():
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.known:
                self.known.add(storage.data_ptr())
                weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.now -= size
        self.known.discard(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage.data_ptr()
                if key and key not in self.known:
                    self.known.add(key)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, key, storage.nbytes())
        return out


@pytest.mark.parametrize("name", ["wanda", "gptq", *(pytest.param(name, marks=pytest.mark.long) for name in ("sparsegpt", "awq", "codebook"))])
def test_memory_holds_one_and_a_half_layers_of_statistics_at_most(name: str, tmp_path: Path) -> None:
    """Tensors beyond the model, at their most, against the Hessians of the largest layer; activations of one small batch are in it."""
    method = get_method(name)
    checkpoint = checkpoint_of("gpt2", n_embd=256, n_inner=1024, n_layer=2)
    statistics = 4 * max(sum(shape_of(group[0])[1] ** 2 for group in groups_of(layer)) for layer in layers_of(checkpoint.torch_network))
    inputs = inputs_of("gpt2", tmp_path)
    with Memory(checkpoint.torch_network) as memory:
        method.run(checkpoint, method.config(), inputs)
    assert memory.peak > (statistics if name in ("sparsegpt", "gptq", "awq") else 0)
    assert memory.peak <= 1.5 * statistics
