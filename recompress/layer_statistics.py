"""What the inputs of a linear layer are like on calibration text: all that layer-by-layer methods learn from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Statistics:
    """What went into one group of linear layers, padding left out."""

    width: int
    tokens: int = 0
    absolute: Float[Tensor, " inputs"] = field(default_factory=lambda: torch.empty(0))
    """Sum of absolute values."""
    squares: Float[Tensor, " inputs"] = field(default_factory=lambda: torch.empty(0))
    """Sum of squares."""
    largest: Float[Tensor, " inputs"] = field(default_factory=lambda: torch.empty(0))
    """The largest absolute value."""
    hessian: Float[Tensor, "inputs inputs"] | None = None
    """X^T X in 32-bit floats, where it was asked for. It belongs to the method, which may overwrite it."""

    def begin(self, device: torch.device, *, hessian: bool) -> None:
        self.absolute = torch.zeros(self.width, dtype=torch.float64, device=device)
        self.squares = torch.zeros(self.width, dtype=torch.float64, device=device)
        self.largest = torch.zeros(self.width, device=device)
        self.hessian = torch.zeros((self.width, self.width), device=device) if hessian else None

    def add(self, rows: Float[Tensor, "tokens inputs"]) -> None:
        self.tokens += len(rows)
        sizes = rows.abs()
        self.absolute += sizes.sum(0, dtype=torch.float64)
        self.squares += sizes.square().sum(0, dtype=torch.float64)
        self.largest = torch.maximum(self.largest, sizes.amax(0))
        if self.hessian is not None:
            self.hessian.addmm_(rows.T, rows)
