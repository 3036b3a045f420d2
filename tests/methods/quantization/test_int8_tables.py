"""Token embeddings of an int8 graph in 4 bits: the codes of each block are those of least error, they are what is looked up, and everything else stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from recompress.errors import InputError
from recompress.methods.chain import check_chain
from recompress.methods.quantization.dynamic_int8 import DynamicInt8, prove
from recompress.methods.quantization.int8 import table_of
from recompress.methods.quantization.qat_int8 import QatInt8, check_tables
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from recompress.models.factored import token_table
from recompress.models.onnx_blocks import stored_weight
from recompress.models.onnx_graph import read_graph, weights_in
from recompress.runtimes import open_runtime
from tests import six
from tests.families import inputs_of, saved

METHODS = ("dynamic_int8", "static_int8")


def quantize(name: str, place: Path, family: str = "bert", **dials: Any) -> onnx.ModelProto:
    encoder = family not in ("llama", "gpt2")
    if not (place / "source").exists():
        saved(family, place / "source") if encoder else save(six.checkpoint_of(family), place / "source")
    inputs = inputs_of(place / "work") if encoder else six.inputs_of(family, place / "work", 24)
    target = place / f"{name}-{dials.get('embeddings')}"
    run_step(name, get_method(name).config(**dials), place / "source", target, inputs)
    return read_graph(target / "model.onnx")


def table_in(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    """What the look-ups in packed blocks read."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    [node] = [node for node in model.graph.node if node.op_type == "GatherBlockQuantized"]
    return stored_weight(node, stored, makers[node.input[0]].input[0])


def nearest_of_many(block: np.ndarray[Any, Any]) -> float:
    """The least squared error that any of ten thousand scales gives a block of codes from -8 to 7."""
    scales = np.concatenate([sign * np.linspace(0.02, 1.2, 5000) * np.abs(block).max() / 8 for sign in (1, -1)])[:, None]
    return float(np.square(np.clip(np.round(block / scales), -8, 7) * scales - block).sum(axis=1).min())


@pytest.mark.parametrize("name", METHODS)
def test_each_block_has_nearly_the_scale_that_loses_least(name: str, tmp_path: Path) -> None:
    table = table_in(quantize(name, tmp_path, embeddings="int4"))
    weight = token_table(load(tmp_path / "source").torch_network).weight.detach().numpy()
    blocks, rounded = (values[:40].reshape(-1, 16 if weight.shape[1] % 32 else 32) for values in (weight, table))
    assert len(np.unique(rounded[5])) <= 16
    lost = np.square(rounded - blocks).sum(axis=1)
    least = np.array([nearest_of_many(block) for block in blocks])
    assert (lost >= least - 1e-9).all()
    assert lost.sum() < 1.05 * least.sum()
    steps = np.abs(blocks).max(axis=1, keepdims=True) / 7.5
    by_range = np.square((np.clip(np.round(blocks / steps - 0.5), -8, 7) + 0.5) * steps - blocks).sum()
    assert by_range > 1.05 * least.sum()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("name", METHODS)
def test_all_else_is_in_eight_bits_as_before(name: str, family: str, tmp_path: Path) -> None:
    eight, four = (weights_in(quantize(name, tmp_path, family, embeddings=tables)) for tables in (True, "int4"))
    table = token_table(load(tmp_path / "source").torch_network).weight
    assert four.lookups_packed == table.numel()
    assert four.lookups_int8 == eight.lookups_int8 - table.numel()
    assert four.products_int8 == eight.products_int8


def test_answers_are_those_of_the_network_with_this_table(tmp_path: Path) -> None:
    """A decoder that rotates its positions has no other table: against the graph in 8 bits of a network that has the rounded numbers as its own."""
    table = table_in(quantize("dynamic_int8", tmp_path, "llama", embeddings="int4"))
    rounded = load(tmp_path / "source")
    with torch.no_grad():
        token_table(rounded.torch_network).weight.copy_(torch.from_numpy(table))
    save(rounded, tmp_path / "rounded")
    run_step("dynamic_int8", DynamicInt8(embeddings=False), tmp_path / "rounded", tmp_path / "floats", six.inputs_of("llama", tmp_path / "w2", 24))
    features = six.features_of(rounded, "llama")
    ours, others = (open_runtime(tmp_path / name).logits(features) for name in ("dynamic_int8-int4", "floats"))
    scale = max(np.abs(row - row.mean()).max() for row in others)
    for one, other in zip(ours, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 * scale)


def test_a_table_of_other_numbers_is_noticed(tmp_path: Path) -> None:
    quantize("dynamic_int8", tmp_path, embeddings="int4")
    target = tmp_path / "dynamic_int8-int4"
    model = read_graph(target / "model.onnx")
    [codes] = [tensor for tensor in model.graph.initializer if tensor.name.endswith("word_embeddings_codes")]
    codes.CopyFrom(onnx.numpy_helper.from_array(np.roll(onnx.numpy_helper.to_array(codes), 1, axis=0), codes.name))
    onnx.save(model, target / "model.onnx")
    claims = {claim.what: claim for claim in prove(load(tmp_path / "source"), load(target), DynamicInt8(embeddings="int4"), inputs_of(tmp_path / "w3"))}
    assert not claims["token embeddings that are not looked up in 4 bits as they were packed"].kept


@pytest.mark.parametrize("name", METHODS)
def test_a_rank_without_blocks_is_refused_before_anything_runs(name: str) -> None:
    def check(tables: Any, rank: int) -> None:
        told: dict[str, dict[str, Any]] = {"factorize_embeddings": {"rank": rank}, name: {"embeddings": tables}}
        check_chain([(step, get_method(step).config.model_validate(dials)) for step, dials in told.items()], "text-classification", "bert")

    check("int4", 48)
    check(True, 100)
    with pytest.raises(InputError, match="have 100 columns; store them in 8 bits .true., or factor them to 96 or 112"):
        check("int4", 100)


def test_a_width_without_blocks_and_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="embeddings: int4 needs a width that 16 divides, and the token embeddings have 24 columns; .* factor them to 16 or 32"
    ):
        table_of(six.checkpoint_of("bert", hidden_size=24).torch_network, DynamicInt8(embeddings="int4"))
    with pytest.raises(InputError, match="qat_int8 trains with tables in 8 bits"):
        check_tables(QatInt8(embeddings="int4"))
