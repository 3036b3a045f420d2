"""Weights in 16 bits: what lies on disk, what is computed with, what takes it along and what refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recompress.errors import EffectMissing, InputError
from recompress.export import export
from recompress.measure.size import parameters, size_bytes
from recompress.methods.chain import check_chain
from recompress.methods.quantization import half_precision
from recompress.methods.quantization.half_precision import Half
from recompress.methods.registry import all_methods, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, read_info, save
from recompress.models.one_file import FILES as OTHER_RUNTIMES
from recompress.runtimes import open_runtime
from tests.six import checkpoint_of, features_of, inputs_of, texts

pytestmark = pytest.mark.usefixtures("one_thread")
NEXT_TO_IT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def step(name: str, family: str, source: Path, target: Path, **dials: Any) -> Any:
    method = get_method(name)
    return run_step(name, method.config(**dials), source, target, inputs_of(family, target.with_name(f"{target.name}-work")))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_file_holds_the_nearest_numbers_in_16_bits(family: str, dtype: str, tmp_path: Path) -> None:
    save(checkpoint_of(family), tmp_path / "source")
    report = step("half_precision", family, tmp_path / "source", tmp_path / "half", dtype=dtype)
    was, now = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "half"))
    assert was.keys() == now.keys()
    for name, tensor in was.items():
        assert str(now[name].dtype) == f"torch.{dtype}"
        assert now[name].equal(tensor.to(getattr(torch, dtype)))
        assert bool(((now[name].float() - tensor).abs() <= NEXT_TO_IT[dtype] * tensor.abs() + 1e-7).all())
    network = load(tmp_path / "half").torch_network
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert parameters(tmp_path / "half") == parameters(tmp_path / "source") == report.parameters
    saved = size_bytes(tmp_path / "source") - size_bytes(tmp_path / "half")
    assert abs(saved - 2 * report.parameters) < 2000, "two bytes of each number, give or take what the header says of them"


def test_answers_are_those_of_the_rounded_numbers(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("llama")
    save(checkpoint, tmp_path / "source")
    step("half_precision", "llama", tmp_path / "source", tmp_path / "half")
    for parameter in checkpoint.torch_network.parameters():
        parameter.data = parameter.data.half().float()
    save(checkpoint, tmp_path / "by-hand")
    features = features_of(checkpoint, "llama")
    one, other = (open_runtime(tmp_path / name).logits(features) for name in ("half", "by-hand"))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("packs", [("rtn", {"group_size": 32}), ("gptq", {"group_size": 32, "calibration_examples": 8}), ("codebook", {})])
def test_what_packs_the_layers_leaves_the_rest_in_16_bits(packs: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    save(checkpoint_of("llama"), tmp_path / "source")
    step("half_precision", "llama", tmp_path / "source", tmp_path / "half")
    step(packs[0], "llama", tmp_path / "half", tmp_path / "packed", **packs[1])
    step(packs[0], "llama", tmp_path / "source", tmp_path / "plain", **packs[1])
    stored = load_file(tmp_path / "packed" / "model.safetensors")
    assert stored["model.embed_tokens.weight"].dtype == torch.float16
    assert not any(tensor.dtype == torch.float32 for tensor in stored.values())
    assert read_info(tmp_path / "packed").floats == "float16"
    assert size_bytes(tmp_path / "packed") < size_bytes(tmp_path / "plain") - 15_000


def test_a_model_that_was_in_16_bits_before_loses_nothing_and_is_not_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    for parameter in checkpoint.torch_network.parameters():
        parameter.data = parameter.data.bfloat16().float()
    save(checkpoint, tmp_path / "source")
    report = step("half_precision", "bert", tmp_path / "source", tmp_path / "half", dtype="bfloat16")
    assert [claim["measured"] for claim in report.claims] == [2, 0, 0]


def test_weights_that_16_bits_cannot_hold_are_refused_with_the_way_out(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    next(iter(checkpoint.torch_network.parameters())).data[0, 0] = 7e4
    save(checkpoint, tmp_path / "source")
    with pytest.raises(InputError, match=r"holds a weight of 70000, above the 65,504 of float16; set dtype to bfloat16"):
        step("half_precision", "bert", tmp_path / "source", tmp_path / "half")
    assert not (tmp_path / "half").exists()
    step("half_precision", "bert", tmp_path / "source", tmp_path / "half", dtype="bfloat16")


def test_a_rounding_that_is_not_to_the_nearest_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoint_of("bert"), tmp_path / "source")
    monkeypatch.setattr(half_precision, "rounded", lambda tensor, dtype: (tensor * (1 + 2.0**-10)).half().float())
    with pytest.raises(EffectMissing, match="largest rounding of a number"):
        step("half_precision", "bert", tmp_path / "source", tmp_path / "half")


def test_numbers_that_stay_in_32_bits_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoint_of("bert"), tmp_path / "source")
    monkeypatch.setattr(half_precision, "replace", lambda info, **changes: info)
    with pytest.raises(EffectMissing, match="bytes of a number: asked for 2, measured 4"):
        step("half_precision", "bert", tmp_path / "source", tmp_path / "half")


def test_every_method_takes_it_along_or_refuses_it() -> None:
    """What packs the layers and what keeps keys and values takes it along; nobody else touches a weight behind it."""
    after = {name for name, method in all_methods().items() if name not in get_method("half_precision").not_before and name != "half_precision"}
    assert after == {name for name, method in all_methods().items() if method.gives == "packed" and name != "qat"} | {"kv_cache"}
    assert {name for name, method in all_methods().items() if method.gives in OTHER_RUNTIMES} == set(half_precision.FILES)
    with pytest.raises(InputError, match="finetune cannot follow half_precision: it changes weights.*; put half_precision behind it"):
        check_chain([("half_precision", Half()), ("finetune", get_method("finetune").config())], "text-classification", "bert")
    with pytest.raises(InputError, match="half_precision cannot follow half_precision: .*one such step is enough"):
        check_chain([("half_precision", Half()), ("half_precision", Half())], "text-classification", "bert")


def test_plain_transformers_reads_it_as_it_answers(tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "source")
    step("half_precision", "bert", tmp_path / "source", tmp_path / "half")
    done = export(tmp_path / "half", tmp_path / "out", "transformers", examples=texts(4))
    assert done.agreement.largest_change < 1e-5
    assert size_bytes(tmp_path / "half") < 0.7 * size_bytes(tmp_path / "source")
