"""Zeros that stay zero: what was pruned is left so by whatever trains the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from recompress.models.architecture import encoder_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def hold_zeros(network: PreTrainedModel) -> Iterator[None]:
    """While the block runs, every weight of the encoder's linear layers that is zero at its start is zero after each step of any torch optimizer. It is for a
    network that was pruned: in another one zeros are weights like others, in a block that was added to change nothing at first all of them.

    With ``Trainer``: ``with hold_zeros(network): trainer.train()``. A network without zeros costs nothing.
    """
    masks = [(linear.weight, linear.weight.detach() != 0) for _, linear in encoder_linears(network)]
    masks = [(weight, mask) for weight, mask in masks if not mask.all()]

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for i, (weight, mask) in enumerate(masks):
                if mask.device != weight.device:  # the network has moved since; its masks follow once
                    masks[i] = (weight, mask := mask.to(weight.device))
                weight.mul_(mask)

    hook = register_optimizer_step_post_hook(after_step) if masks else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
