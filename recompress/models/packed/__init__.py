"""Weights in few bits: packed in memory and on disk, and multiplied as they are, or turned into floats when they are used.

A module is replaced whole: a linear layer by ``PackedLinear``, an embedding by ``PackedEmbedding``. What its tensors mean is said by their names, one file
for each format: ``steps`` (a scale for each group, or levels), ``outliers`` (8 bits, some columns in 16), ``vectors`` (codebooks). ``fit_packed`` puts empty
modules into a network that is read back, by the names of the stored tensors; ``form`` says what their shapes cannot: columns and bits. How even steps are
multiplied says ``laid``; a codebook is unpacked, once for all that is in a call.
"""

from recompress.models.packed.bits import pack, unpack, words
from recompress.models.packed.fit import fit_packed, numbers_in, place, settle_packed, tie_packed
from recompress.models.packed.modules import Packed, PackedEmbedding, PackedLinear, packed_embedding, packed_linear, packed_linears, unpacked
from recompress.models.packed.outliers import WithOutliers
from recompress.models.packed.steps import Quantized
from recompress.models.packed.vectors import Vectors

__all__ = [
    "Packed",
    "PackedEmbedding",
    "PackedLinear",
    "Quantized",
    "Vectors",
    "WithOutliers",
    "fit_packed",
    "numbers_in",
    "pack",
    "packed_embedding",
    "packed_linear",
    "packed_linears",
    "place",
    "settle_packed",
    "tie_packed",
    "unpack",
    "unpacked",
    "words",
]
