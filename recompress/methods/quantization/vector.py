"""Vector: neighbouring weights of a row as one code of a codebook (product), or as a sum of several (additive).

    W[o, g] ~ scale[o] * C[code[o, g]]                              product: C the k-means of all groups g of all rows
    W[o, g] ~ scale[o] * (C_1[code_1[o, g]] + … + C_M[code_M[o, g]])      additive: books for what the others leave, then refined together
    scale[o] = sqrt(mean W[o]^2)

A weight takes books * bits / width bits and its share of the codebooks, 16 bits for each of their numbers: these weigh on small matrices. With calibration,
k-means counts each weight by sum x^2 of its input, and the refinement of additive codes minimises the outputs' squared error. Layer after layer.
Source: Jégou et al. 2011, "Product quantization for nearest neighbor search"; Stock et al. 2019, arXiv:1907.05686, eq. 3 (product, weighted by inputs);
Babenko and Lempitsky 2014, "Additive quantization"; Egiazarian et al. 2024 (AQLM), arXiv:2401.06118, eq. 3 (additive).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from recompress.errors import InputError
from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Kind, Statistics
from recompress.methods.probe import output_errors
from recompress.methods.quantization.by_layer import PACKED, code_layers, slower
from recompress.methods.quantization.closeness import squares_on_probe, table_claims, weighted_errors
from recompress.methods.quantization.codebooks import improve_books, improve_codes, loss, residual_codes
from recompress.methods.quantization.grid import FewBits, grid_of, refuse, replace_embeddings
from recompress.methods.quantization.packed_claims import FORM_BYTES, tensor_bytes
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import PackedEmbedding, PackedLinear, Vectors, packed_embedding
from recompress.models.packed.bits import row_bytes
from recompress.models.packed.scales import LARGEST, held_near
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings

FINE = 2.0**-10
"""Below it, scales are taken in units of the largest, so that their squares stay above what k-means takes for nothing."""

ROW = 1.5
"""The squared error of a row of the embeddings, in its squares: another's row is farther off."""
USUAL = 0.99
"""Share of the rows that this holds of: few vectors may miss a row by much that is unlike all others, one number among zeros for example."""


class Vector(Settings):
    """Which codes."""

    kind: Literal["product", "additive"] = "product"
    """One vector for a group of weights, or a sum of vectors."""
    width: Annotated[int, Field(ge=2, le=64)] = 4
    """Neighbouring weights of a row that are coded together; it must divide the width of every matrix."""
    bits: Annotated[int, Field(ge=1, le=8)] = 8
    """Bits of a code: a codebook has 2^bits vectors."""
    books: Annotated[int, Field(ge=2, le=8)] | None = None
    """additive: codebooks, 2 when left out; leave it out for product, which has one."""
    weighted: bool = True
    """Let what the inputs are on calibration text decide which errors matter."""
    rounds: Annotated[int, Field(ge=1, le=1000)] = 25
    """Lloyd's rounds of k-means."""
    refinements: Annotated[int, Field(ge=0, le=100)] = 3
    """additive: rounds of the refinement, each over all codes and then all books."""
    embeddings: bool = False
    """Code the token embeddings too; an output layer that is tied to them follows."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at; none where ``weighted`` is false."""

    @property
    def count(self) -> int:
        """Codebooks of a matrix."""
        return 1 if self.kind == "product" else self.books or 2


def check(config: Vector) -> None:
    """Raises ``InputError`` for settings that do not belong to the kind."""
    if config.kind == "product" and config.books is not None:
        raise InputError(f"product has one codebook, got books: {config.books}; leave it out, or choose kind: additive")


def quantize_matrix(
    weight: Float[Tensor, "out in"], importance: Float[Tensor, " in"], hessian: Float[Tensor, "in in"] | None, config: Vector, seed: int
) -> Vectors:
    """The codes and the books. ``importance`` is h of k-means; without ``hessian``, additive codes are refined as if inputs were alike and independent."""
    draw = torch.Generator().manual_seed(seed)
    scales = held_near(weight.square().mean(1, keepdim=True).sqrt())
    rows, columns = weight.shape
    points = (weight / scales).reshape(-1, config.width)
    unit = 1.0 if float(scales.max()) >= FINE else float(scales.max())
    heavy = ((scales / unit).square() * (importance / importance.mean().clamp_min(1e-30)).to(weight)).clamp_min(1e-12).reshape(-1, config.width)
    codes, books = residual_codes(points, heavy, 1 << config.bits, config.count, config.rounds, draw)
    codes = codes.view(rows, columns // config.width, config.count)
    if config.kind == "additive" and config.refinements:
        bent = torch.eye(columns, dtype=weight.dtype, device=weight.device) if hessian is None else hessian.to(weight)
        for _ in range(config.refinements):
            improve_codes(weight, codes, books, scales, bent)
            better = improve_books(weight, codes, books, scales, bent).clamp(-LARGEST, LARGEST).half().to(weight.dtype)
            if loss(weight, codes, better, scales, bent) < loss(weight, codes, books, scales, bent):  # 16 bits may cost more than the change wins
                books = better
        improve_codes(weight, codes, books, scales, bent)
    return Vectors(codes, config.bits, books, scales)


def matrix_bytes(rows: int, columns: int, config: Vector) -> int:
    """Codes, scales and codebooks."""
    codes = rows * row_bytes(columns // config.width * config.count, config.bits)
    return codes + 2 * rows + 2 * config.count * config.width * (1 << config.bits) + FORM_BYTES


def prove(before: Checkpoint, after: Checkpoint, config: Vector, inputs: Inputs) -> list[Claim]:
    """Coded, in so many bits with the codebooks counted, and less lost, by the measure that the codes minimise, than with even steps of as many bits."""
    old, new = before.torch_network, after.torch_network
    pairs = [(linear, new.get_submodule(name)) for name, linear in encoder_linears(old)]
    shapes = [shape_of(linear) for linear, _ in pairs]
    packed = [(weight_of(linear), module) for linear, module in pairs if isinstance(module, PackedLinear) and "codebooks" in module.tensors]
    numbers = sum(rows * columns for rows, columns in shapes)
    asked = sum(matrix_bytes(*shape, config) for shape in shapes)
    words, width = token_table(old).weight.shape
    extra = matrix_bytes(words, width, config) - 4 * words * width if config.embeddings else 0
    measured = sum(module.stored_bytes for _, module in packed)
    return [
        Claim("linear layers coded", len(pairs), len(packed)),
        Claim("bits of a weight, with codebooks and scales", 8 * asked / numbers, 8 * measured / numbers),
        Claim("embeddings coded", float(config.embeddings), float(isinstance(token_table(new), PackedEmbedding))),
        Claim("bytes of all tensors", tensor_bytes(old) + asked - 4 * numbers + extra, tensor_bytes(new)),
        *_nearer_claims(before, after, config, inputs),
    ]


def _nearer_claims(before: Checkpoint, after: Checkpoint, config: Vector, inputs: Inputs) -> Iterator[Claim]:
    """Below 5 bits against even steps with as many bits of a weight, rounded down; above, where few vectors gain little, with one bit less."""
    whole = config.count * config.bits // config.width
    bits = whole if whole < 5 else whole - 1

    def even(_: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        if not bits:
            return torch.zeros_like(weight)
        grid = grid_of(weight, bits, None, symmetric=False)
        return (((weight / grid.scales).round() + grid.zeros).clamp(0, (1 << bits) - 1) - grid.zeros) * grid.scales

    if config.kind == "additive" and config.weighted and config.refinements:
        errors = output_errors(before, after, inputs, even)
    else:
        errors = weighted_errors(before, after, squares_on_probe(before, after, inputs) if config.weighted else None, even)
    simpler = f"even steps of {bits} bits" if bits else "zeros"
    yield Claim(f"error by the measure of the codes, below that of {simpler}", errors.simpler, errors.method, bound="at most")
    if config.embeddings:
        yield from table_claims(before, after, even, simpler, ROW, USUAL)


@method(
    "vector",
    Vector,
    prove=prove,
    check=check,
    needs=("calibration",),
    **PACKED,
    not_after=dict.fromkeys(
        ("magnitude", "wanda", "sparsegpt", "movement", "gradual", "dynamic_sparse"), "a vector holds no single zeros, so that the sparsity would be lost"
    ),
    source="Stock et al. 2019, arXiv:1907.05686, eq. 3; Egiazarian et al. 2024, arXiv:2401.06118, eq. 3",
    shrinks="bytes, to about books * bits / width / 32 in the layers, and codebooks",
    speeds_up=slower("1.2 to 1.6"),
)
def quantize_vector(checkpoint: Checkpoint, config: Vector, inputs: Inputs) -> Checkpoint:
    """Groups of weights as codes of a codebook, or as sums of several."""
    network = checkpoint.torch_network
    for name, linear in [*encoder_linears(network), *([("the embeddings", token_table(network))] if config.embeddings else [])]:
        columns = linear.weight.shape[1] if isinstance(linear, nn.Embedding) else shape_of(linear)[1]
        if columns % config.width:
            raise InputError(f"width {config.width} does not divide the {columns} columns of {name}; choose one that divides all")
    refuse(network, FewBits(embeddings=config.embeddings))

    def seed(name: str) -> int:
        return zlib.crc32(f"{inputs.seed} {name}".encode())

    wanted: tuple[Kind, ...] = ("squares", "hessian") if config.weighted and config.kind == "additive" else ("squares",)

    def coding(group: Group, statistics: Statistics) -> Mapping[str, Vectors]:
        squares = statistics["squares"]
        importance = squares if config.weighted else torch.ones_like(squares)
        hessian = statistics["hessian"] if "hessian" in wanted else None
        return {name: quantize_matrix(weight_of(linear), importance, hessian, config, seed(name)) for name, linear in group.items()}

    examples = config.calibration_examples if config.weighted else 1
    code_layers(checkpoint, inputs, "vector", config, coding, wanted=wanted, examples=examples, seed=inputs.seed)
    if config.embeddings:
        table = token_table(network).weight.detach()
        alike = torch.ones(table.shape[1], device=table.device)
        replace_embeddings(network, packed_embedding(quantize_matrix(table, alike, None, config, seed("embeddings"))))
    return checkpoint
