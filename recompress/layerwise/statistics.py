"""What the inputs of a linear layer are like on calibration text: all that layer-by-layer methods learn from it, and of that what a method asks for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Kind = Literal["absolute", "squares", "largest", "hessian"]
"""Of each input the sum of absolute values, the sum of squares, the largest absolute value; and X^T X of all of them."""
DTYPES: dict[Kind, torch.dtype] = {"absolute": torch.float64, "squares": torch.float64, "largest": torch.float32, "hessian": torch.float32}


class Statistics:
    """What went into one group of linear layers, padding left out. ``statistics["squares"]``: ``[inputs]``, and ``["hessian"]``: ``[inputs, inputs]``.

    They belong to the method, which may overwrite them.
    """

    def __init__(self, width: int, wanted: Collection[Kind], device: torch.device) -> None:
        self.tokens = 0
        self._of: dict[Kind, Tensor] = {}
        for kind in wanted:
            self._of[kind] = torch.zeros((width, width) if kind == "hessian" else width, dtype=DTYPES[kind], device=device)

    def __getitem__(self, kind: Kind) -> Tensor:
        return self._of[kind]

    @property
    def are_finite(self) -> bool:
        """A number that is not finite shows on the diagonal of X^T X, where no second matrix is needed to look for it."""
        return all(bool((total.diagonal() if kind == "hessian" else total).isfinite().all()) for kind, total in self._of.items())

    def add(self, rows: Float[Tensor, "tokens inputs"]) -> None:
        self.tokens += len(rows)
        for kind, total in self._of.items():
            if kind == "hessian":
                total.addmm_(rows.T, rows)
            elif kind == "largest":
                torch.maximum(total, rows.abs().amax(0), out=total)
            else:
                total += (rows.abs() if kind == "absolute" else rows.square()).sum(0, dtype=torch.float64)
