"""Training that rounds as the int8 graph does: every rounding against ONNX Runtime's own, first steps by hand, and what is handed to training is what the file computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.quant_utils import quantize_data
from pydantic import ValidationError

from recompress.errors import InputError, IntegrityError
from recompress.methods.quantization import qat_int8
from recompress.methods.quantization.dynamic_int8 import DynamicInt8, quantize_dynamic_int8
from recompress.methods.quantization.int8_in_training import as_int8, codes_of, input_steps, matrix_steps, rounded, table_steps
from recompress.methods.quantization.qat_int8 import QatInt8, distance, objective_of, prove
from recompress.methods.registry import Inputs
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.runtimes import runtime_of
from recompress.runtimes.outlines import shape_of
from recompress.runtimes.processor import int8_overflows
from recompress.training.teacher_outputs import TeacherOutputs, examples_sha256
from recompress.training.trainer import cross_entropy
from tests import six
from tests.families import TOPICS, checkpoint_of, features_of, inputs_of, saved

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "text-classification"
QUICK: dict[str, Any] = {"batch_size": 16, "learning_rate": 3e-3, "hard_labels": 1.0}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs_to_products() -> list[torch.Tensor]:
    both = drawn(7, 12)
    return [both, both.abs() + 1, -both.abs() - 1, both * 1e-4, both * torch.tensor([1e3] + [1.0] * 11), torch.zeros(2, 12), torch.arange(24.0).view(2, 12) / 2]


@pytest.mark.parametrize("received", inputs_to_products())
@pytest.mark.parametrize("reduced", [False, True])
def test_a_product_is_what_onnx_runtime_computes(received: torch.Tensor, reduced: bool) -> None:
    """DynamicQuantizeLinear and MatMulInteger on the codes of the weight; codes exactly, products but for the order of sums."""
    if not reduced and int8_overflows():
        pytest.skip("on this processor, which lacks VNNI, ONNX Runtime's sums of 8-bit products overflow; 7 bits are tried")
    weight = drawn(5, 12, seed=1)
    steps = matrix_steps(weight, per_channel=True, reduced=reduced)
    codes = codes_of(weight, steps).to(torch.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["u", "t", "z"]),
        helper.make_node("MatMulInteger", ["u", "q", "z"], ["sums"]),
    ]
    outputs = [("u", TensorProto.UINT8), ("t", TensorProto.FLOAT), ("z", TensorProto.UINT8), ("sums", TensorProto.INT32)]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 12])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        [numpy_helper.from_array(codes.T.contiguous().numpy(), "q")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    u, t, z, sums = session.run(None, {"x": received.numpy()})
    ours = input_steps(received)
    assert float(ours.scale) == t
    assert float(ours.zero) == z
    assert np.array_equal(codes_of(received, ours).numpy(), u)
    product = rounded(received, ours) @ rounded(weight, steps).T
    torch.testing.assert_close(
        product, torch.from_numpy((sums * t * steps.scale.T.numpy()).astype(np.float32)), rtol=1e-5, atol=1e-5 * float(product.abs().max())
    )


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_codes_of_weights_are_those_of_the_quantizer(per_channel: bool, reduced: bool) -> None:
    weight = drawn(6, 40)
    weight[2] = 0
    weight[3] *= 100
    steps = matrix_steps(weight, per_channel=per_channel, reduced=reduced)
    for rows in weight[:, None] if per_channel else weight[None]:
        _, scale, codes = quantize_data(rows.numpy(), TensorProto.INT8, True, reduce_range=reduced)
        at = [i for i in range(6) if (weight[i] == rows[0]).all()] if per_channel else list(range(6))
        assert np.array_equal(codes_of(weight, steps)[at].numpy(), codes)
        assert (steps.scale.expand(6, 1)[at].numpy() == scale).all()
    assert codes_of(weight, steps).abs().max() == (64 if reduced else 127)


@pytest.mark.parametrize("table", [*(drawn(9, 4, seed=seed) for seed in range(6)), drawn(9, 4).abs(), -drawn(9, 4).abs(), torch.zeros(3, 4)])
def test_codes_of_tables_are_those_of_the_quantizer(table: torch.Tensor) -> None:
    steps = table_steps(table)
    zero, scale, codes = quantize_data(table.numpy(), TensorProto.UINT8, False)
    assert (float(steps.scale), float(steps.zero)) == (scale, zero)
    assert np.array_equal(codes_of(table, steps).numpy(), codes)


def test_the_gradient_goes_straight_through_and_stops_where_codes_were_cut_off() -> None:
    steps = input_steps(torch.tensor([-1.0, 2.0]))
    values, slope = (3 * drawn(200)).requires_grad_(), drawn(200, seed=1)
    (rounded(values, steps) * slope).sum().backward()
    places = [round(float(value / steps.scale)) + float(steps.zero) for value in values.detach()]
    expected = [float(s) if 0 <= place <= 255 else 0.0 for place, s in zip(places, slope, strict=True)]
    assert values.grad is not None
    assert values.grad.tolist() == expected
    assert 0 < expected.count(0.0) < 200


def test_first_steps_by_hand() -> None:
    """A linear layer, its weights and inputs rounded, two steps of gradient descent: numpy's, with the rounding written out."""
    weight, aims = drawn(3, 8, seed=2), [drawn(5, 3, seed=seed) for seed in (3, 4)]
    batches = [drawn(5, 8, seed=5), 4 * drawn(5, 8, seed=6).abs()]
    network = torch.nn.Sequential(torch.nn.Linear(8, 3, bias=False))
    network[0].weight.data.copy_(weight)
    by_hand = weight.double().numpy()
    with as_int8(network, per_channel=True, reduced=False, embeddings=True):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for batch, aim in zip(batches, aims, strict=True):
            optimizer.zero_grad()
            ((network(batch) - aim) ** 2).sum().backward()
            optimizer.step()
            scale = np.abs(by_hand).max(axis=1, keepdims=True) / 127
            w = np.rint(by_hand / scale) * scale
            x = batch.double().numpy()
            low, high = min(x.min(), 0), max(x.max(), 0)
            t = (high - low) / 255
            z = np.rint(-low / t)
            x = (np.clip(np.rint(x / t) + z, 0, 255) - z) * t
            by_hand = by_hand - 0.1 * 2 * (x @ w.T - aim.double().numpy()).T @ x
    np.testing.assert_allclose(network[0].weight.detach().numpy(), by_hand, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in network.named_parameters()] == ["0.weight"]


def test_what_several_layers_receive_is_rounded_once_and_learned_from_by_all() -> None:
    """Queries, keys and values read one tensor; the next batch, in the same place of the memory perhaps, is rounded anew."""

    class Three(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(torch.nn.Linear(6, 2) for _ in range(3))

        def forward(self, received: torch.Tensor) -> torch.Tensor:
            return sum((part(received) for part in self.parts), torch.zeros(()))

    network = Three()
    with as_int8(network, per_channel=True, reduced=False, embeddings=False):
        for seed in range(3):
            received = drawn(4, 6, seed=seed).requires_grad_()
            network(received).sum().backward()
            expected = sum(part.weight.detach().sum(0) for part in network.parts).expand(4, 6)
            steps = input_steps(received.detach())
            places = (received.detach() / steps.scale).round() + steps.zero
            torch.testing.assert_close(received.grad, expected * ((places >= 0) & (places <= 255)))


@pytest.mark.parametrize("family", six.SIX)
def test_what_was_trained_so_is_the_network_that_it_was_but_for_values(family: str) -> None:
    """In the order of its parameters too, so that its file and its graph are laid out as they were."""
    network = six.checkpoint_of(family).torch_network
    names, shape = list(network.state_dict()), shape_of(network, ("input_ids", "attention_mask"))
    with as_int8(network, per_channel=True, reduced=False, embeddings=True):
        assert list(network.state_dict()) != names
    assert (list(network.state_dict()), shape_of(network, ("input_ids", "attention_mask"))) == (names, shape)


def step(place: Path, inputs: Inputs, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        saved("bert", place / "source", TEXT)
    return run_step("qat_int8", QatInt8(**(QUICK | dials)), place / "source", place / "target", inputs)


@pytest.mark.parametrize("dials", [{}, {"per_channel": False}, {"reduce_range": True}, {"embeddings": False}], ids=str)
def test_what_is_handed_to_training_answers_as_the_graph(dials: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network in training and ``dynamic_int8``'s file of the same weights are alike, ten times nearer than either is to the floats.

    A value that lies between two codes to the last bit goes either way, as the libraries add up in another order. One such code, in about one text of thirty, is
    the next layer's other range, and the answers of a network that was never trained then drift apart; any mistake in the rounding moves all of them.
    """
    source = checkpoint_of("bert", TEXT)
    features, answers = features_of(source, 12), []
    floats = runtime_of(source).logits(features)
    save(source, tmp_path / "source")

    def look(checkpoint: Checkpoint, *_: Any, **__: Any) -> Checkpoint:
        answers.extend(runtime_of(checkpoint).logits(features, 1))  # one by one, as the graph is asked
        return checkpoint

    monkeypatch.setattr(qat_int8, "train_in_step", look)
    inputs = inputs_of(tmp_path, TEXT)
    qat_int8.train_qat_int8(source, QatInt8(hard_labels=1, **dials), inputs)
    (tmp_path / "file").mkdir()
    graph = quantize_dynamic_int8(load(tmp_path / "source"), DynamicInt8(**dials), replace(inputs, workdir=tmp_path / "file"))
    served = runtime_of(replace_runtime(graph)).logits(features)
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "file" / "model.onnx").read_bytes()
    apart = [distance([one], [other]) for one, other in zip(served, answers, strict=True)]
    assert sum(far > 1e-4 for far in apart) <= len(apart) // 6
    assert distance(served, floats) > 1e-3
    after_training = runtime_of(source).logits(features)
    assert all(np.array_equal(was, now) for was, now in zip(floats, after_training, strict=True)), "the rounding stayed in the network"


@pytest.mark.parametrize("dials", [{}, {"per_channel": False, "reduce_range": True, "embeddings": False}], ids=str)
def test_the_file_has_the_codes_that_were_trained_and_dynamic_int8s_bytes(dials: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the answers all but a few are the same; a value between two codes goes either way, as above."""
    apart: list[list[float]] = []

    def text_by_text(ours: list[Any], theirs: list[Any]) -> float:
        apart.append([distance([one], [other]) for one, other in zip(ours, theirs, strict=True)])
        return distance(ours, theirs)

    monkeypatch.setattr(qat_int8, "distance", text_by_text)
    report = step(tmp_path, inputs_of(tmp_path / "work", TEXT), **dials)
    run_step("dynamic_int8", DynamicInt8(**dials), tmp_path / "source", tmp_path / "plain", inputs_of(tmp_path / "work-plain", TEXT))
    files = [tmp_path / name / "model.onnx" for name in ("target", "plain")]
    assert len({file.stat().st_size for file in files}) == 1
    assert files[0].read_bytes() != files[1].read_bytes()
    operators = [[(node.op_type, *node.input) for node in onnx.load(file).graph.node] for file in files]
    assert operators[0] == operators[1]
    settings = [load(tmp_path / name).info.onnx for name in ("target", "plain")]
    assert settings[0] == settings[1]
    measured = {claim["what"]: claim["measured"] for claim in report.claims}
    assert measured["share of matrices with the codes that were trained with"] == 1
    assert measured["share of matrices with the codes from before"] == 0
    assert sum(far > 1e-5 for far in apart[0]) <= len(apart[0]) // 6
    assert all(far > 1e-5 for far in apart[1]), "the network whose weights alone are rounded is another"


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_the_same_seed_gives_the_same_weights_and_what_was_pruned_stays_zero(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat_int8, "quantize_dynamic_int8", lambda trained, *_: trained)
    ends = []
    for name in ("once", "again"):
        source = checkpoint_of(family)
        masks = {}
        for path, linear in encoder_linears(source.torch_network):
            linear.weight.data[drawn(*linear.weight.shape) < 0] = 0
            masks[path] = linear.weight.detach() == 0
        ends.append(qat_int8.train_qat_int8(source, QatInt8(**QUICK), inputs_of(tmp_path / name)).torch_network.state_dict())
        assert all((ends[-1][f"{path}.weight"][mask] == 0).all() and (ends[-1][f"{path}.weight"][~mask] != 0).all() for path, mask in masks.items())
    assert all(tensor.equal(ends[1][name]) for name, tensor in ends[0].items())
    assert not all(tensor.equal(ends[0][name]) for name, tensor in checkpoint_of(family).torch_network.state_dict().items())


def teacher_of(inputs: Inputs, seed: int) -> TeacherOutputs:
    """A teacher that has decided on something for each text."""
    logits = 10 * drawn(len(inputs.train), len(TOPICS), seed=seed).numpy()
    return TeacherOutputs(logits, np.arange(len(logits) + 1), TOPICS, examples_sha256(inputs.train), "", str(seed))


@pytest.mark.parametrize("hard", [0.0, 0.5, 1.0])
def test_whom_training_listens_to(hard: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another teacher gives other weights unless labels alone count, and then none is needed."""
    monkeypatch.setattr(qat_int8, "quantize_dynamic_int8", lambda trained, *_: trained)
    ends = []
    for seed in (0, 1):
        inputs = inputs_of(tmp_path / str(seed), TEXT)
        inputs = replace(inputs, teacher=None if seed and hard == 1 else teacher_of(inputs, seed))
        trained = qat_int8.train_qat_int8(checkpoint_of("bert", TEXT), QatInt8(**(QUICK | {"hard_labels": hard})), inputs)
        ends.append(trained.torch_network.state_dict()["classifier.weight"])
    assert ends[0].equal(ends[1]) == (hard == 1)


def test_a_network_comes_near_to_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that always says the last topic, and is judged by that on dev: whoever listens to it is as sure of it, and who listens to the labels is not."""
    monkeypatch.setattr(qat_int8, "quantize_dynamic_int8", lambda trained, *_: trained)
    inputs = inputs_of(tmp_path, TEXT)
    teacher = replace(teacher_of(inputs, 0), logits=np.tile(np.float32([-4, -4, 4]), (len(inputs.train), 1)))
    dev = [replace(example, labels=TOPICS[-1:]) for example in inputs.train]
    sure = {}
    for hard in (0.0, 1.0):
        given = replace(inputs, teacher=teacher, dev=dev, workdir=tmp_path / str(hard))
        trained = qat_int8.train_qat_int8(checkpoint_of("bert", TEXT), QatInt8(**(QUICK | {"hard_labels": hard, "epochs": 4})), given)
        answers = torch.from_numpy(np.stack(runtime_of(trained).logits(features_of(trained, len(inputs.train)))))
        sure[hard] = float(answers.softmax(-1)[:, -1].mean())
    assert sure[0.0] > 0.9
    assert sure[1.0] < 0.7


def test_each_text_has_the_answer_of_the_teacher_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: dict[str, Any] = {}
    monkeypatch.setattr(qat_int8, "train_in_step", lambda checkpoint, *_, **how: handed.update(how) or checkpoint)
    monkeypatch.setattr(qat_int8, "quantize_dynamic_int8", lambda trained, *_: trained)
    inputs = inputs_of(tmp_path, TEXT)
    teacher = teacher_of(inputs, 0)
    qat_int8.train_qat_int8(checkpoint_of("bert", TEXT), QatInt8(hard_labels=0.5), replace(inputs, teacher=teacher))
    assert np.array_equal(np.concatenate(handed["soft_labels"]), teacher.logits)
    assert handed["depends_on"] == {"teacher": teacher.sha256}


def test_the_loss_is_the_formula() -> None:
    logits, teacher, labels = drawn(4, 2, 3), drawn(4, 2, 3, seed=1), torch.tensor([[0, 1], [2, -100], [1, 1], [0, 2]])
    teacher[1, 1] = 0  # a unit that the teacher never saw
    config = QatInt8(hard_labels=0.3, temperature=2)
    wanted, given = (torch.softmax(which / 2, -1) for which in (teacher, logits))
    each = (wanted * (wanted / given).log()).sum(-1)
    soft = 4 * each[teacher.any(-1)].mean()
    expected = 0.7 * soft + 0.3 * cross_entropy(logits, labels)
    torch.testing.assert_close(objective_of(config)(logits, {"labels": labels, "teacher": teacher}), expected)
    torch.testing.assert_close(objective_of(QatInt8(hard_labels=1))(logits, {"labels": labels}), cross_entropy(logits, labels))


def broken(claims: list[Any]) -> set[str]:
    return {claim.what for claim in claims if not claim.kept}


def test_a_file_of_other_weights_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of the weights from before, and one whose inputs are not rounded as they come."""
    source = saved("bert", tmp_path / "source", TEXT)
    inputs = inputs_of(tmp_path / "work", TEXT)
    config = QatInt8(**QUICK)
    done = qat_int8.train_qat_int8(load(source), config, inputs)
    done = replace_runtime(done)
    assert not broken(prove(load(source), done, config, inputs))
    plain = replace_runtime(quantize_dynamic_int8(load(source), DynamicInt8(), inputs_in(inputs, tmp_path / "plain")))
    assert {"share of matrices with the codes that were trained with", "share of matrices with the codes from before"} <= broken(
        prove(load(source), plain, config, inputs)
    )
    real: Callable[..., Any] = qat_int8.as_int8
    monkeypatch.setattr(qat_int8, "as_int8", lambda network, **dials: real(network, **(dials | {"inputs": not dials.get("inputs", True)})))
    assert "the same, below that from weights rounded alone" in broken(prove(load(source), done, config, inputs))


def replace_runtime(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint(checkpoint.network, checkpoint.tokenizer, replace(checkpoint.info, runtime="onnx"))


def inputs_in(inputs: Inputs, folder: Path) -> Inputs:
    folder.mkdir()
    return replace(inputs, workdir=folder)


def test_what_is_refused(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path / "work", TEXT)
    with pytest.raises(InputError, match=r"hard_labels is 0\.5, so that qat_int8 needs the outputs of a teacher"):
        step(tmp_path, inputs, hard_labels=0.5)
    others = replace(inputs, train=inputs.train[1:], teacher=teacher_of(inputs, 0))
    with pytest.raises(IntegrityError):
        step(tmp_path, others, hard_labels=0.5)
    with pytest.raises(ValidationError):
        QatInt8(hard_labels=1.5)
    assert not (tmp_path / "target").exists()
