"""The first steps of students, through the registered functions, against plain torch over the same batches: formulas written out, states from transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from recompress.benchmarks import Example
from recompress.methods.distillation.dials import Shape
from recompress.methods.distillation.distill import Distill
from recompress.methods.distillation.distill_base import DistillBase
from recompress.methods.distillation.imitation import projections
from recompress.methods.distillation.student import fresh_student, some_layers
from recompress.methods.distillation.teacher import teacher_outputs
from recompress.methods.registry import Inputs, get_method
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint, save
from recompress.models.pretrained import from_base
from tests.by_hand import FEW_STEPS, Tensors, features_by_hand, label_loss, still, train_by_hand, units_of
from tests.six import DECODERS, examples_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


def lesson(family: str, folder: Path, **shape: Any) -> tuple[Checkpoint, Inputs]:
    """A teacher, and what a student of it gets: labelled text, and text without labels."""
    teacher = still(family, seed=3, **shape)
    for name, parameter in teacher.torch_network.named_parameters():
        if name.startswith("classifier"):
            parameter.data.mul_(10)
    save(teacher, folder / "teacher")
    inputs = inputs_of(family, folder / "work", 18, seed=4)
    plain = [Example(example.words, (), example.slice) for example in examples_of(family, 12, seed=5)]
    outputs = None if family in DECODERS else teacher_outputs(folder / "teacher", [*inputs.train, *plain], folder / "outputs")
    return teacher, replace(inputs, unlabelled=plain, teacher=outputs, teacher_model=folder / "teacher", base=folder / "teacher")


def same(done: Checkpoint, expected: Tensors) -> None:
    for name, layer in encoder_linears(done.torch_network):
        torch.testing.assert_close(layer.weight.detach(), expected[f"{name}.weight"], rtol=1e-3, atol=5e-5)


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 sum p ln (p / q), of each row."""
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    return temperature**2 * (p * (p / q).log()).sum(-1)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_soft_labels_belong_to_their_own_examples_at_their_temperature(family: str, tmp_path: Path) -> None:
    teacher, inputs = lesson(family, tmp_path)
    config = Distill(**FEW_STEPS, temperature=3.0, hard_labels=0.25, answers=2.0)
    student = still(family, seed=1)
    features = features_by_hand(student, inputs, [*inputs.train, *inputs.unlabelled])
    assert inputs.teacher is not None
    for i, feature in enumerate(features):  # the file holds what the teacher says of each example, in the precision of the machine
        with torch.no_grad():
            logits = teacher.torch_network(input_ids=torch.tensor([feature["input_ids"]])).logits[0].numpy()
        torch.testing.assert_close(torch.from_numpy(inputs.benchmark.unit_logits(logits, feature)), torch.from_numpy(inputs.teacher[i]), rtol=0.05, atol=0.1)

    def loss(output: Any, theta: Tensors, batch: Tensors, chosen: list[int]) -> Tensor:
        logits, each = units_of(output.logits), []
        assert inputs.teacher is not None
        for row, i in enumerate(chosen):
            for unit, position in enumerate(features[i]["units"]):
                if position >= 0:
                    each.append(softened(logits[row, position], torch.from_numpy(inputs.teacher[i][unit]), 3.0))
        return 2 * (0.75 * torch.stack(each).mean() + 0.25 * label_loss(output.logits, batch))

    expected = train_by_hand(student, inputs, config, features=features, loss=loss)
    same(get_method("distill").run(still(family, seed=1), config, inputs), expected)


def split_of(family: str, theta: Tensors, prefix: str, states: Tensor, width: int) -> list[Tensor]:
    """Queries, keys and values of a layer from what comes into it."""
    if family == "bert":
        at = f"bert.encoder.layer.{prefix}.attention.self"
        return [linear(states, theta[f"{at}.{part}.weight"], theta[f"{at}.{part}.bias"]) for part in ("query", "key", "value")]
    at = f"transformer.h.{prefix}"
    normed = layer_norm(states, (width,), theta[f"{at}.ln_1.weight"], theta[f"{at}.ln_1.bias"], 1e-5)
    joined = normed @ theta[f"{at}.attn.c_attn.weight"] + theta[f"{at}.attn.c_attn.bias"]
    return list(joined.split(width, dim=-1))


def relations(states: Tensor, length: int, heads: int, causal: bool) -> Tensor:
    """ln softmax(X X^T / sqrt(d)) of one text without its padding, ``[heads, length, length]``."""
    x = states[:length].view(length, heads, -1).transpose(0, 1)
    scores = x @ x.transpose(1, 2) / x.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    return scores.log_softmax(-1)


def relation_distance(mine: Tensor, its: Tensor, mask: Tensor, heads: int, causal: bool) -> Tensor:
    total, tokens = torch.zeros(()), 0
    for row, length in enumerate(mask.sum(1).tolist()):
        wanted, given = relations(its[row], length, heads, causal), relations(mine[row], length, heads, causal)
        total = total + torch.where(wanted > -torch.inf, wanted.exp() * (wanted - given), 0.0).nan_to_num(0.0).sum()
        tokens += length
    return total / (heads * tokens)


CASES: dict[str, tuple[dict[str, Any], dict[int, int]]] = {
    "by the uniform map": ({"layer_map": "uniform"}, {0: 1, 1: 3}),
    "by the top layers": ({"layer_map": "top"}, {0: 2, 1: 3}),
    "by a list": ({"layer_map": (3, 0)}, {0: 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_states_and_relations_of_the_layers_that_belong_together(case: str, tmp_path: Path) -> None:
    """A BERT of two layers, narrower than its teacher of four: projections are learned along; queries, keys and values count alike."""
    dials, pairs = CASES[case]
    teacher, inputs = lesson("bert", tmp_path, num_hidden_layers=4)
    config = Distill(
        **FEW_STEPS | {"warmup": 0.0}, answers=0.0, hidden=0.7, embeddings=0.3, attention=0.2, relation_heads=2, **dials,
        student=Shape(layers=2, hidden=16, heads=2, neurons=24),
    )  # fmt: skip
    source = still("bert", seed=1, num_hidden_layers=4)
    assert config.student is not None
    student = fresh_student(source, config.student, inputs.seed)
    maps = projections("hidden", "embeddings", widths=(16, 32), seed=inputs.seed)
    trained = dict(student.torch_network.named_parameters()) | {f"map.{kind}": module.weight for kind, module in maps.items()}  # type: ignore[union-attr]
    theirs = {name: tensor.detach() for name, tensor in teacher.torch_network.named_parameters()}
    features = features_by_hand(student, inputs, [*inputs.train, *inputs.unlabelled])

    def loss(output: Any, theta: Tensors, batch: Tensors, chosen: list[int]) -> Tensor:
        with torch.no_grad():
            given = {name: batch[name] for name in ("input_ids", "attention_mask")}
            its = teacher.torch_network(**given, output_hidden_states=True).hidden_states
        text, mine = batch["attention_mask"].bool(), output.hidden_states
        states = [((mine[m + 1] @ theta["map.hidden"].T - its[n + 1])[text] ** 2).mean() for m, n in pairs.items()]
        embedded = ((mine[0] @ theta["map.embeddings"].T - its[0])[text] ** 2).mean()
        related = []
        for m, n in pairs.items():
            for ours, wanted in zip(split_of("bert", theta, str(m), mine[m], 16), split_of("bert", theirs, str(n), its[n], 32), strict=True):
                related.append(relation_distance(ours, wanted, batch["attention_mask"], 2, causal=False))
        return 0.7 * sum(states) / len(states) + 0.3 * embedded + 0.2 * sum(related) / len(related)  # type: ignore[no-any-return]

    expected = train_by_hand(student, inputs, config, features=features, trained=trained, loss=loss)
    same(get_method("distill").run(source, config, inputs), expected)


@pytest.mark.parametrize("method", ["distill", "distill_base"])
def test_a_decoder_learns_next_tokens_and_the_relations_that_it_may_see(method: str, tmp_path: Path) -> None:
    teacher, inputs = lesson("gpt2", tmp_path)
    dials: dict[str, Any] = {"temperature": 1.5, "attention": 0.2, "hidden": 0.5, "states_loss": "cosine", "layer_map": (1, 0)}
    if method == "distill":
        student, config = still("gpt2", seed=1), Distill(**FEW_STEPS, **dials)
    else:
        config = DistillBase(
            **FEW_STEPS, **dials | {"layer_map": (1,), "hidden": 0.0}, layers=1
        )  # of one layer, transformers gives the states behind the last norm only  # type: ignore[assignment]
        base = from_base(tmp_path / "teacher", inputs.benchmark.name, (), 16, 0)
        student = some_layers(base, 1)
        for name, parameter in student.torch_network.named_parameters():
            assert parameter.equal(dict(teacher.torch_network.named_parameters())[name]), "it begins with the base model's own layers"
    theirs = {name: tensor.detach() for name, tensor in teacher.torch_network.named_parameters()}
    features = features_by_hand(student, inputs, [*inputs.train, *inputs.unlabelled])

    def loss(output: Any, theta: Tensors, batch: Tensors, chosen: list[int]) -> Tensor:
        with torch.no_grad():
            given = {name: batch[name] for name in ("input_ids", "attention_mask")}
            asked = teacher.torch_network(**given, output_hidden_states=True)
        text = batch["attention_mask"].bool()
        answers = softened(output.logits, asked.logits, 1.5)[text & (batch["labels"] != -100)].mean()
        mine, its = split_of("gpt2", theta, "0", output.hidden_states[0], 32), split_of("gpt2", theirs, "0", asked.hidden_states[0], 32)
        related = [relation_distance(a, b, batch["attention_mask"], 4, causal=True) for a, b in zip(mine, its, strict=True)]
        loss = answers + 0.2 * sum(related) / 3
        if method == "distill_base":
            return loss  # type: ignore[no-any-return]
        cosine = torch.nn.functional.cosine_similarity(output.hidden_states[1], asked.hidden_states[1], dim=-1)[text]
        return loss + 0.5 * (1 - cosine).mean()  # type: ignore[no-any-return]

    expected = train_by_hand(student, inputs, config, features=features, loss=loss)
    source = still("gpt2", seed=1)
    same(get_method(method).run(source, config, inputs), expected)
