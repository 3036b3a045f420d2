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
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Kind, Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.codebooks import improve_books, improve_codes, loss, residual_codes
from recompress.methods.quantization.grid import FORM_BYTES, LARGEST, SMALLEST, FewBits, refuse, replace_embeddings, tensor_bytes
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import PackedEmbedding, PackedLinear, Vectors, packed_embedding, packed_linear
from recompress.models.packed.bits import row_bytes
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings


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
    scales = weight.square().mean(1, keepdim=True).sqrt().clamp(SMALLEST, LARGEST).half().to(weight.dtype)
    rows, columns = weight.shape
    points = (weight / scales).reshape(-1, config.width)
    heavy = (scales.square() * (importance / importance.mean().clamp_min(1e-30)).to(weight)).clamp_min(1e-12).reshape(-1, config.width)
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
    """Coded, in so many bits with the codebooks counted, and nearer to what the weights were than zeros are."""
    old, new = before.torch_network, after.torch_network
    pairs = [(linear, new.get_submodule(name)) for name, linear in encoder_linears(old)]
    shapes = [shape_of(linear) for linear, _ in pairs]
    packed = [(weight_of(linear), module) for linear, module in pairs if isinstance(module, PackedLinear) and "codebooks" in module.tensors]
    numbers = sum(rows * columns for rows, columns in shapes)
    asked = sum(matrix_bytes(*shape, config) for shape in shapes)
    words, width = token_table(old).weight.shape
    extra = matrix_bytes(words, width, config) - 4 * words * width if config.embeddings else 0
    measured = sum(module.stored_bytes for _, module in packed)
    worse = sum(bool((module.weight - weight).square().sum() > weight.square().sum()) for weight, module in packed)
    return [
        Claim("linear layers coded", len(pairs), len(packed)),
        Claim("bits of a weight, with codebooks and scales", 8 * asked / numbers, 8 * measured / numbers),
        Claim("matrices that zeros would be nearer to", 0, worse),
        Claim("embeddings coded", float(config.embeddings), float(isinstance(token_table(new), PackedEmbedding))),
        Claim("bytes of all tensors", tensor_bytes(old) + asked - 4 * numbers + extra, tensor_bytes(new)),
    ]


@method(
    "vector",
    Vector,
    family="quantization",
    prove=prove,
    check=check,
    needs=("calibration",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    not_after=dict.fromkeys(
        ("magnitude", "wanda", "sparsegpt", "movement", "gradual", "dynamic_sparse"), "a vector holds no single zeros, so that the sparsity would be lost"
    ),
    source="Stock et al. 2019, arXiv:1907.05686, eq. 3; Egiazarian et al. 2024, arXiv:2401.06118, eq. 3",
    shrinks="bytes, to about books * bits / width / 32 in the layers, and codebooks",
    speeds_up="nothing: weights are unpacked when they are used",
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

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        squares = statistics["squares"]
        importance = squares if config.weighted else torch.ones_like(squares)
        hessian = statistics["hessian"] if "hessian" in wanted else None
        matrices = {name: quantize_matrix(weight_of(linear), importance, hessian, config, seed(name)) for name, linear in group.items()}
        return {name: packed_linear(matrices[name], linear) for name, linear in group.items()}

    features = calibration_features(checkpoint, inputs, config.calibration_examples if config.weighted else 1)
    depends_on = {"method": "vector", "seed": inputs.seed, **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted=wanted, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "vector")
    if config.embeddings:
        table = token_table(network).weight.detach()
        alike = torch.ones(table.shape[1], device=table.device)
        replace_embeddings(network, packed_embedding(quantize_matrix(table, alike, None, config, seed("embeddings"))))
    return checkpoint
