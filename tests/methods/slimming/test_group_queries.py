"""Keys and values become means, queries stay, and heads that were alike lose nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from recompress.errors import EffectMissing, InputError
from recompress.methods.chain import check_chain
from recompress.methods.pruning.structure import PruneStructure
from recompress.methods.runner import StepReport, run_step
from recompress.methods.slimming import group_queries
from recompress.methods.slimming.group_queries import GroupQueries
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from tests.six import HEADS, HIDDEN, LANGUAGE, SIX, benchmark_of, checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
pooled = jaxtyped(typechecker=beartype)(group_queries.pooled)


def group(source: Path, target: Path, groups: int | None) -> StepReport:
    return run_step("group_queries", GroupQueries(groups=groups), source, target, inputs_of("llama", target.parent / "work"))


def source_of(place: Path, **changes: Any) -> Path:
    save(checkpoint_of("llama", **{"num_key_value_heads": HEADS, "attention_bias": True, **changes}), place / "source")
    return place / "source"


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_pooling_is_a_loop_of_means(groups: int, ratio: int, size: int, seed: int) -> None:
    rows = torch.randn(groups * ratio * size, 2, generator=torch.Generator().manual_seed(seed))
    means = pooled(rows, groups, size)
    for g in range(groups):
        for i in range(size):
            mean = sum(rows[(g * ratio + h) * size + i].double() for h in range(ratio)) / ratio
            torch.testing.assert_close(means[g * size + i].double(), mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("groups", [1, None])
def test_heads_are_shared_and_plain_transformers_reads_them(groups: int | None, tmp_path: Path) -> None:
    report = group(source_of(tmp_path), tmp_path / "target", groups)
    groups = groups or HEADS // 2
    after = load(tmp_path / "target")
    assert {(layer.heads, layer.groups) for layer in layers_of(after.torch_network)} == {(HEADS, groups)}
    assert report.parameters == report.parameters_before - 2 * 2 * (HIDDEN + 1) * HIDDEN // HEADS * (HEADS - groups)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    assert plain.config.num_key_value_heads == groups
    features = features_of(after, "llama")
    for left, right in zip(runtime_of(after).logits(features), runtime_of(Checkpoint(plain, after.tokenizer, after.info)).logits(features), strict=True):
        assert (left == right).all()


@pytest.mark.parametrize(("heads", "groups"), [(HEADS, HEADS), (1, None), (2, 2)])
def test_as_many_groups_as_there_are_are_refused(heads: int, groups: int | None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"every layer has {heads} key and value heads? already; ask for fewer groups, or leave group_queries out"):
        group(source_of(tmp_path, num_key_value_heads=heads), tmp_path / "target", groups)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("what", ["weights", "biases", "order"])
def test_heads_that_are_not_the_means_are_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = group_queries.pooled

    def wrong(rows: torch.Tensor, groups: int, size: int) -> torch.Tensor:
        if what == "order":  # heads that are not neighbours form a group
            return rows.reshape(-1, groups, size, *rows.shape[1:]).double().mean(0).flatten(0, 1).to(rows.dtype)
        return usual(rows, groups, size) + (1e-3 if rows.ndim == (2 if what == "weights" else 1) else 0)

    monkeypatch.setattr(group_queries, "pooled", wrong)
    with pytest.raises(EffectMissing, match="largest distance of keys and values from the means"):
        group(source_of(tmp_path), tmp_path / "target", 2)


def test_heads_that_were_alike_lose_nothing(tmp_path: Path) -> None:
    """Two pairs of equal key and value heads: sharing them gives the same answers."""
    checkpoint = checkpoint_of("llama", num_key_value_heads=HEADS)
    for layer in layers_of(checkpoint.torch_network):
        for linear in (layer.key, layer.value):
            heads = weight_of(linear).view(2, 2, layer.head_size, HIDDEN)
            heads[:, 1] = heads[:, 0]
    save(checkpoint, tmp_path / "source")
    group(tmp_path / "source", tmp_path / "target", 2)
    features = features_of(checkpoint, "llama")
    for left, right in zip(runtime_of(checkpoint).logits(features), runtime_of(load(tmp_path / "target")).logits(features), strict=True):
        torch.testing.assert_close(torch.from_numpy(right), torch.from_numpy(left), rtol=1e-4, atol=1e-5)


def test_grouping_after_pruning_and_before(tmp_path: Path) -> None:
    """Cut 4 groups to 2, share these; what is left still can be cut by its heads."""
    source = source_of(tmp_path)
    for i, (name, config) in enumerate([("prune_structure", PruneStructure(heads=0.5)), ("group_queries", GroupQueries(groups=1))]):
        run_step(name, config, source if i == 0 else tmp_path / str(i - 1), tmp_path / str(i), inputs_of("llama", tmp_path / "w"))
    run_step("prune_structure", PruneStructure(heads=0.5), tmp_path / "1", tmp_path / "2", inputs_of("llama", tmp_path / "w"))
    assert {(layer.heads, layer.groups) for layer in layers_of(load(tmp_path / "2").torch_network)} == {(1, 1)}


@pytest.mark.parametrize(
    ("groups", "message"),
    [(3, r"cannot make 3 equal groups of the 4 key and value heads of layer 0"), (8, r"leaves 8 key and value heads, but layer 0 has 4; ask for at most")],
)
def test_what_cannot_be_is_refused(groups: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        group(source_of(tmp_path), tmp_path / "target", groups)
    assert not (tmp_path / "target").exists()
    with pytest.raises(ValidationError):
        GroupQueries(groups=0)


@pytest.mark.parametrize("family", [family for family in SIX if family != "llama"])
def test_others_are_declared_unsupported(family: str) -> None:
    with pytest.raises(InputError, match="group_queries does not support"):
        check_chain([("group_queries", GroupQueries(groups=2))], benchmark_of(family), family)
    with pytest.raises(InputError, match="it supports llama"):
        check_chain([("group_queries", GroupQueries(groups=2))], LANGUAGE, family)
