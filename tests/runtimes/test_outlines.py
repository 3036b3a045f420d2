"""A graph is exported once for each shape of network, and filled with the weights of the next: with the very bytes that an export would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx
import pytest
import torch
from transformers import PreTrainedModel

from recompress.runtimes import export, outlines
from recompress.runtimes.export import export_graph
from recompress.runtimes.outlines import shape_of
from tests.six import checkpoint_of

NAMES = ("input_ids", "attention_mask")
EVERY = ("bert", "roberta", "distilbert", "bert-labels", "bert-reader", "gpt2", "llama", "gpt2-classifier", "llama-classifier")


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


@pytest.mark.parametrize("family", ["bert", *(pytest.param(family, marks=pytest.mark.long) for family in EVERY[1:])])
def test_the_second_of_a_shape_gets_the_bytes_of_an_export_without_one(family: str, exports: list[Any]) -> None:
    export_graph(network_of(family))
    filled = export_graph(network_of(family, seed=1))
    assert len(exports) == 1
    outlines._kept.clear()
    anew = export_graph(network_of(family, seed=1))
    assert len(exports) == 2
    assert filled.SerializeToString() == anew.SerializeToString()


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


def test_a_smaller_vocabulary_is_the_same_graph_but_not_where_tokens_are_answered(exports: list[Any]) -> None:
    network = network_of("bert")
    export_graph(network)
    rows = network.config.vocab_size - 7
    network.resize_token_embeddings(rows, mean_resizing=False)
    graph = export_graph(network)
    assert len(exports) == 1
    assert [rows, network.config.hidden_size] in [list(tensor.dims) for tensor in graph.graph.initializer]
    decoder = network_of("gpt2")
    shape = shape_of(decoder, NAMES)
    decoder.resize_token_embeddings(decoder.config.vocab_size - 7, mean_resizing=False)
    assert shape_of(decoder, NAMES) != shape


def test_of_two_that_are_alike_nobody_knows_which_is_which(exports: list[Any]) -> None:
    """Matrices of zeros, as some methods begin with: the next network's are not alike, and one of them would be filled in twice."""
    network, other = network_of("bert"), network_of("bert", seed=1)
    with torch.no_grad():
        for layer in network.bert.encoder.layer[:2]:
            layer.output.dense.weight.zero_()
    export_graph(network)
    export_graph(other)
    assert len(exports) == 2


def test_a_parameter_that_is_no_constant_of_the_graph_binds_it(exports: list[Any]) -> None:
    networks = [network_of("bert", seed=seed) for seed in (0, 1, 2)]
    for network, value in zip(networks, (1.0, 1.0, 2.0), strict=True):
        network.unused = torch.nn.Parameter(torch.tensor([value]))
        export_graph(network)
    assert exports == [networks[0], networks[2]]


def test_a_graph_that_does_not_answer_as_the_network_is_made_anew(exports: list[Any]) -> None:
    export_graph(network_of("bert"))
    [outline] = outlines._kept.values()
    key, other = [
        name for name, (parameter, _) in outline.filled.items() if parameter.endswith(("0.attention.self.query.weight", "0.attention.self.value.weight"))
    ]
    outline.filled[key], outline.filled[other] = outline.filled[other], outline.filled[key]
    graph = export_graph(network_of("bert", seed=1))
    assert len(exports) == 2
    outlines._kept.clear()
    assert graph.SerializeToString() == export_graph(network_of("bert", seed=1)).SerializeToString()


def test_outlines_hold_no_weights_and_are_not_kept_without_end(exports: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    export_graph(network_of("bert"))
    [outline] = outlines._kept.values()
    assert max(tensor.ByteSize() for tensor in outline.graph.graph.initializer if tensor.name in outline.filled) < 200
    monkeypatch.setattr(outlines, "KEPT", 1)
    outlines.remember("another", onnx.ModelProto(), network_of("bert"))
    assert list(outlines._kept) == ["another"]
