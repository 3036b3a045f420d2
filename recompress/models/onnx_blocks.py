"""What codes in blocks stand for, by the definition of the operators that compute with them: read without the code that wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


def codes_by_hand(stored: np.ndarray[Any, Any], bits: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first ``count`` codes of each row of bytes, the lower half of a byte before the upper."""
    rows = stored.reshape(len(stored), -1)
    if bits == 4:
        rows = np.stack([rows % 16, rows // 16], axis=-1).reshape(len(rows), -1)
    codes: np.ndarray[Any, np.dtype[np.float32]] = rows[:, :count].astype(np.float32)
    return codes


def stored_weight(node: onnx.NodeProto, stored: dict[str, np.ndarray[Any, Any]], codes: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the operands of a ``MatMulNBits`` or ``GatherBlockQuantized`` stand for, ``[rows, columns]``, by the operators' definition."""
    form = {attribute.name: attribute.i for attribute in node.attribute}
    scales, bits, size = stored[node.input[2]], form["bits"], form["block_size"]
    rows, count = scales.shape
    zeros = codes_by_hand(stored[node.input[3]], bits, count) if len(node.input) > 3 else np.full(scales.shape, 2.0 ** (bits - 1), np.float32)
    values = codes_by_hand(stored[codes], bits, count * size).reshape(rows, count, size)
    weight: np.ndarray[Any, np.dtype[np.float32]] = ((values - zeros[:, :, None]) * scales[:, :, None]).reshape(rows, -1)
    return weight[:, : form.get("K", count * size)]
