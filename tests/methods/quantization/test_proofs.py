"""Methods made silently wrong, one small change each: the runner's own proof refuses every one of them, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import EffectMissing, IntegrityError
from recompress.methods.quantization import awq, codebook, dynamic_int8, gptq, grid, llm_int8, mixed_precision, qat, rtn, signround, static_int8, vector
from recompress.methods.quantization.grid import FewBits, rounded
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import save
from tests.methods.quantization.by_hand import uneven
from tests.six import checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
Change = Callable[[Any], Any]
"""``change(original)``: what stands in the place of a function."""


def random_codes(original: Any) -> Any:
    def coded(*given: Any, **named: Any) -> Any:
        matrix = original(*given, **named)
        draw = torch.Generator().manual_seed(0)
        top = int(matrix.codes.max()) + 1
        return matrix._replace(codes=torch.randint(0, top, matrix.codes.shape, generator=draw).to(torch.uint8))

    return coded


def only_rounding(_: Any) -> Any:
    return lambda weight, root, config, order=None: rounded(weight, config)


def huge_damping(original: Any) -> Any:
    return lambda hessian, damping, name, **named: original(hessian, 1e9, name, **named)


def coarse(original: Any) -> Any:
    """Codes and scales agree with each other, but most codes are not used."""

    def coded(weight: Any, config: Any) -> Any:
        two = original(weight, FewBits(bits=2, symmetric=True))
        return original((two.codes.float() - 2) * two.scales, config)

    return coded


def zero_levels(original: Any) -> Any:
    def coded(*given: Any) -> Any:
        matrix = original(*given)
        return matrix._replace(levels=torch.zeros_like(matrix.levels))

    return coded


def zero_books(original: Any) -> Any:
    def coded(*given: Any) -> Any:
        matrix = original(*given)
        return matrix._replace(codebooks=torch.zeros_like(matrix.codebooks))

    return coded


def first_columns(original: Any) -> Any:
    """As many outlier columns as there should be, and others than there should be."""
    return lambda largest, config: torch.arange(len(original(largest, config)))


def only_the_first_group(original: Any) -> Any:
    """Right in the first matrix and wrong in all that follow."""
    calls: list[int] = []

    def chosen(largest: Any, config: Any) -> Any:
        calls.append(1)
        return original(largest if len(calls) == 1 else largest.flip(0), config)

    return chosen


def learned_elsewhere(original: Any) -> Any:
    """What was learned for one row stands in another."""

    def learned(*given: Any) -> Any:
        return {name: type(choice)(*(part.flip(0) for part in choice)) for name, choice in original(*given).items()}

    return learned


def the_same_damage(original: Any) -> Any:
    """The mean of all layers, in the place of each."""

    def measured(network: Any, *given: Any) -> Any:
        damages = original(network, *given)
        means = {bits: sum(row[bits] for row in damages.values()) / len(damages) for bits in ("2", "3", "4", "8")}
        return dict.fromkeys(damages, means)

    return measured


def backwards(original: Any) -> Any:
    """Every layer's damage under the name of another."""

    def measured(network: Any, *given: Any) -> Any:
        damages = original(network, *given)
        return dict(zip(damages, reversed(damages.values()), strict=True))

    return measured


def rows_of_neighbours(original: Any) -> Any:
    """Every token of the packed table has the row of the token before it."""
    return lambda matrix: original(turned(matrix, list(range(-1, len(matrix.codes) - 1))))


def two_rows_changed(original: Any) -> Any:
    """Two tokens of the packed table have each other's row, all others their own."""
    return lambda matrix: original(turned(matrix, [0, 6, *range(2, 6), 1, *range(7, len(matrix.codes))]))


def turned(matrix: Any, order: list[int]) -> Any:
    stored = matrix._asdict()
    return matrix._replace(**{name: part[order] for name, part in stored.items() if isinstance(part, torch.Tensor) and len(part) == len(order)})


def nothing_folded(_: Any) -> Any:
    return lambda network, features, alpha: 6


BROKEN: dict[str, tuple[str, dict[str, Any], Any, str, Change, str]] = {
    "rtn, random": ("rtn", {}, rtn, "rounded", random_codes, "largest rounding"),
    "rtn, coarse": ("rtn", {"bits": 8}, rtn, "rounded", coarse, "largest rounding"),
    "gptq, random": ("gptq", {}, gptq, "quantize_matrix", random_codes, "below 98% of that of rtn"),
    "gptq, rounding": ("gptq", {}, gptq, "quantize_matrix", only_rounding, "below 98% of that of rtn"),
    "gptq, damping": ("gptq", {}, gptq, "root_of", huge_damping, "below 98% of that of rtn"),
    "awq, random": ("awq", {}, awq, "quantize_matrix", random_codes, "at most that of rtn"),
    "awq, ones": ("awq", {"bits": 3}, awq, "quantize_matrix", lambda _: lambda w, a, h, c, **_: awq.rounded_with(w, torch.ones(len(a)), c), "exponent 1/2"),
    "signround, random": ("signround", {"steps": 16}, signround, "codes_with", random_codes, "what whole layers put out"),
    "signround, other layers": ("signround", {"steps": 16}, signround, "learn", learned_elsewhere, "what whole layers put out"),
    "nf4, random": ("codebook", {"kind": "nf4"}, codebook, "by_nf4", random_codes, "largest rounding"),
    "kmeans, random": ("codebook", {}, codebook, "by_kmeans", random_codes, "below that of even levels"),
    "kmeans, zeros": ("codebook", {}, codebook, "by_kmeans", zero_levels, "below that of even levels"),
    "vector, random": ("vector", {"bits": 6}, vector, "quantize_matrix", random_codes, "by the measure of the codes"),
    "vector, zeros": ("vector", {"bits": 6}, vector, "quantize_matrix", zero_books, "by the measure of the codes"),
    "llm_int8, random": ("llm_int8", {}, llm_int8, "quantize_matrix", random_codes, "largest rounding of the others"),
    "llm_int8, first columns": ("llm_int8", {"threshold": 12.0}, llm_int8, "outliers_of", first_columns, "largest input of a column in 8 bits"),
    "llm_int8, later layers": ("llm_int8", {"share": 0.1}, llm_int8, "outliers_of", only_the_first_group, "inputs of columns in 16 bits"),
    "mixed_precision, random": ("mixed_precision", {"average_bits": 6.0}, mixed_precision, "rounded", random_codes, "largest rounding"),
    "mixed_precision, rounding": (
        "mixed_precision",
        {"average_bits": 6.0, "rounding": "gptq", "untouched": False},
        mixed_precision,
        "quantize_matrix",
        only_rounding,
        "below 98% of that of rtn",
    ),
    "mixed_precision, one damage": ("mixed_precision", {"average_bits": 6.0}, mixed_precision, "measure", the_same_damage, "damage of the layers"),
    "mixed_precision, backwards": ("mixed_precision", {"average_bits": 6.0}, mixed_precision, "measure", backwards, "damage of the layers"),
}
"""By name: the method, its settings, where the function stands that is made wrong, how, and a part of the claim that is to notice."""


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_method_that_is_silently_wrong_is_refused(name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, dials, module, function, change, words = BROKEN[name]
    save(uneven(family), tmp_path / "source")
    config, inputs = get_method(method).config(**dials), inputs_of(family, tmp_path / "work", 24)
    monkeypatch.setattr(module, function, change(getattr(module, function)))
    with pytest.raises(EffectMissing, match=words):
        run_step(method, config, tmp_path / "source", tmp_path / "made", inputs)
    assert not (tmp_path / "made").exists()


TABLES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "rtn": ("rtn", {}, grid),
    "gptq": ("gptq", {}, grid),
    "awq, in groups": ("awq", {"group_size": 16, "symmetric": True}, grid),
    "llm_int8": ("llm_int8", {}, grid),
    "mixed_precision": ("mixed_precision", {"average_bits": 9.0, "calibration_examples": 2}, grid),
    "nf4": ("codebook", {"kind": "nf4"}, codebook),
    "kmeans": ("codebook", {}, codebook),
    "product": ("vector", {"bits": 6}, vector),
    "additive": ("vector", {"kind": "additive", "bits": 4, "refinements": 1}, vector),
}
"""By name: the method, its settings, and where it packs the token embeddings."""


@pytest.mark.parametrize("change", [rows_of_neighbours, two_rows_changed])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_its_rows_in_another_order_is_refused(name: str, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has as many bytes as the right one."""
    method, dials, module = TABLES[name]
    save(checkpoint_of("roberta"), tmp_path / "source")
    config = get_method(method).config(**dials, embeddings=True)
    run_step(method, config, tmp_path / "source", tmp_path / "right", inputs_of("roberta", tmp_path / "first", 24))
    monkeypatch.setattr(module, "packed_embedding", change(module.packed_embedding))
    with pytest.raises(EffectMissing, match="of the embeddings"):
        run_step(method, config, tmp_path / "source", tmp_path / "made", inputs_of("roberta", tmp_path / "work", 24))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("name", "more"), [("kmeans", {}), ("product", {"bits": 8, "width": 2})])
def test_a_table_with_nothing_in_it_is_refused(name: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is farther from what it was than its own length."""
    method, dials, module = TABLES[name]
    save(checkpoint_of("roberta"), tmp_path / "source")
    inside = module.packed_embedding
    monkeypatch.setattr(module, "packed_embedding", lambda matrix: inside(matrix._replace(scales=matrix.scales * 2.0**-10)))
    with pytest.raises(EffectMissing, match="error of the embeddings, about that of even"):
        run_step(
            method,
            get_method(method).config(**(dials | more), embeddings=True),
            tmp_path / "source",
            tmp_path / "made",
            inputs_of("roberta", tmp_path / "work", 24),
        )


@pytest.mark.parametrize("change", [rows_of_neighbours, two_rows_changed])
def test_a_trained_table_is_packed_row_by_row(change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoint_of("roberta"), tmp_path / "source")
    config = get_method("qat").config(embeddings=True, precision="fp32", batch_size=8)
    with monkeypatch.context() as patch:
        patch.setattr(grid, "packed_embedding", change(grid.packed_embedding))
        with pytest.raises(IntegrityError, match="the embeddings would not be packed as trained"):
            run_step("qat", config, tmp_path / "source", tmp_path / "made", inputs_of("roberta", tmp_path / "work", 24))
    inside = qat.pack

    def turn(network: Any, *given: Any, **named: Any) -> None:
        inside(network, *given, **named)
        table = network.get_input_embeddings()
        table.codes, table.scales, table.zeros = table.codes.roll(1, 0), table.scales.roll(1, 0), table.zeros.roll(1, 0)

    monkeypatch.setattr(qat, "pack", turn)
    with pytest.raises(EffectMissing, match="squared distance of the embeddings"):
        run_step("qat", config, tmp_path / "source", tmp_path / "made", inputs_of("roberta", tmp_path / "again", 24))


@pytest.mark.parametrize("name", ["gptq", "awq", "llm_int8", "codebook"])
def test_layers_that_share_their_weights_are_measured_by_what_the_first_sees(name: str, tmp_path: Path) -> None:
    """That is what they are rounded by; what flows into the others is something else."""
    save(uneven("bert"), tmp_path / "source")
    run_step("share_layers", get_method("share_layers").config(groups=1), tmp_path / "source", tmp_path / "shared", inputs_of("bert", tmp_path / "w"))
    report = run_step(name, get_method(name).config(), tmp_path / "shared", tmp_path / "made", inputs_of("bert", tmp_path / "v"))
    assert any("error" in claim["what"] for claim in report.claims)


def one_scale(original: Any) -> Any:
    return lambda *given, **named: original(*given, **(named | {"per_channel": False}))


def other_matrices(original: Any) -> Any:
    """The graph of another network of the same shape."""

    def exported(network: Any, **how: Any) -> Any:
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.3
        return original(network, **how)

    return exported


def one_row(original: Any) -> Any:
    """Ranges from the first, shortest rows, in place of all text."""
    return lambda features, label: original(features[:1], label)


GRAPHS: dict[str, tuple[str, dict[str, Any], Any, str, Change, str]] = {
    "dynamic, one scale": ("dynamic_int8", {}, None, "onnxruntime.quantization.quantize_dynamic", one_scale, "a scale for each output"),
    "dynamic, other": ("dynamic_int8", {}, dynamic_int8, "exported", other_matrices, "error of the answers"),
    "static, one scale": ("static_int8", {}, None, "onnxruntime.quantization.quantize_static", one_scale, "a scale for each output"),
    "static, other": ("static_int8", {}, static_int8, "exported", other_matrices, "error of the answers"),
    "static, one row": ("static_int8", {}, static_int8, "Rows", one_row, "ranges cut off"),
    "static, nothing folded": ("static_int8", {"smooth": 0.5}, static_int8, "smooth", nothing_folded, "scales folded in"),
}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_silently_wrong_is_refused(name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, dials, module, function, change, words = GRAPHS[name]
    save(uneven(family), tmp_path / "source")
    config, inputs = get_method(method).config(**dials), inputs_of(family, tmp_path / "work", 24)
    if module is None:
        import onnxruntime.quantization as place

        function = function.rpartition(".")[2]
        monkeypatch.setattr(place, function, change(getattr(place, function)))
    else:
        monkeypatch.setattr(module, function, change(getattr(module, function)))
    with pytest.raises(EffectMissing, match=words):
        run_step(method, config, tmp_path / "source", tmp_path / "made", inputs)
    assert not (tmp_path / "made").exists()
