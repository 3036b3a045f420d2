"""Training with transformers' ``Trainer``: baselines, further training, and the loop that distillation shares."""

from recompress.training.run import train

__all__ = ["train"]
