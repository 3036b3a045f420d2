"""That each method which reads text feeds its formula what it should: statistics by hand, layer behind layer, the pure function, and equality with the matrices
that the step saved; and that these models tell the right statistics from wrong ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recompress.methods.quantization import awq, column_by_column, levels, llm_int8, vector
from recompress.methods.quantization.grid import FewBits, rounded
from recompress.methods.quantization.mixed_precision import BITS, MixedPrecision, choose
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import load, save
from recompress.models.packed import packed_linear
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.surgery import weight_of
from tests.methods.quantization.by_hand import FAMILIES, answers, rows_of, share_equal, uneven, walk
from tests.six import inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
EQUAL, OTHER = 0.98, 0.9
TEXTS, SEED, READ = 24, 3, 20
"""Of so many texts fewer are asked for, and the seed, which is not the one where none is handed on, draws them."""
DRAWN = (0.5, 0.1)
"""Books of several that are refined together: where the last digits of a sum decide a draw, a whole book is another; with other statistics all of them are."""
Formula = Callable[[str, Tensor, Tensor, Any], Any]
"""``formula(name, weight, X, config)``"""


def gptq(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    """U from an explicit inverse, in the order of the columns."""
    hessian = (rows.T @ rows).double()
    order = hessian.diagonal().argsort(descending=True, stable=True) if config.act_order else torch.arange(len(hessian))
    return column_by_column.quantize_matrix(weight, root(hessian[order][:, order], config.damping), config, order if config.act_order else None)


def root(hessian: Tensor, damping: float) -> Tensor:
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True).float()


def rounding(_: str, weight: Tensor, __: Tensor, config: Any) -> Any:
    return rounded(weight, config)


def other_order(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return gptq(name, weight, rows, config.model_copy(update={"act_order": not config.act_order}))


def mixed_rows(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    """The Hessian's rows in another order than the weights' columns."""
    return gptq(name, weight, rows.flip(1), config)


def by_awq(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return awq.quantize_matrix(weight, rows.abs().sum(0), rows.T @ rows, config)


def by_clipped_awq(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return awq.quantize_matrix(weight, rows.abs().sum(0), rows.T @ rows, config, clip=True)


def clips_of_the_weights(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    columns = awq.best_columns([weight], rows.abs().sum(0), rows.T @ rows, config)
    return awq.rounded_with(weight, columns, config, torch.eye(rows.shape[1]))


def awq_of_ones(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return awq.quantize_matrix(weight, torch.ones(rows.shape[1]), rows.T @ rows, config)


def awq_without_hessian(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return awq.quantize_matrix(weight, rows.abs().sum(0), torch.eye(rows.shape[1]), config)


def means(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return levels.by_kmeans(weight, rows.double().square().sum(0), config.bits, config.rounds)


def even_means(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return levels.by_kmeans(weight, torch.ones(rows.shape[1]), config.bits, config.rounds)


def seed_of(name: str) -> int:
    return zlib.crc32(f"{SEED} {name}".encode())


def vectors(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    hessian = rows.T @ rows if config.kind == "additive" else None
    return vector.quantize_matrix(weight, rows.double().square().sum(0), hessian, config, seed_of(name))


def even_vectors(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    hessian = rows.T @ rows if config.kind == "additive" else None
    return vector.quantize_matrix(weight, torch.ones(rows.shape[1]), hessian, config, seed_of(name))


def vectors_without_hessian(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return vector.quantize_matrix(weight, rows.double().square().sum(0), None, config, seed_of(name))


def outliers(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return llm_int8.quantize_matrix(weight, (rows.abs().amax(0) >= config.threshold).nonzero().flatten())


def no_outliers(name: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
    return llm_int8.quantize_matrix(weight, torch.arange(0))


CASES: dict[str, tuple[str, dict[str, Any], Formula, tuple[Formula, ...]]] = {
    "gptq": ("gptq", {"bits": 3, "act_order": False}, gptq, (rounding, other_order, mixed_rows)),
    "gptq, ordered": ("gptq", {"bits": 3}, gptq, (rounding, other_order, mixed_rows)),
    "gptq, in groups": ("gptq", {"bits": 4, "group_size": 16, "damping": 0.1}, gptq, (rounding, other_order, mixed_rows)),
    "awq": ("awq", {"bits": 3}, by_awq, (rounding, awq_of_ones, awq_without_hessian)),
    "awq, clipped": ("awq", {"bits": 3, "group_size": 16, "clip": True}, by_clipped_awq, (by_awq, rounding, clips_of_the_weights)),
    "codebook": ("codebook", {"bits": 3, "rounds": 5}, means, (even_means,)),
    "vector": ("vector", {"bits": 4, "rounds": 5}, vectors, (even_vectors,)),
    "vector, additive": ("vector", {"bits": 4, "kind": "additive", "rounds": 5, "refinements": 1}, vectors, (even_vectors, vectors_without_hessian)),
    "llm_int8": ("llm_int8", {"threshold": 12.0, "calibration_examples": 2}, outliers, (no_outliers,)),
}
"""By name: the method, its settings, the formula, and formulas that it must not be mistaken for."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_the_formula_of_what_flows_in(case: str, family: str, tmp_path: Path) -> None:
    name, dials, formula, wrong = CASES[case]
    config, inputs = get_method(name).config(**({"calibration_examples": READ} | dials)), saved(family, tmp_path)
    run_step(name, config, tmp_path / "source", tmp_path / "made", inputs)
    expected = by_hand(tmp_path, inputs, config, formula, config.calibration_examples)
    network = load(tmp_path / "made").torch_network
    matrices = {path: network.get_submodule(path).weight for path in expected}
    equal, unlike = (EQUAL, OTHER) if case != "vector, additive" else DRAWN
    assert share_equal(matrices, expected) > equal
    for other in wrong:
        assert share_equal(by_hand(tmp_path, inputs, config, other, config.calibration_examples), expected) < unlike, other.__name__


def saved(family: str, place: Path) -> Inputs:
    save(uneven(family), place / "source")
    return inputs_of(family, place / "work", TEXTS, SEED)


def by_hand(place: Path, inputs: Inputs, config: Any, formula: Formula, count: int | None = None) -> dict[str, Tensor]:
    source = load(place / "source")
    return walk(source, rows_of(source, inputs, count), lambda path, weight, rows: formula(path, weight, rows, config))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_awq_finds_the_best_exponent_where_it_is_not_zero(bits: Any, tmp_path: Path) -> None:
    """All 21 in a loop, on what really flows into the matrices: most want another exponent than 0, and gain by it."""
    config, inputs = FewBits(bits=bits), saved("bert", tmp_path)
    best: list[int] = []

    def look(path: str, weight: Tensor, rows: Tensor, _: Any) -> Any:
        absolute, errors = rows.abs().mean(0).double(), []
        for step in range(21):
            s = absolute.clamp_min(1e-4 * float(absolute.max())) ** (step / 20)
            columns = ((s.max() * s.min()).sqrt() / s).half().float()
            values = unpacked_matrix(rounded(weight / columns, config)) * columns
            errors.append(float((rows @ (weight - values).T).square().sum()))
        quantized = awq.quantize_matrix(weight, rows.abs().sum(0), rows.T @ rows, config)
        now = float((rows @ (weight - unpacked_matrix(quantized)).T).square().sum())
        assert now == pytest.approx(min(errors), rel=1e-2)
        best.append(errors.index(min(errors)) if min(errors) < 0.9 * errors[0] else 0)

    by_hand(tmp_path, inputs, config, look)
    assert sum(exponent > 0 for exponent in best) >= 0.7 * len(best)


@pytest.mark.parametrize("family", FAMILIES)
def test_outlier_columns_are_those_whose_inputs_pass_the_threshold(family: str, tmp_path: Path) -> None:
    """In every layer, and not the same ones in each."""
    inputs = saved(family, tmp_path)
    config = llm_int8.LlmInt8(threshold=12.0)
    run_step("llm_int8", config, tmp_path / "source", tmp_path / "made", inputs)
    columns: dict[str, list[int]] = {}

    def look(path: str, weight: Tensor, rows: Tensor, config: Any) -> Any:
        columns[path] = (rows.abs().amax(0) >= config.threshold).nonzero().flatten().tolist()
        return outliers(path, weight, rows, config)

    by_hand(tmp_path, inputs, config, look)
    network = load(tmp_path / "made").torch_network
    assert {path: network.get_submodule(path).places.tolist() for path in columns} == columns
    assert len({tuple(places) for places in columns.values()}) > 2


@pytest.mark.parametrize(
    ("rounding", "family"),
    [
        ("rtn", "bert"),
        *(pytest.param(*rest, marks=pytest.mark.long) for rest in (("gptq", "llama"), ("gptq", "bert"), ("rtn", "gpt2"), ("gptq", "gpt2"), ("rtn", "llama"))),
    ],
)
def test_bits_follow_from_the_damage_of_each_layer_alone(rounding: str, family: str, tmp_path: Path) -> None:
    """The KL of the answers over all tokens, each layer rounded alone, by hand; the exact choice; and what is saved is rounded so."""
    config, inputs = MixedPrecision(average_bits=6.0, rounding=rounding), saved(family, tmp_path)
    run_step("mixed_precision", config, tmp_path / "source", tmp_path / "made", inputs)
    dense = load(tmp_path / "source")
    draws = rows_of(dense, inputs, 16)
    reference = answers(dense.torch_network, draws)
    damages: dict[str, dict[str, float]] = {}
    for path, linear in encoder_linears(dense.torch_network):
        original = weight_of(linear).clone()
        damages[path] = {}
        for bits in BITS:
            weight_of(linear).copy_(packed_linear(rounded(original, FewBits(bits=bits)), linear).weight)
            now = answers(dense.torch_network, draws)
            damages[path][str(bits)] = float((reference.exp() * (reference - now)).sum(1).mean())
        weight_of(linear).copy_(original)
    shapes = {path: shape_of(linear) for path, linear in encoder_linears(dense.torch_network)}
    chosen = choose(shapes, damages, config)
    network: Any = load(tmp_path / "made").torch_network
    assert {path: getattr(network.get_submodule(path), "bits", None) for path in chosen} == chosen
    assert len(set(chosen.values())) > 1
    assert choose(shapes, dict.fromkeys(damages, next(iter(damages.values()))), config) != chosen

    def formula(path: str, weight: Tensor, given: Tensor, _: Any) -> Any:
        bits = chosen[path]
        if bits is None:
            return None
        gptq_config = get_method("gptq").config(bits=bits)
        return gptq(path, weight, given, gptq_config) if rounding == "gptq" else rounded(weight, FewBits(bits=bits))

    expected = by_hand(tmp_path, inputs, config, formula, 16)
    matrices = {path: getattr(network.get_submodule(path), "weight", None) for path in expected}
    floats = {path: weight_of(network.get_submodule(path)) if chosen[path] is None else weight for path, weight in matrices.items()}
    assert share_equal(floats, expected) > EQUAL
