"""Both runtimes answer alike, in order, whatever the batches; the ONNX one needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from recompress.errors import InputError, IntegrityError
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load
from recompress.runtimes import open_runtime, processor, runtime_of
from recompress.runtimes.batches import answer, batches_of, pad_batch
from recompress.runtimes.cutting import NBITS, ONNX
from recompress.runtimes.turned import turn_constants
from tests.families import checkpoint_of, features_of, inputs_of, saved


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text classifier as torch (``torch``) and as ONNX (``onnx``), int8 (``int8``)."""
    place = tmp_path_factory.mktemp("exported")
    saved("roberta", place / "torch", "text-classification")
    get_method("onnx_fp32")
    for name, target in (("onnx_fp32", "onnx"), ("dynamic_int8", "int8")):
        run_step(name, get_method(name).config(), place / "torch", place / target, inputs_of(place / f"work-{target}", "text-classification"))
    return place


@pytest.mark.parametrize("benchmark", ["token-classification", "text-classification"])
def test_answers_do_not_depend_on_batches_and_keep_their_order(benchmark: str) -> None:
    checkpoint = checkpoint_of("roberta", benchmark)
    features = features_of(checkpoint, 11)
    runtime = runtime_of(checkpoint)
    one_by_one = [runtime.logits([feature])[0] for feature in features]
    for size in (2, 5, 32):
        for expected, output in zip(one_by_one, runtime.logits(features, size), strict=True):
            np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    lengths = [len(feature["input_ids"]) for feature in features]
    assert [logits.shape for logits in one_by_one] == ([(n, 3) for n in lengths] if benchmark == "token-classification" else [(3,)] * 11)


def test_onnx_answers_like_torch_in_any_batch(exported: Path) -> None:
    torch_runtime, onnx_runtime = open_runtime(exported / "torch"), open_runtime(exported / "onnx")
    assert (torch_runtime.name, onnx_runtime.name) == ("torch", "onnx")
    features = features_of(load(exported / "torch"), 9)
    for size in (1, 4, 32):
        for expected, logits in zip(torch_runtime.logits(features), onnx_runtime.logits(features, size), strict=True):
            np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_int8_answers_nearly_like_torch(exported: Path) -> None:
    features = features_of(load(exported / "torch"), 30)
    expected = np.stack(open_runtime(exported / "torch").logits(features))
    logits = np.stack(open_runtime(exported / "int8").logits(features))
    assert not np.array_equal(logits, expected)
    assert np.abs(logits - expected).mean() < 0.1 * np.abs(expected - expected.mean(0)).mean() + 0.05


def test_nothing_asked_nothing_answered(exported: Path) -> None:
    for name in ("torch", "onnx"):
        assert open_runtime(exported / name).logits([]) == []


def test_serving_onnx_imports_neither_torch_nor_transformers(exported: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from recompress.runtimes import open_runtime\n"
        "print(open_runtime(Path(sys.argv[1])).logits([{'input_ids': [0, 9, 2]}])[0].shape)\n"
        "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(exported / "int8")], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "(3,)\n", "")


def test_threads_are_given_back() -> None:
    usual = torch.get_num_threads()
    checkpoint = checkpoint_of("bert")
    seen = []
    checkpoint.torch_network.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    runtime_of(checkpoint, threads=usual + 1).logits(features_of(checkpoint))
    assert seen == [usual + 1]
    assert torch.get_num_threads() == usual


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads: int, exported: Path) -> None:
    with pytest.raises(InputError, match="threads is at least 1"):
        open_runtime(exported / "onnx", threads)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_graph_that_is_cut_off_is_refused(share: float, exported: Path, tmp_path: Path) -> None:
    broken = copy_of(exported / "onnx", tmp_path / "model")
    data = (broken / "model.onnx").read_bytes()
    (broken / "model.onnx").write_bytes(data[: int(share * len(data))])
    for reader in (load, open_runtime):
        with pytest.raises(IntegrityError, match=r"model\.onnx is cut off or broken") as caught:
            reader(broken)
        assert "\n" not in str(caught.value)
    (broken / "model.onnx").unlink()
    for reader in (load, open_runtime):
        with pytest.raises(InputError, match=r"model\.onnx"):
            reader(broken)


@pytest.mark.parametrize("location", ["../secret.bin", "weights.bin", "/etc/hostname"])
def test_a_graph_that_reads_other_files_is_refused(location: str, exported: Path, tmp_path: Path) -> None:
    broken = copy_of(exported / "onnx", tmp_path / "model")
    for place in (tmp_path / "secret.bin", broken / "weights.bin"):
        place.write_bytes(np.zeros(4, np.float32).tobytes())
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), broken / "model.onnx")
    with pytest.raises(IntegrityError):
        load(broken)
    if location != "weights.bin":
        with pytest.raises(IntegrityError):
            open_runtime(broken)


def copy_of(model: Path, target: Path) -> Path:
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_padding_stands_on_the_right_and_is_masked() -> None:
    batch = pad_batch([{"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [1]}, {"input_ids": [5], "attention_mask": [1], "labels": [0]}], 9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert set(batch) == {"input_ids", "attention_mask"}
    assert pad_batch([{"input_ids": [1, 2]}, {"input_ids": [3]}], 0)["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_batches_hold_similar_lengths_and_every_feature_once() -> None:
    features = [{"input_ids": [1] * n} for n in (9, 1, 5, 2, 8)]
    assert [rows for rows, _ in batches_of(features, 0, 2, ONNX)] == [[1, 3], [2], [4, 0]]
    assert [rows for rows, _ in batches_of(features, 0, 5, NBITS)] == [[1, 3], [2], [4, 0]]
    assert [rows for rows, _ in batches_of(features, 0, 5, ONNX)] == [[1, 3, 2, 4, 0]]
    lengths = answer(features, lambda batch: batch["attention_mask"].sum(1).astype(np.float32), 0, 2)
    assert [int(length) for length in lengths] == [9, 1, 5, 2, 8]


def test_a_processor_without_vnni_is_recognised(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, exported: Path, tmp_path: Path) -> None:
    for machine, flags, expected in (
        ("x86_64", {"avx2"}, True),
        ("x86_64", {"avx2", "avx_vnni"}, False),
        ("aarch64", {"avx2"}, False),
        ("AMD64", set(), False),
    ):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        monkeypatch.setattr(processor, "_flags", lambda flags=flags: flags)
        assert processor.int8_overflows.__wrapped__() is expected
    monkeypatch.setattr("recompress.runtimes.onnx_runtime.int8_overflows", lambda: True)
    model = copy_of(exported / "int8", tmp_path / "model")
    info = json.loads((model / "recompress.json").read_text())
    for narrow in (True, False):  # whatever the processor is that made it
        (model / "recompress.json").write_text(json.dumps({**info, "onnx": {**info["onnx"], "reduce_range": narrow}}))
        open_runtime(model)
        assert ("lacks VNNI" in caplog.text) is not narrow


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runtime_takes_the_threads_that_it_was_given(threads: int, exported: Path) -> None:
    session = open_runtime(exported / "onnx", threads).session  # type: ignore[attr-defined]
    assert session.get_session_options().intra_op_num_threads == threads


def test_texts_are_filled_up_with_the_token_that_the_model_names(exported: Path, tmp_path: Path) -> None:
    model = copy_of(exported / "onnx", tmp_path / "model")
    info = json.loads((model / "recompress.json").read_text())
    info["onnx"]["pad_id"] = 7
    (model / "recompress.json").write_text(json.dumps(info))
    assert open_runtime(model).pad_id == 7  # type: ignore[attr-defined]


def test_a_constant_that_is_turned_at_each_run_is_stored_turned() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    x, y = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3]), helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [onnx.numpy_helper.from_array(matrix, "w")]))
    turn_constants(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).tolist() == matrix.T.tolist()
