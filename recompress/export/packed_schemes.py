"""In which bits each packed matrix is written for compressed-tensors, and the tensors that it then is: every code and every scale as it was.

    weight[o, i] = scale[o, g] * (q[o, i] - zero[o, g])          q in [-2^(bits - 1), 2^(bits - 1))          g: the group of columns that i is in

    weight_packed      [out, words]       q + 2^(bits - 1), one code after another, the lowest bits of a 32-bit word first
    weight_scale       [out, groups]
    weight_zero_point  [words, groups]    zero + 2^(bits - 1), packed along the rows; only where steps do not lie evenly around zero
    weight_shape       [2]                out and in

vLLM reads 4 and 8 bits, and wants one scheme for the matrices that it joins (query, key and value; the two in front of the neurons). Codes of fewer bits are codes of
more bits too, and 2 or 3 bits with zero points lie evenly around zero in 4, so that nothing is rounded again. What vLLM cannot join is written in floats.
transformers (5.23) reads zero points only where all matrices have one scheme, and turns codes into floats in the type of the scales: with zero points those are in
32 bits, and without them in 16 where 16 hold them.
Source: the library compressed-tensors (0.20), ``compressors/pack_quantized``; transformers, ``integrations/compressed_tensors.py``; vLLM,
``quantization/compressed_tensors/schemes/compressed_tensors_wNa16.py`` and ``utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.errors import InputError
from recompress.models.architecture import Layer, architecture_of, layers_of
from recompress.models.gguf.shape import FAMILIES
from recompress.models.gguf.tensors import Place, numbers_at, places
from recompress.models.packed import Packed, PackedLinear, packed_linears, unpack, words
from recompress.models.packed.scales import lowered

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
"""How the names of a matrix's tensors end."""
WIDTHS = (4, 8)
"""Bits that every version of vLLM reads."""
OTHER = {"levels": "levels of a codebook", "codebooks": "codes of several numbers", "places": "outliers in 16 bits"}
"""What tensors of a packed matrix say that is no even step."""


class Scheme(NamedTuple):
    """How a matrix is written."""

    bits: int
    symmetric: bool
    group_size: int | None
    """Columns with one scale; all of a row where there is none."""

    def __str__(self) -> str:
        return f"{self.bits} bits in {'whole rows' if self.group_size is None else f'groups of {self.group_size}'}"


def schemes_of(network: PreTrainedModel) -> dict[str, Scheme]:
    """The scheme of each matrix that is written in codes, by the name of its layer. Raises ``InputError`` for a model that the format cannot hold."""
    inner = {id(part) for layer in layers_of(network) for part in layer.module.modules()}
    packed = {name: linear for name, linear in packed_linears(network).items() if id(linear) in inner}
    folded = {id(place.module) for place in folds(network) if place.is_matrix}
    for name, linear in packed.items():
        _check_steps(name, linear, folded=id(linear) in folded)
    by_rows = all(linear.scales.shape[1] == 1 for linear in packed.values())
    chosen = _joined(network, _one_with_zeros({name: _scheme_of(linear, by_rows=by_rows) for name, linear in packed.items()}))
    if not chosen:
        raise InputError("none of the matrices in its layers can be written in codes; give the step that packs them fewer bits")
    return chosen


def folds(network: PreTrainedModel) -> list[Place]:
    """The norms that take factors of columns, and the matrices behind them, which are written without (``awq`` with ``foldable: true``)."""
    return [place for place in places(network) if place.factors is not None] if architecture_of(network).name in FAMILIES else []


def folded_norms(network: PreTrainedModel) -> dict[str, Float[Tensor, " in"]]:
    """The weights of the norms that take factors, by the names of the tensors."""
    names = {id(module): name for name, module in network.named_modules()}
    return {f"{names[id(place.module)]}.{place.part}": numbers_at(place) for place in folds(network) if place.is_norm}


def coded(matrix: PackedLinear, scheme: Scheme) -> dict[str, Tensor]:
    """The tensors of a matrix, by the ends of their names."""
    bits, (rows, groups) = scheme.bits, matrix.scales.shape
    codes, scales = unpack(matrix.codes, matrix.bits, matrix.columns_count), lowered(matrix.scales, matrix.lift)
    zeros = matrix.tensors.get("zeros")
    if zeros is None:
        zeros = torch.full((rows, groups), 1 << (matrix.bits - 1), dtype=torch.uint8)
    stored = {"weight_shape": torch.tensor([rows, matrix.columns_count])}
    if not scheme.symmetric:
        zero_words = words(zeros.T.contiguous(), bits).T.contiguous()
        return stored | {"weight_packed": words(codes, bits), "weight_scale": scales, "weight_zero_point": zero_words}
    even = codes.view(rows, groups, -1).short() - zeros[:, :, None].short() + (1 << (bits - 1))
    short = scales.half()
    return stored | {"weight_packed": words(even.to(torch.uint8).flatten(1), bits), "weight_scale": short if bool(short.float().equal(scales)) else scales}


def steps_of(matrix: Packed) -> Float[Tensor, "out in"]:
    """The matrix as floats, without factors of columns: a norm takes these, or they are 1."""
    tensors = {name: tensor for name, tensor in matrix.tensors.items() if name != "columns"}
    return Packed(tensors, matrix.rows, matrix.columns_count).matrix()


def _check_steps(name: str, linear: PackedLinear, *, folded: bool) -> None:
    tensors = linear.tensors
    for other, what in OTHER.items():
        if other in tensors:
            raise InputError(
                f"{name} holds {what}, and compressed-tensors has even steps only; export a variant of rtn, gptq, awq, signround or mixed_precision"
            )
    if not folded and "columns" in tensors and not bool((tensors["columns"] == 1).all()):
        raise InputError(f"{name} has a factor for each column, which compressed-tensors has no place for; pack it with awq: {{foldable: true}}, gptq or rtn")


def _scheme_of(linear: PackedLinear, *, by_rows: bool) -> Scheme:
    """Zero points only where the bits of the file are no more than those of the matrix: one bit more is room enough for both sides of zero."""
    bits = min(width for width in WIDTHS if width >= linear.bits)
    symmetric = "zeros" not in linear.tensors or linear.bits < bits
    return Scheme(bits, symmetric, None if by_rows else linear.columns_count // linear.scales.shape[1])


def _one_with_zeros(schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
    """All with zero points, where any has them. Raises ``InputError`` where they are of several kinds all the same."""
    if all(scheme.symmetric for scheme in schemes.values()):
        return dict(schemes)
    every = {name: scheme._replace(symmetric=False) for name, scheme in schemes.items()}
    if len(kinds := sorted({str(scheme) for scheme in every.values()})) > 1:
        raise InputError(
            f"transformers reads zero points of one kind in a model, and these are of {', of '.join(kinds)}; set symmetric: true in the step that packs them"
        )
    return every


def _joined(network: PreTrainedModel, schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
    """Those that are served as one matrix with as many bits as the widest of them, or none of them in codes where one is in floats."""
    names = {id(module): name for name, module in network.named_modules()}
    chosen = dict(schemes)
    for layer in layers_of(network):
        for together in _served_together(layer):
            every = [names[id(linear)] for linear in together]
            known = [chosen[name] for name in every if name in chosen]
            for name in every:
                if len(known) < len(every):
                    chosen.pop(name, None)
                else:
                    chosen[name] = chosen[name]._replace(bits=max(scheme.bits for scheme in known))
    return chosen


def _served_together(layer: Layer) -> tuple[tuple[Any, ...], ...]:
    return (layer.query, layer.key, layer.value), layer.neurons_in
