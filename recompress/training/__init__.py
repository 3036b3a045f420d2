"""Training with transformers' ``Trainer``: baselines, further training, and the loop that distillation shares.

Nothing of it is imported before it is asked for: a recipe needs its dials alone (``recompress.training.settings``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recompress.training.run import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from recompress.training.run import train

        return train
    raise AttributeError(f"module 'recompress.training' has no attribute {name!r}")
