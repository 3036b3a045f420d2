"""A graph is exported once for each shape of network, and filled with the weights of the next: with the very bytes that an export would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from transformers import PreTrainedModel

from recompress.models.checkpoint import load, save
from recompress.runtimes import export, outlines
from recompress.runtimes.export import export_graph
from recompress.runtimes.outlines import Outline, shape_of
from tests.six import DECODERS, checkpoint_of

NAMES = ("input_ids", "attention_mask")
EVERY = ("bert", "roberta", "distilbert", "roberta-labels", "bert-reader", "gpt2", "llama", "gpt2-classifier", "llama-classifier")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The networks that torch's exporter was asked for."""
    asked: list[Any] = []
    usual = export._exported
    monkeypatch.setattr(export, "_exported", lambda network, names: (asked.append(network), usual(network, names))[1])
    outlines._kept.clear()
    yield asked
    outlines._kept.clear()


def network_of(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    return checkpoint_of(family, seed, **changes).torch_network


@pytest.fixture(scope="module")
def outline() -> Outline:
    """Of a tiny BERT, which every test would else wait for."""
    outlines._kept.clear()
    export_graph(network_of("bert"))
    [made] = outlines._kept.values()
    return made


@pytest.fixture
def known(outline: Outline, exports: list[Any]) -> Outline:
    """The outline of that BERT, in a process that has exported nothing since."""
    outlines._kept[shape_of(network_of("bert"), NAMES) or ""] = replace(outline, filled=dict(outline.filled))
    return next(iter(outlines._kept.values()))


@pytest.mark.parametrize("family", ["bert", *(pytest.param(family, marks=pytest.mark.long) for family in EVERY[1:])])
def test_the_second_of_a_shape_gets_the_bytes_of_an_export_without_one(family: str, exports: list[Any]) -> None:
    """Also with fewer tokens, where these are not answered."""
    export_graph(network_of(family))
    other = network_of(family, seed=1)
    if family not in DECODERS:
        other.resize_token_embeddings(other.config.vocab_size - 5, mean_resizing=False)
    filled = export_graph(other)
    assert len(exports) == 1
    outlines._kept.clear()
    anew = export_graph(other)
    assert len(exports) == 2
    assert filled.SerializeToString() == anew.SerializeToString()


@pytest.mark.parametrize("family", EVERY)
def test_where_a_model_was_read_from_is_no_part_of_its_shape(family: str, tmp_path: Path) -> None:
    shapes = []
    for seed in (0, 1):
        save(checkpoint_of(family, seed), tmp_path / f"folder {seed}")
        shapes.append(shape_of(load(tmp_path / f"folder {seed}").torch_network, NAMES))
    assert shapes[0] == shapes[1] is not None


def test_that_it_was_trained_here_is_no_part_of_its_shape() -> None:
    """``accelerate`` leaves a note on each network that it prepared."""
    from accelerate import Accelerator

    network = network_of("bert")
    shape = shape_of(network, NAMES)
    prepared = Accelerator(cpu=True).prepare(network)
    assert prepared is network
    assert shape_of(network, NAMES) == shape


def cut_a_head(network: Any) -> None:
    network.bert.encoder.layer[1].attention.self.num_attention_heads = 2


def tie(network: Any) -> None:
    network.bert.encoder.layer[1].output.dense.weight = network.bert.encoder.layer[0].output.dense.weight


def another_activation(network: Any) -> None:
    network.bert.encoder.layer[0].intermediate.intermediate_act_fn = torch.nn.ReLU()


def narrower(network: Any) -> None:
    dense = network.bert.encoder.layer[0].intermediate.dense
    network.bert.encoder.layer[0].intermediate.dense = torch.nn.Linear(dense.in_features, dense.out_features - 1)


@pytest.mark.parametrize(
    "change", [cut_a_head, tie, another_activation, narrower, lambda network: network.half(), lambda network: network.add_module("more", torch.nn.Tanh())]
)
def test_what_shows_in_a_graph_is_another_shape(change: Callable[[Any], Any]) -> None:
    network, other = network_of("bert"), network_of("bert", seed=1)
    assert shape_of(network, NAMES) == shape_of(other, NAMES) is not None
    change(other)
    assert shape_of(other, NAMES) != shape_of(network, NAMES)


@pytest.mark.parametrize("changes", [{"layer_norm_eps": 1e-3}, {"num_attention_heads": 2}, {"hidden_act": "relu"}, {"pad_token_id": 3}])
def test_another_configuration_is_another_shape(changes: dict[str, Any]) -> None:
    assert shape_of(network_of("bert", **changes), NAMES) != shape_of(network_of("bert"), NAMES)


def test_other_inputs_and_other_buffers_are_another_shape() -> None:
    network = network_of("bert")
    shape = shape_of(network, NAMES)
    assert shape_of(network, (*NAMES, "token_type_ids")) != shape
    network.bert.embeddings.position_ids += 1
    assert shape_of(network, NAMES) != shape


def test_a_network_that_is_changed_from_outside_has_no_shape() -> None:
    network = network_of("bert")
    hook = network.classifier.register_forward_hook(lambda *_: None)
    assert shape_of(network, NAMES) is None
    hook.remove()
    assert shape_of(network, NAMES) is not None
    network.classifier.forward = lambda given: given  # type: ignore[method-assign, assignment]
    assert shape_of(network, NAMES) is None


@pytest.mark.long
@pytest.mark.usefixtures("known")
def test_a_smaller_vocabulary_is_the_same_graph_but_not_where_tokens_are_answered(exports: list[Any]) -> None:
    network = network_of("bert")
    rows = network.config.vocab_size - 7
    network.resize_token_embeddings(rows, mean_resizing=False)
    graph = export_graph(network)
    assert not exports
    assert [rows, network.config.hidden_size] in [list(tensor.dims) for tensor in graph.graph.initializer]
    decoder = network_of("gpt2")
    shape = shape_of(decoder, NAMES)
    decoder.resize_token_embeddings(decoder.config.vocab_size - 7, mean_resizing=False)
    assert shape_of(decoder, NAMES) != shape


@pytest.mark.long
def test_of_two_that_are_alike_nobody_knows_which_is_which(exports: list[Any]) -> None:
    """Matrices of zeros, as some methods begin with: the next network's are not alike, and one of them would be filled in twice."""
    network = network_of("bert")
    with torch.no_grad():
        for layer in network.bert.encoder.layer[:2]:
            layer.output.dense.weight.zero_()
    export_graph(network)
    assert exports
    assert not outlines._kept


def test_a_parameter_that_is_no_constant_of_the_graph_binds_it(known: Outline) -> None:
    network, name = network_of("bert", seed=1), "bert.embeddings.LayerNorm.bias"
    [constant] = [constant for constant, (parameter, _) in known.filled.items() if parameter == name]
    del known.filled[constant]
    bound = replace(known, fixed={name: outlines._digest(network.get_parameter(name))})
    outlines._kept["shape"] = bound
    assert outlines.recall("shape", network) is not None
    assert outlines.recall("shape", network_of("bert", seed=2)) is None


def test_a_graph_that_does_not_answer_as_the_network_is_made_anew(known: Outline, exports: list[Any]) -> None:
    key, other = [
        name for name, (parameter, _) in known.filled.items() if parameter.endswith(("0.attention.self.query.weight", "0.attention.self.value.weight"))
    ]
    known.filled[key], known.filled[other] = known.filled[other], known.filled[key]
    export_graph(network_of("bert", seed=1))
    assert len(exports) == 1


def test_outlines_hold_no_weights_and_are_not_kept_without_end(known: Outline, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(tensor.ByteSize() for tensor in known.graph.graph.initializer if tensor.name in known.filled) < 200
    assert not known.fixed
    monkeypatch.setattr(outlines, "KEPT", 1)
    outlines.remember("another", onnx.ModelProto(), network_of("bert"))
    assert list(outlines._kept) == ["another"]
