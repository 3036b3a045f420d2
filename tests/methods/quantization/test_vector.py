"""Vector codes against loops and brute force over all codes, on all six architectures, with codebooks counted among their bytes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from safetensors.torch import load_file
from torch import Tensor

from recompress.errors import InputError, IntegrityError
from recompress.layerwise import engine
from recompress.methods.chain import check_chain
from recompress.methods.quantization import codebooks, vector
from recompress.methods.quantization.vector import Vector
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import load, save
from recompress.models.packed import Vectors, packed_embedding, packed_linear
from recompress.models.surgery import weight_of
from tests.layerwise.second_order_by_hand import inputs_and_weight
from tests.methods.quantization.by_hand import tables
from tests.six import DECODERS, checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
kmeans = jaxtyped(typechecker=beartype)(codebooks.kmeans)
nearest = jaxtyped(typechecker=beartype)(codebooks.nearest)
improve_books = jaxtyped(typechecker=beartype)(codebooks.improve_books)


def values(vectors: Vectors) -> Tensor:
    return packed_linear(vectors, torch.nn.Linear(vectors.shape[1], vectors.shape[0], bias=False)).weight


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_a_packed_matrix_is_the_formula(bits: int) -> None:
    draw = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 1 << bits, (5, 3, 2), generator=draw).to(torch.uint8)
    books, scales = torch.randn((2, 1 << bits, 4), generator=draw).half().float(), torch.rand((5, 1), generator=draw).half().float()
    vectors = Vectors(codes, bits, books, scales)
    expected = torch.empty(5, 12)
    for o, i in itertools.product(range(5), range(12)):
        expected[o, i] = scales[o, 0] * sum(books[m, int(codes[o, i // 4, m]), i % 4] for m in range(2))
    torch.testing.assert_close(values(vectors), expected)
    torch.testing.assert_close(packed_embedding(vectors)(torch.tensor([[4, 0], [1, 1]])), expected[torch.tensor([[4, 0], [1, 1]])])
    assert vectors.tensors()["codes"].shape == (5, -(-3 * 2 * bits // 8))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_means_are_the_nearest_and_lie_in_the_middle(seed: int) -> None:
    """What Lloyd's rounds end at: each point has its nearest mean, and each mean is the weighted middle of its points."""
    draw = torch.Generator().manual_seed(seed)
    points, heavy = torch.randn(30, 3, generator=draw, dtype=torch.float64), torch.rand(30, 3, generator=draw, dtype=torch.float64) + 0.1
    means = kmeans(points, heavy, 4, 200, draw)
    codes = nearest(points, heavy, means)
    for n in range(30):
        far = [float((heavy[n] * (points[n] - mean).square()).sum()) for mean in means]
        assert far[int(codes[n])] == pytest.approx(min(far))
    for k in range(4):
        mine = codes == k
        assert mine.any()
        torch.testing.assert_close(means[k], (heavy[mine] * points[mine]).sum(0) / heavy[mine].sum(0))


def test_as_many_vectors_as_there_are_groups_change_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    few = torch.randn(8, 4, generator=draw)
    weight = few[torch.randint(0, 8, (6, 5), generator=draw)].flatten(1)
    weight = weight / weight.square().mean(1, keepdim=True).sqrt()  # rows of scale 1
    for dials in ({}, {"kind": "additive", "books": 2}):
        vectors = vector.quantize_matrix(weight, torch.ones(20), None, Vector(bits=8, **dials), 0)
        torch.testing.assert_close(values(vectors), weight, rtol=2e-3, atol=2e-3)


def test_errors_fall_as_codes_grow_and_weights_with_large_inputs_are_kept_best() -> None:
    draw = torch.Generator().manual_seed(1)
    weight, heavy = torch.randn(32, 64, generator=draw), torch.ones(64)
    errors = [float((values(vector.quantize_matrix(weight, heavy, None, Vector(bits=bits), 0)) - weight).square().mean()) for bits in (1, 2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)
    books = [
        float((values(vector.quantize_matrix(weight, heavy, None, Vector(kind="additive", bits=4, books=count), 0)) - weight).square().mean())
        for count in (2, 3, 4)
    ]
    assert books == sorted(books, reverse=True)
    heavy[::4] = 1000
    gaps = [(values(vector.quantize_matrix(weight, by, None, Vector(bits=4), 0)) - weight)[:, ::4].square().sum() for by in (heavy, torch.ones(64))]
    assert gaps[0] < 0.5 * gaps[1]


def case(seed: int, *, rows: int = 3, columns: int = 8, count: int = 4, width: int = 2, books: int = 2) -> tuple[Any, ...]:
    hessian, weight = inputs_and_weight(rows, columns, seed)
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, count, (rows, columns // width, books), generator=draw).to(torch.uint8)
    codebook = torch.randn(books, count, width, generator=draw, dtype=torch.float64)
    return weight, codes, codebook, weight.square().mean(1, keepdim=True).sqrt(), hessian


@pytest.mark.parametrize("seed", range(5))
def test_each_code_is_the_best_of_its_book_with_the_others_as_they_are(seed: int) -> None:
    """Against trying every vector of the book, code after code."""
    weight, codes, books, scales, hessian = case(seed)
    expected = codes.clone()
    for g, m in itertools.product(range(4), range(2)):
        for o in range(3):
            tried = []
            for k in range(4):
                expected[o, g, m] = k
                tried.append(codebooks.loss(weight[o : o + 1], expected[o : o + 1], books, scales[o : o + 1], hessian))
            expected[o, g, m] = tried.index(min(tried))
    codebooks.improve_codes(weight, codes, books, scales, hessian)
    assert torch.equal(codes, expected)


@pytest.mark.parametrize("seed", range(5))
def test_books_come_from_the_normal_equations(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, codes, books, scales, hessian = case(seed, rows=12)
    design = torch.zeros(12, 8, books.numel(), dtype=torch.float64)
    flat = torch.arange(books.numel()).view(books.shape)
    for o, g, m, j in itertools.product(range(12), range(4), range(2), range(2)):
        design[o, g * 2 + j, flat[m, int(codes[o, g, m]), j]] += scales[o, 0]
    root = torch.linalg.cholesky(hessian).T
    best = torch.linalg.lstsq((root @ design).flatten(0, 1), (weight @ root.T).flatten()[:, None], driver="gelsd").solution.view(books.shape)
    monkeypatch.setattr(codebooks, "STEPS", 200)
    improved_books = improve_books(weight, codes, books, scales, hessian)
    lowest = codebooks.loss(weight, codes, best, scales, hessian)
    assert codebooks.loss(weight, codes, improved_books, scales, hessian) == pytest.approx(lowest, rel=1e-5)
    assert codebooks.loss(weight, codes, books, scales, hessian) > 1.5 * lowest


@pytest.mark.parametrize("seed", range(3))
def test_refinement_never_raises_the_loss_and_wins_against_none(seed: int) -> None:
    hessian, weight = inputs_and_weight(24, 32, seed)
    losses = []
    for refinements in (0, 1, 3):
        config = Vector(kind="additive", bits=3, books=2, refinements=refinements)
        vectors = vector.quantize_matrix(weight, hessian.diagonal(), hessian, config, 0)
        losses.append(codebooks.loss(weight, vectors.codes, vectors.codebooks, vectors.scales, hessian))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]


def test_as_many_rounds_are_made_as_asked() -> None:
    _, weight = inputs_and_weight(24, 32, 0)
    losses = []
    for rounds in (1, 2, 25):
        vectors = vector.quantize_matrix(weight, torch.ones(32), None, Vector(bits=4, rounds=rounds), 0)
        losses.append(float((values(vectors) - weight).square().sum()))
    assert losses[0] > losses[1] > losses[2]


def test_means_weigh_each_number_by_the_square_of_its_rows_scale_and_by_what_flows_in() -> None:
    """Lloyd's rounds are over: each vector is the middle of its groups, so weighed; by the scales alone it would be another."""
    draw = torch.Generator().manual_seed(0)
    importance = torch.rand(16, generator=draw) + 0.1
    weight = torch.randn(40, 16, generator=draw) * torch.logspace(-1, 1, 40)[:, None]
    vectors = vector.quantize_matrix(weight, importance, None, Vector(bits=3, rounds=1000), 0)
    scales, codes, points = weight.square().mean(1, keepdim=True).sqrt(), vectors.codes.flatten(), (weight / vectors.scales).reshape(-1, 4)

    def middles(power: int) -> Tensor:
        heavy = (scales**power * importance).reshape(-1, 4)
        return torch.stack([(heavy * points)[codes == k].sum(0) / heavy[codes == k].sum(0) for k in range(8)])

    torch.testing.assert_close(vectors.codebooks[0], middles(2), rtol=0.01, atol=0.01)
    assert float((vectors.codebooks[0] - middles(1)).abs().max()) > 0.05


def test_codes_are_chosen_once_more_for_the_last_books(monkeypatch: pytest.MonkeyPatch) -> None:
    hessian, weight = inputs_and_weight(24, 32, 0)
    seen: list[Tensor] = []

    def look(given: Tensor, codes: Tensor, *rest: Any) -> Tensor:
        seen.append(codes.clone())
        return codebooks.improve_books(given, codes, *rest)

    monkeypatch.setattr(vector, "improve_books", look)
    vectors = vector.quantize_matrix(weight, hessian.diagonal(), hessian, Vector(kind="additive", bits=3, refinements=2), 0)
    assert len(seen) == 2
    expected = seen[-1].clone()
    codebooks.improve_codes(weight, expected, vectors.codebooks, vectors.scales, hessian)
    assert torch.equal(vectors.codes, expected)
    assert not torch.equal(seen[-1], expected)


def test_large_matrices_are_coded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    hessian, weight = inputs_and_weight(24, 32, 0)
    config = Vector(kind="additive", bits=4)
    whole = vector.quantize_matrix(weight, hessian.diagonal(), hessian, config, 0)
    monkeypatch.setattr(codebooks, "CHUNK", 100)
    parts = vector.quantize_matrix(weight, hessian.diagonal(), hessian, config, 0)
    assert torch.equal(whole.codes, parts.codes)


def step(family: str, place: Path, name: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step("vector", Vector(**dials), place / "source", place / name, inputs_of(family, place / f"work-{name}", 24))


@pytest.mark.parametrize("family", each())
@pytest.mark.parametrize("dials", [{"bits": 6}, {"kind": "additive", "width": 4, "bits": 4, "refinements": 1}])
def test_on_every_architecture(family: str, dials: dict[str, Any], tmp_path: Path) -> None:
    config = Vector(**dials)
    report = step(family, tmp_path, "made", **dials)
    stored = load_file(tmp_path / "made" / "model.safetensors")
    taken = numbers = 0
    for path, linear in encoder_linears(checkpoint_of(family).torch_network):
        rows, columns = shape_of(linear)
        numbers += rows * columns
        taken += sum(tensor.numel() * tensor.element_size() for name, tensor in stored.items() if name.startswith(f"{path}.") and not name.endswith(".bias"))
        assert stored[f"{path}.codes"].numel() == rows * -(-columns // config.width * config.count * config.bits // 8)
        now, was = load(tmp_path / "made").torch_network.get_submodule(path).weight, weight_of(linear)
        assert (now - was).square().mean() < 0.5 * was.square().mean()
    assert report.claims[1]["measured"] == pytest.approx(8 * taken / numbers)
    assert report.parameters == report.parameters_before
    if family in ("roberta", "llama"):
        step(family, tmp_path, "again", **dials)
        assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "made" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["distilbert", *DECODERS])
def test_embeddings_by_a_flag(family: str, tmp_path: Path) -> None:
    step(family, tmp_path, "made", embeddings=True, weighted=False, bits=5)
    stored = load_file(tmp_path / "made" / "model.safetensors")
    [name] = [name for name in stored if name.endswith((".codes",)) and len(stored[name]) == len(checkpoint_of(family).tokenizer)]
    assert stored[name].shape[1] == 32 // 4 * 5 // 8
    was, now = tables(load(tmp_path / "source").torch_network, load(tmp_path / "made").torch_network)
    assert ((was - now).square().sum(1) < was.square().sum(1)).all()
    assert (was - now).square().sum() < 0.5 * was.square().sum()


@pytest.mark.parametrize("name", ["vector", "llm_int8"])
def test_killed_after_a_layer_and_called_again_it_ends_with_the_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoint_of("llama"), tmp_path / "source")
    dials: dict[str, Any] = {"kind": "additive", "bits": 4, "refinements": 1} if name == "vector" else {"threshold": 2.0}

    def run(target: str) -> bytes:
        run_step(name, get_method(name).config(**dials), tmp_path / "source", tmp_path / target, inputs_of("llama", tmp_path / f"work-{target}", 24))
        return (tmp_path / target / "model.safetensors").read_bytes()

    whole, real = run("whole"), engine.keep
    numbers: list[int] = []

    def killed(folder: Path, last: Path | None, number: int, *rest: Any) -> Path:
        checkpoint = real(folder, last, number, *rest)
        numbers.append(number)
        if number == 1 and len(numbers) == 2:
            raise KeyboardInterrupt
        return checkpoint

    monkeypatch.setattr(engine, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        run("resumed")
    assert not (tmp_path / "resumed").exists()
    assert run("resumed") == whole
    assert numbers == [0, 1, 2]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="product has one codebook, got books: 3"):
        step("bert", tmp_path, "x", books=3)
    with pytest.raises(InputError, match=r"width 5 does not divide the 32 columns of .*; choose one that divides all"):
        step("bert", tmp_path, "x", width=5)
    for name in ("wanda", "magnitude", "gradual"):
        with pytest.raises(InputError, match=f"vector cannot follow {name}: a vector holds no single zeros"):
            check_chain([(name, get_method(name).config()), ("vector", Vector())], "token-classification", "bert")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("change", ["width", "vectors", "books", "missing"])
def test_broken_codebooks_are_refused(change: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    step("gpt2", tmp_path, "made", bits=3, weighted=False)
    tensors = load_file(tmp_path / "made" / "model.safetensors")
    name = "transformer.h.0.attn.c_attn.codebooks"
    book = tensors.pop(name)
    if change != "missing":
        tensors[name] = {"width": book[:, :, :3], "vectors": book[:, :7], "books": book.expand(2, -1, -1)}[change].contiguous()
    save_file(tensors, tmp_path / "made" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match="do not fit each other"):
        load(tmp_path / "made")


@pytest.mark.parametrize("seed", range(5))
def test_first_means_are_drawn_by_their_distance_from_those_before(seed: int) -> None:
    """A thousand points in two places and one far away: three means are these, whatever is drawn."""
    points = torch.tensor([[0.0, 0.0]] * 600 + [[1.0, 0.0]] * 400 + [[0.0, 9.0]])
    begun = codebooks._begin(points, torch.ones_like(points), 3, torch.Generator().manual_seed(seed))
    assert sorted(begun.tolist()) == [[0, 0], [0, 9], [1, 0]]


def test_books_that_16_bits_make_worse_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    hessian, weight = inputs_and_weight(16, 12, 0)
    config = Vector(kind="additive", width=4, bits=2, refinements=2)
    good = vector.quantize_matrix(weight, hessian.diagonal(), hessian, config, 0)
    monkeypatch.setattr(vector, "improve_books", lambda weight, codes, books, scales, bent: books + 1)
    unchanged = vector.quantize_matrix(weight, hessian.diagonal(), hessian, config, 0)
    lost = [float(((weight - values(one)) @ hessian * (weight - values(one))).sum()) for one in (good, unchanged)]
    assert lost[0] < lost[1] < 3 * lost[0], "books that are worse by one in each number would lose many times as much"
