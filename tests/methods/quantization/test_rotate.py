"""A decoder that is turned: the same answers with other weights, the weights that the equations name, fewer outliers, and nothing where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from recompress.errors import EffectMissing, InputError
from recompress.methods.chain import check_chain
from recompress.methods.quantization import rotate as module
from recompress.methods.quantization.hadamard import rotation
from recompress.methods.quantization.rotate import Rotate, kurtosis, peak, prove, rounding_error
from recompress.methods.quantization.turning import ROWS, reading, turn_head_inputs, turn_head_outputs, writing
from recompress.methods.registry import Claim, get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.runtimes import runtime_of
from tests.methods.by_hand import uneven
from tests.six import HEADS, HIDDEN, checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = HIDDEN // HEADS


def turned(checkpoint: Checkpoint, place: Path, family: str = "llama", seed: int = 0, **dials: Any) -> StepReport:
    save(checkpoint, place / "source")
    return run_step("rotate", Rotate(**dials), place / "source", place / "turned", inputs_of(family, place / "work", seed=seed))


def answers(place: Path, family: str = "llama") -> list[Any]:
    checkpoint = load(place)
    return list(runtime_of(checkpoint).logits(features_of(checkpoint, family)))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turn_of(size: int, seed: int = 0) -> Tensor:
    return rotation(size, torch.Generator().manual_seed(seed))


def test_the_equations_one_number_at_a_time() -> None:
    weight, scale, turn, wide = numbers(5, 4), numbers(4, seed=1), turn_of(4), turn_of(5)
    for o in range(5):
        for j in range(4):
            assert float(reading(weight, scale, turn)[o, j]) == pytest.approx(
                sum(float(weight[o, i] * scale[i]) * float(turn[i, j]) for i in range(4)), abs=1e-6
            )
            assert float(writing(weight, wide)[o, j]) == pytest.approx(sum(float(wide[i, o]) * float(weight[i, j]) for i in range(5)), abs=1e-6)
    assert writing(weight[:, 0], wide).tolist() == pytest.approx(writing(weight, wide)[:, 0].tolist(), abs=1e-6)


def test_what_heads_say_is_turned_and_turned_back() -> None:
    value, out, turn = numbers(8, 6), numbers(3, 8, seed=1), turn_of(4)
    told, heard = turn_head_outputs(value, turn), turn_head_inputs(out, turn)
    for head in (slice(0, 4), slice(4, 8)):
        torch.testing.assert_close(told[head], (turn.T @ value[head].double()).float())
        torch.testing.assert_close(heard[:, head] @ told[head], out[:, head] @ value[head])
    assert not torch.allclose(told, value)


def test_rows_are_turned_in_parts() -> None:
    weight, scale, turn = numbers(ROWS + 3, 4), numbers(4, seed=1), turn_of(4)
    assert torch.equal(reading(weight, scale, turn), ((weight.double() * scale.double()) @ turn).float())


def test_spread_by_hand() -> None:
    rows = torch.tensor([[1.0, -1, 1, 1], [0, 0, 3, 0]])
    assert kurtosis(rows[:1]) == 1
    assert kurtosis(rows[1:]) == 4
    assert kurtosis(rows) == 2.5
    assert peak(rows) == pytest.approx((1 + 2) / 2 / (2 * np.log(8)) ** 0.5)
    assert kurtosis(numbers(400, 256)) == pytest.approx(3, abs=0.05)
    assert 0.7 < peak(numbers(400, 256)) < 1


@pytest.mark.parametrize(
    "family, changes",
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": False}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 12, "num_key_value_heads": 1}),
        ("llama", {"hidden_size": 24, "head_dim": 6}),
        ("llama-classifier", {}),
    ],
    ids=["tied", "untied", "biases", "heads of another size", "a width that is no power of two", "classifier"],
)
@pytest.mark.parametrize("dials", [{}, {"heads": False}, {"stream": False}], ids=["both", "stream", "heads"])
def test_the_answers_stay_and_the_weights_do_not(family: str, changes: dict[str, Any], dials: dict[str, Any], tmp_path: Path) -> None:
    report = turned(checkpoint_of(family, **changes), tmp_path, family, **dials)
    for was, now in zip(answers(tmp_path / "source", family), answers(tmp_path / "turned", family), strict=True):
        np.testing.assert_allclose(now, was, atol=2e-5 * np.abs(was).max())
    assert all(Claim(**claim).kept for claim in report.claims)
    before, after = (dict(load(tmp_path / name).torch_network.named_parameters()) for name in ("source", "turned"))
    touched = {name.split(".", 3)[-1] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    heads = {name for name in touched if ".v_proj" in name or ".o_proj" in name}
    assert heads >= {"self_attn.v_proj.weight", "self_attn.o_proj.weight"}
    assert ("mlp.gate_proj.weight" in touched) == dials.get("stream", True)
    assert dials.get("stream", True) or touched == heads - {"self_attn.o_proj.bias"}


def test_the_saved_matrices_are_those_of_the_equations(tmp_path: Path) -> None:
    """Names as the family spells them, the seed's own rotations, and products of whole matrices in 64-bit floats."""
    turned(checkpoint_of("llama", attention_bias=True), tmp_path, seed=3)
    before, after = (dict(load(tmp_path / name).torch_network.state_dict()) for name in ("source", "turned"))
    draw = torch.Generator().manual_seed(3)
    whole = rotation(HIDDEN, draw)
    wide = {name: tensor.double() for name, tensor in before.items()}
    wanted = {
        "model.embed_tokens.weight": wide["model.embed_tokens.weight"] @ whole,
        "lm_head.weight": wide["lm_head.weight"] * wide["model.norm.weight"] @ whole,
    }
    for i in range(2):
        head = rotation(SIZE, draw)
        two, four = torch.kron(torch.eye(2, dtype=torch.float64), head), torch.kron(torch.eye(4, dtype=torch.float64), head)
        at = f"model.layers.{i}."
        first, second = wide[f"{at}input_layernorm.weight"], wide[f"{at}post_attention_layernorm.weight"]
        for name in ("q_proj", "k_proj", "v_proj"):
            wanted[f"{at}self_attn.{name}.weight"] = wide[f"{at}self_attn.{name}.weight"] * first @ whole
            wanted[f"{at}self_attn.{name}.bias"] = wide[f"{at}self_attn.{name}.bias"]
        for name in ("weight", "bias"):
            wanted[f"{at}self_attn.v_proj.{name}"] = two.T @ wanted[f"{at}self_attn.v_proj.{name}"]
        wanted[f"{at}self_attn.o_proj.weight"] = whole.T @ wide[f"{at}self_attn.o_proj.weight"] @ four
        wanted[f"{at}self_attn.o_proj.bias"] = whole.T @ wide[f"{at}self_attn.o_proj.bias"]
        for name in ("gate_proj", "up_proj"):
            wanted[f"{at}mlp.{name}.weight"] = wide[f"{at}mlp.{name}.weight"] * second @ whole
        wanted[f"{at}mlp.down_proj.weight"] = whole.T @ wide[f"{at}mlp.down_proj.weight"]
        wanted |= {f"{at}{name}.weight": torch.ones(HIDDEN).double() for name in ("input_layernorm", "post_attention_layernorm")}
    wanted["model.norm.weight"] = torch.ones(HIDDEN).double()
    assert wanted.keys() == after.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(after[name].double(), tensor, atol=1e-5, rtol=1e-5, msg=name)


def test_each_dial_turns_its_own_and_what_was_turned_is_looked_at(tmp_path: Path) -> None:
    before = checkpoint_of("llama").torch_network
    layer: Any = before.base_model.layers[1]  # type: ignore[index,operator]
    value, out, scale = (tensor.detach().clone() for tensor in (layer.self_attn.v_proj.weight, layer.self_attn.o_proj.weight, layer.input_layernorm.weight))
    turned(checkpoint_of("llama"), tmp_path / "stream", heads=False)
    stream = load(tmp_path / "stream" / "turned").torch_network
    layer = stream.base_model.layers[1]  # type: ignore[index,operator]
    assert torch.equal(layer.self_attn.v_proj.weight, reading(value, scale, turn_of(HIDDEN)))
    assert torch.equal(layer.self_attn.o_proj.weight, writing(out, turn_of(HIDDEN)))
    rows = list(module.along(stream, Rotate(heads=False)))
    wanted = [rows[7 + i] for i in range(7)]
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    assert all(torch.equal(given, layer.get_submodule(name).weight) for given, name in zip(wanted, names, strict=False))
    assert all(torch.equal(given.T, layer.get_submodule(name).weight) for given, name in zip(wanted[5:], ("self_attn.o_proj", "mlp.down_proj"), strict=True))
    told, heard = list(module.along(stream, Rotate(stream=False)))[2:]
    assert torch.equal(told[3], layer.self_attn.v_proj.weight[SIZE:, 1]), "row 3 is input 1 of the second of two heads"
    assert torch.equal(heard[5], layer.self_attn.o_proj.weight[1, SIZE : 2 * SIZE])


def test_a_tie_is_kept_where_the_last_norm_has_one_scale_and_else_paid_for(tmp_path: Path) -> None:
    even = checkpoint_of("llama")
    even.torch_network.base_model.norm.weight.data.fill_(0.75)
    report = turned(even, tmp_path / "even")
    network: Any = load(tmp_path / "even" / "turned").torch_network
    assert network.lm_head.weight is network.get_input_embeddings().weight
    assert report.parameters == report.parameters_before
    assert network.model.norm.weight.eq(0.75).all()
    report = turned(checkpoint_of("llama"), tmp_path / "uneven")
    network = load(tmp_path / "uneven" / "turned").torch_network
    assert network.lm_head.weight is not network.get_input_embeddings().weight
    assert report.parameters == report.parameters_before + network.lm_head.weight.numel()
    assert turned(checkpoint_of("llama"), tmp_path / "heads", stream=False).parameters == report.parameters_before


def test_plain_transformers_reads_it_and_later_steps_take_it(tmp_path: Path) -> None:
    turned(checkpoint_of("llama"), tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "turned").eval()
    checkpoint = load(tmp_path / "turned")
    features = features_of(checkpoint, "llama")
    ours, theirs = (runtime_of(Checkpoint(one, checkpoint.tokenizer, checkpoint.info)).logits(features) for one in (checkpoint.torch_network, plain))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    inputs = inputs_of("llama", tmp_path / "later")
    for name, dials in (("trim_vocabulary", {"min_count": 20}), ("gptq", {"calibration_examples": 8}), ("awq", {"calibration_examples": 8, "foldable": True})):
        run_step(name, get_method(name).config(**dials), tmp_path / "turned", tmp_path / name, inputs)


def test_it_may_follow_a_cache_in_few_bits_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    """Turned values are rounded otherwise, so that answers through the cache are not the same."""
    inputs, form = inputs_of("llama", tmp_path / "work"), {"bits": 2, "group": 8, "residual": 4}
    checkpoint = checkpoint_of("llama", tie_word_embeddings=False)
    checkpoint.torch_network.get_output_embeddings().weight.data.mul_(8)
    save(checkpoint, tmp_path / "source")
    run_step("kv_cache", get_method("kv_cache").config(**form), tmp_path / "source", tmp_path / "kept", inputs)
    run_step("rotate", Rotate(), tmp_path / "kept", tmp_path / "turned", inputs)
    assert load(tmp_path / "turned").info.cache == load(tmp_path / "kept").info.cache


def test_the_same_seed_gives_the_same_weights_and_another_others(tmp_path: Path) -> None:
    for place, seed in (("one", 0), ("again", 0), ("other", 1)):
        turned(checkpoint_of("llama"), tmp_path / place, seed=seed)
    one, again, other = (load(tmp_path / place / "turned").torch_network.state_dict() for place in ("one", "again", "other"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())
    assert not torch.equal(one["model.layers.0.mlp.up_proj.weight"], other["model.layers.0.mlp.up_proj.weight"])


def heavy() -> Checkpoint:
    """Some channels of the stream are many times larger than others, as large models have them, and what reads them has large weights."""
    checkpoint = uneven("llama")
    for name, parameter in checkpoint.torch_network.named_parameters():
        if name.endswith(("down_proj.weight", "o_proj.weight")):
            parameter.data[::9] *= 12
    return checkpoint


def test_outliers_go_and_4_bits_lose_less(tmp_path: Path) -> None:
    save(heavy(), tmp_path / "plain")
    before = load(tmp_path / "plain")
    report = turned(heavy(), tmp_path)
    after, inputs = load(tmp_path / "turned"), inputs_of("llama", tmp_path / "work")
    was, now = (sum(map(kurtosis, module.along(checkpoint.torch_network, Rotate()))) for checkpoint in (before, after))
    assert now < 0.8 * was
    assert rounding_error(after, inputs) < 0.8 * rounding_error(before, inputs)
    claims = {claim["what"]: claim for claim in report.claims}
    [rounding] = [claim for what, claim in claims.items() if "rtn" in what]
    assert (rounding["asked"], rounding["measured"]) == (pytest.approx(rounding_error(before, inputs)), pytest.approx(rounding_error(after, inputs)))


def identity(size: int, _: torch.Generator) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def skewed(size: int, draw: torch.Generator) -> Tensor:
    """Not at right angles."""
    return rotation(size, draw) + 0.01 * torch.ones(size, size)


@pytest.mark.parametrize("wrong, why", [(identity, "kurtosis"), (skewed, "difference of an answer")])
def test_a_rotation_that_is_none_is_noticed(wrong: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rotation", wrong)
    with pytest.raises(EffectMissing, match=why):
        turned(heavy(), tmp_path)
    assert not (tmp_path / "turned").exists()


@pytest.mark.parametrize(
    "name", ["model.layers.1.self_attn.k_proj.weight", "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.v_proj.weight"]
)
def test_a_matrix_that_was_left_as_it_was_is_noticed(name: str, tmp_path: Path) -> None:
    turned(checkpoint_of("llama"), tmp_path)
    before, after = load(tmp_path / "source"), load(tmp_path / "turned")
    after.torch_network.get_parameter(name).data.copy_(dict(before.torch_network.named_parameters(remove_duplicate=False))[name])
    claims = prove(before, after, Rotate(), inputs_of("llama", tmp_path / "work"))
    assert not all(claim.kept for claim in claims)


def test_a_scale_that_is_left_in_a_norm_is_noticed(tmp_path: Path) -> None:
    turned(checkpoint_of("llama"), tmp_path)
    after = load(tmp_path / "turned")
    after.torch_network.base_model.layers[1].post_attention_layernorm.weight.data[3] = 1.0001  # type: ignore[index,union-attr,operator]
    [claim] = [claim for claim in prove(load(tmp_path / "source"), after, Rotate(), inputs_of("llama", tmp_path / "work")) if claim.what.startswith("norms")]
    assert not claim.kept


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="told to turn nothing, .*leave the step out"):
        turned(checkpoint_of("llama"), tmp_path / "nothing", stream=False, heads=False)
    for name, dials in (("svd", {"parameters": 0.5}), ("share_layers", {"groups": 1}), ("factorize_embeddings", {"rank": 8})):
        save(checkpoint_of("llama"), tmp_path / name / "first")
        inputs = inputs_of("llama", tmp_path / name / "work")
        run_step(name, get_method(name).config(**dials), tmp_path / name / "first", tmp_path / name / "second", inputs)
        (note := tmp_path / name / "second" / "recompress.json").write_text(note.read_text().replace(f'"{name}"', '"finetune"'))  # as if nobody knew
        with pytest.raises(InputError, match="stored as two factors or stand in several places; put it before"):
            run_step("rotate", Rotate(), tmp_path / name / "second", tmp_path / name / "third", inputs)
        assert not (tmp_path / name / "third").exists()


@pytest.mark.parametrize(
    "steps, family, why",
    [
        ([("wanda", {}), ("rotate", {})], "llama", "rotate cannot follow wanda: .*sparsity would be lost; rotate first"),
        ([("svd", {"parameters": 0.5}), ("rotate", {})], "llama", "rotate cannot follow svd: .* stored as two factors .*; rotate first"),
        ([("share_layers", {}), ("finetune", {}), ("rotate", {})], "llama", "rotate cannot follow share_layers: .* in several places then; rotate first"),
        ([("rotate", {}), ("tie_embeddings", {})], "llama", "tie_embeddings cannot follow rotate: .*tie first"),
        ([("rtn", {}), ("rotate", {})], "llama", "rotate cannot follow rtn"),
        ([("rotate", {})], "gpt2", "rotate does not support the architecture 'gpt2'; it supports llama"),
        ([("rotate", {})], "bert", "rotate does not support the architecture 'bert'"),
    ],
)
def test_what_is_refused_before_anything_runs(steps: list[tuple[str, dict[str, Any]]], family: str, why: str) -> None:
    benchmark = "token-classification" if family == "bert" else "language-modelling"
    with pytest.raises(InputError, match=why):
        check_chain([(name, get_method(name).config(**dials)) for name, dials in steps], benchmark, family)
