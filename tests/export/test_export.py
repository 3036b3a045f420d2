"""Exported folders, read by the runtimes that they are for and by nothing of this project; and what cannot be exported says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.errors import InputError, IntegrityError
from recompress.export import FORMATS, check_export, export, openvino_folder
from recompress.export.onnx_folder import QUANTIZED
from recompress.integrity.signing import public_pem
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models import onnx_graph
from recompress.models.checkpoint import read_info, save
from recompress.models.gguf.tokens import PRE
from recompress.runtimes import open_runtime
from tests.evidence.stories import KEY, OTHER
from tests.six import CLASSIFIERS, KIN, SIX, checkpoint_of, inputs_of, texts

QUICK = ("bert", "llama")
"""One family of each kind: each takes an exporter that needs seconds. The others are tried where minutes are."""


def model(place: Path, family: str, *steps: tuple[str, dict[str, Any]]) -> Path:
    """A model directory after these steps."""
    save(checkpoint_of(family), place / "0")
    for number, (name, dials) in enumerate(steps, start=1):
        inputs = inputs_of(family, place / f"work {number}")
        run_step(name, get_method(name).config.model_validate(dials), place / str(number - 1), place / str(number), inputs)
    return place / str(len(steps))


def cut_as_qwen(directory: Path) -> None:
    """Its tokenizer becomes one of the only kind that transformers knows a qwen2 by."""
    definition = json.loads((directory / "tokenizer.json").read_text())
    definition |= {"pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE["qwen2"]}, "normalizer": {"type": "NFC"}}
    (directory / "tokenizer.json").write_text(json.dumps(definition))


@pytest.mark.parametrize("to", ["onnx", "transformers", "openvino"])
@pytest.mark.parametrize("family", [family if family in QUICK else pytest.param(family, marks=pytest.mark.long) for family in (*SIX, *KIN, *CLASSIFIERS)])
def test_every_family_answers_as_before_in_every_format(tmp_path: Path, family: str, to: str) -> None:
    if to == "openvino":
        pytest.importorskip("openvino")
    directory = model(tmp_path, family)
    if family == "qwen2":
        cut_as_qwen(directory)
    done = export(directory, tmp_path / "out", to, examples=texts(8))
    assert done.agreement.texts >= 1
    assert done.agreement.largest_change < FORMATS[to].close(read_info(tmp_path / "0"))
    assert check_export(tmp_path / "out", None).to == to


def test_a_tokenizer_that_plain_transformers_would_build_otherwise_is_refused(tmp_path: Path) -> None:
    """Of a qwen2 it takes the class that it knows, whatever stands in the folder."""
    directory = model(tmp_path, "qwen2")
    with pytest.raises(InputError, match=r"reads the tokenizer of .* as a Qwen2Tokenizer, which cuts .* otherwise; export it --to onnx"):
        export(directory, tmp_path / "out", "transformers", examples=texts(4))
    assert not (tmp_path / "out").exists()
    cut_as_qwen(directory)
    export(directory, tmp_path / "out", "transformers", examples=texts(4))
    assert [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize(
    "steps",
    [
        [("dynamic_int8", {})],
        [("dynamic_int8", {"embeddings": "int4"})],
        [("prune_structure", {"heads": 0.5, "neurons": 0.5}), ("dynamic_int8", {})],
        [("rtn", {"group_size": 16}), ("onnx_nbits", {})],
    ],
    ids=str,
)
def test_quantized_and_pruned_models_are_exported_as_they_are_served(tmp_path: Path, steps: list[tuple[str, dict[str, Any]]], to: str) -> None:
    if to == "openvino":
        pytest.importorskip("openvino")
    directory = model(tmp_path, "bert", *steps)
    export(directory, tmp_path / "out", to, examples=texts(8))
    if to == "onnx":
        assert [path.name for path in (tmp_path / "out" / "onnx").iterdir()] == [QUANTIZED]


def test_the_onnx_folder_needs_nothing_but_onnxruntime_and_tokenizers(tmp_path: Path) -> None:
    """The lines of its README, as a reader would type them."""
    import onnxruntime
    import tokenizers

    directory = model(tmp_path, "distilbert", ("dynamic_int8", {}))
    export(directory, tmp_path / "out", "onnx", examples=texts(4))
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "onnx" / QUANTIZED))
    for example in texts(4):
        ids = tokenizer.encode(" ".join(example.words)).ids
        [logits] = session.run(None, {"input_ids": [ids], "attention_mask": [[1] * len(ids)]})
        np.testing.assert_allclose(logits[0], open_runtime(directory).logits([{"input_ids": ids}], batch_size=1)[0], rtol=1e-5)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == read_info(directory).max_length
    labels = json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]
    assert tuple(labels[str(i)] for i in range(len(labels))) == read_info(directory).labels


@pytest.mark.parametrize(
    ("steps", "to", "why"),
    [
        ([("rtn", {"bits": 4})], "onnx", "packed weights, which no ONNX graph can hold"),
        ([("rtn", {"bits": 4})], "transformers", "on the packed runtime, .*; export it --to compressed-tensors"),
        ([("dynamic_int8", {})], "transformers", "on the onnx runtime, .*; export it --to onnx"),
        ([("prune_structure", {"heads": 0.5})], "transformers", "cannot say the heads of its layers"),
        ([("svd", {"parameters": 0.5})], "transformers", "for which transformers has no place"),
        ([], "tflite", "unknown format 'tflite'"),
    ],
    ids=str,
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path, steps: list[tuple[str, dict[str, Any]]], to: str, why: str) -> None:
    directory = model(tmp_path, "bert", *steps)
    with pytest.raises(InputError, match=why):
        export(directory, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_what_openvino_cannot_read_is_said_in_its_own_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first are places in its own code."""
    pytest.importorskip("openvino")
    zeros = model(tmp_path / "zeros", "bert", ("rtn", {"group_size": 16, "embeddings": True}), ("onnx_nbits", {}))
    with pytest.raises(InputError, match="packed token embeddings with zero points, in which OpenVINO cannot look up; pack them with symmetric: true"):
        export(zeros, tmp_path / "out", "openvino")
    monkeypatch.setattr(openvino_folder, "settle_tables", lambda graph: None)
    reshaped = model(tmp_path / "reshaped", "bert", ("dynamic_int8", {"embeddings": "int4"}))
    with pytest.raises(InputError, match="cannot read the graph of .*: Conversion is failed for: com.microsoft.GatherBlockQuantized; export it --to onnx"):
        export(reshaped, tmp_path / "out", "openvino")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["onnx", "transformers"])
def test_files_that_answer_otherwise_are_never_left_there(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model's files are written, as a fault in the writer would."""
    directory = model(tmp_path, "distilbert")
    save(checkpoint_of("distilbert", seed=1), tmp_path / "other")
    usual = FORMATS[to]
    monkeypatch.setitem(FORMATS, to, replace(usual, write=lambda _, info, target: usual.write(tmp_path / "other", info, target)))  # type: ignore[index]
    with pytest.raises(IntegrityError, match="the exported model answers 2 random tokens otherwise: a logit differs by"):
        export(directory, tmp_path / "out", to, examples=texts(4))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps", [[], [("dynamic_int8", {})]], ids=str)
def test_why_openvino_answers_otherwise_in_8_bits_is_said_with_the_way_out(
    tmp_path: Path, steps: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    directory, usual = model(tmp_path, "distilbert", *steps), FORMATS["openvino"]

    def moved(target: Path, info: Any) -> Any:
        return lambda features: [logits + 0.1 * np.abs(logits).max() for logits in usual.reader(target, info)(features)]

    monkeypatch.setitem(FORMATS, "openvino", replace(usual, reader=moved))  # type: ignore[index]
    with pytest.raises(IntegrityError) as refused:
        export(directory, tmp_path / "out", "openvino", examples=texts(4))
    assert str(refused.value).endswith("or a model in floats --to openvino") == bool(steps)
    assert not (tmp_path / "out").exists()


def test_a_changed_folder_is_found_and_a_signature_tells_whose_it_is(tmp_path: Path) -> None:
    directory, out = model(tmp_path, "distilbert"), tmp_path / "out"
    export(directory, out, "transformers", facts={"model": "topics", "version": "3"}, key=KEY)
    known = check_export(out, KEY.public_key())
    assert (known.signed, known.facts) == (True, {"model": "topics", "version": "3"})
    assert "# topics" in (out / "README.md").read_text()
    with pytest.raises(IntegrityError):
        check_export(out, OTHER.public_key())
    for name, change in (("config.json", b" "), ("README.md", b"x"), ("recompress-export.json", b" ")):
        changed = tmp_path / f"changed {name}"
        shutil.copytree(out, changed)
        (changed / name).write_bytes((changed / name).read_bytes() + change)
        with pytest.raises(IntegrityError):
            check_export(changed, KEY.public_key())
    (out / "more.txt").write_text("x")
    with pytest.raises(IntegrityError, match=r"more\.txt stands in"):
        check_export(out, KEY.public_key())
    (out / "more.txt").unlink()
    statement = json.loads((out / "recompress-export.json").read_text())
    assert statement["key"] == public_pem(KEY)
    export(directory, tmp_path / "unsigned", "transformers")
    assert not check_export(tmp_path / "unsigned", None).signed
    with pytest.raises(IntegrityError, match="is not signed"):
        check_export(tmp_path / "unsigned", KEY.public_key())


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_weights_that_one_file_cannot_hold_lie_beside_the_graph(tmp_path: Path, family: str, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two gibibytes are for a real model, a few kilobytes are here."""
    if to == "openvino":
        pytest.importorskip("openvino")
    directory = model(tmp_path, family)
    monkeypatch.setattr(onnx_graph, "LARGEST", 4000)
    out = tmp_path / "out"
    export(directory, out, to, examples=texts(8))
    assert check_export(out, None).to == to
    if to == "openvino":
        assert not list(out.rglob("*_data")), "OpenVINO has its weights in a file of its own"
        return
    weights = (directory / "model.safetensors").stat().st_size
    assert sorted(path.name for path in (out / "onnx").iterdir()) == ["model.onnx", "model.onnx_data"]
    assert (out / "onnx" / "model.onnx").stat().st_size < weights < 2 * (out / "onnx" / "model.onnx_data").stat().st_size
    assert len({path.stat().st_mode for path in (out / "onnx").iterdir()}) == 1, "who may read the one may read the other"
    assert json.loads((out / "config.json").read_text())["transformers.js_config"] == {"use_external_data_format": {"model.onnx": 1}}
    data = bytearray((out / "onnx" / "model.onnx_data").read_bytes())
    data[len(data) // 2] ^= 1
    (out / "onnx" / "model.onnx_data").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"onnx/model\.onnx_data"):
        check_export(out, None)


def test_a_graph_that_fits_stands_alone(tmp_path: Path) -> None:
    export(model(tmp_path, "bert"), tmp_path / "out", "onnx", examples=texts(4))
    assert [path.name for path in (tmp_path / "out" / "onnx").iterdir()] == ["model.onnx"]
    assert "transformers.js_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
